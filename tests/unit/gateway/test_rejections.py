"""What is rejected is counted, and sampled in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from ackbridge.gateway.rejections import (
    MAX_LINES,
    MAX_SOURCES,
    NO_PROVIDER,
    Rejections,
    SourceLimiter,
)
from ackbridge.stats.counters import Count, Counters


class Clock:
    """Monotonic seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_one_line_with_its_source(caplog: pytest.LogCaptureFixture) -> None:
    """200,000 forgeries of one source: one line now, and one a minute later with their number."""
    counters, clock = Counters(), Clock()
    rejections = Rejections(counters, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(200_000):
            rejections.note("acme", "192.0.2.1", "forged", "signature does not match")
        clock.now = 61
        rejections.note("acme", "192.0.2.1", "forged", "signature does not match")

    first, second = (record.getMessage() for record in caplog.records)
    assert first == ("callback forged: signature does not match (provider acme, from 192.0.2.1)")
    assert second == first + "; 199999 more like the last one"
    assert counters.totals()["acme", ""][Count.FORGED] == 200_001


def test_many_sources_are_bounded_in_log_and_memory(caplog: pytest.LogCaptureFixture) -> None:
    """A sender with many addresses gets neither a line for each nor an entry for each."""
    counters, clock = Counters(), Clock()
    rejections = Rejections(counters, clock)
    with caplog.at_level(logging.INFO):
        for number in range(3 * MAX_SOURCES):
            clock.now = number / 1000
            rejections.note(NO_PROVIDER, f"2001:db8:{number:x}::/64", "unknown", None)

    assert len(caplog.records) <= MAX_LINES + 31
    assert "others not logged" in caplog.records[-1].getMessage()
    assert len(rejections._seen) <= MAX_SOURCES
    assert counters.totals()["", ""][Count.TURNED_AWAY] == 3 * MAX_SOURCES
    assert counters.gather(datetime.now(UTC)) == []


def test_a_source_has_its_own_tokens() -> None:
    """What one source uses up, no other one misses; they come back with time."""
    clock = Clock()
    limiter = SourceLimiter(clock)
    taken = [limiter.take("acme", "192.0.2.1", 1, 3) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    assert limiter.take("acme", "192.0.2.2", 1, 3)
    assert limiter.take("other", "192.0.2.1", 1, 3)
    clock.now = 1.5
    assert limiter.take("acme", "192.0.2.1", 1, 3)
    for number in range(2 * MAX_SOURCES):
        limiter.take("acme", str(number), 1, 3)
    assert len(limiter._buckets) == MAX_SOURCES
