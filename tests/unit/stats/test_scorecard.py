"""The scorecard: sums and rates, with and without traffic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import WHOLE_PROVIDER, ControlSnapshot, LearnedDeadline
from ackbridge.stats.counters import Count, OperationStats, Timing
from ackbridge.stats.scorecard import scorecard

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(minutes=10)


def stats_with(**counts: int) -> OperationStats:
    """Statistics with these counts."""
    observed = OperationStats()
    for name, count in counts.items():
        observed.counts[Count(name)] = count
    return observed


def at(minute: int) -> datetime:
    """The start of a bucket."""
    return START + timedelta(minutes=minute)


def test_rates_and_numbers_add_up() -> None:
    """Over all buckets; the provider's errors and ours separately."""
    busy = stats_with(receipts=8, unanswered=2, answers=6, silences=1, failures=1, late=1, ours=5)
    busy.times[Timing.ANSWER].add(2.0)
    card = scorecard("acme", {at(0): {"order": busy}, at(1): {"order": busy}}, {}, START, END)
    (order,) = card.operations
    assert order.sends == 20
    assert order.receipt_rate == 0.8
    assert order.answer_rate == 0.75
    assert order.errors_per_minute == pytest.approx(0.8)
    assert order.ours_per_minute == pytest.approx(1.0)
    assert (order.silences, order.failures, order.late) == (2, 2, 2)
    assert order.answer is not None
    assert order.answer.p99 == pytest.approx(2.0, rel=0.02)
    assert order.receipt is None


def test_uptime_is_a_share_of_time() -> None:
    """A bucket with a thousand sends weighs as much as one with a single health request."""
    timeline = {
        at(0): {"order": stats_with(receipts=1000)},
        at(1): {WHOLE_PROVIDER: stats_with(unhealthy=1)},
        at(2): {"order": stats_with(unanswered=3), WHOLE_PROVIDER: stats_with(healthy=1)},
        at(3): {"order": stats_with(duplicates=1)},
    }
    card = scorecard("acme", timeline, {}, START, END)
    assert card.whole.uptime == pytest.approx(1 / 3)
    assert card.operations[0].uptime == pytest.approx(1 / 2)


def test_the_backlog_is_shown_without_any_traffic() -> None:
    """An operation that is switched off has parked calls, and the provider their sum."""
    card = scorecard("acme", {}, {"order": (3, 1), "quote": (1, 0)}, START, END)
    assert [(one.operation, one.parked, one.owed) for one in card.operations] == [
        ("order", 3, 1),
        ("quote", 1, 0),
    ]
    assert (card.whole.parked, card.whole.owed) == (4, 1)
    assert card.whole.uptime is None


def test_the_control_adds_breaker_and_deadlines() -> None:
    """From its snapshot."""
    breaker = BreakerStatus(state=BreakerState.OPEN, since=START, reason="errors")
    learned = LearnedDeadline(deadline=timedelta(seconds=4), reason="learned", samples=812)
    snapshot = ControlSnapshot(
        provider="acme", version=2, at=START, breaker=breaker, deadlines={"order": learned}
    )
    card = scorecard("acme", {}, {}, START, END, snapshot)
    assert card.breaker == breaker
    assert card.operations[0].deadline == timedelta(seconds=4)
    assert card.operations[0].deadline_reason == "learned"
