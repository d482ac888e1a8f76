"""Counters: nothing is lost or counted twice, and memory is bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ackbridge.stats.counters import (
    COARSE,
    FINE,
    Count,
    Counters,
    OperationStats,
    StatsBucket,
    Timing,
)

NOW = datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)


def count(counters: Counters, times: int = 1) -> None:
    """Count receipts of acme's orders."""
    counters.count("acme", "order", Count.RECEIPTS, times)
    counters.time("acme", "order", Timing.RECEIPT, timedelta(seconds=0.2))


def of(buckets: list[StatsBucket], width: timedelta) -> list[StatsBucket]:
    """The buckets of one width."""
    return [one for one in buckets if one.width == width]


def test_everything_is_in_a_fine_and_a_coarse_bucket() -> None:
    """They begin at the same times in every worker."""
    counters = Counters()
    count(counters, 3)
    buckets = counters.gather(NOW)
    assert {one.width: one.begin for one in buckets} == {
        FINE.width: NOW.replace(second=0),
        COARSE.width: NOW.replace(second=0),
    }
    assert [one.stats[Count.RECEIPTS] for one in buckets] == [3, 3]


def test_a_bucket_is_reported_as_a_whole() -> None:
    """A later report contains everything, so that it can replace the first."""
    counters = Counters()
    count(counters)
    counters.mark_reported(counters.gather(NOW))
    count(counters)
    (fine,) = of(counters.gather(NOW + timedelta(seconds=3)), FINE.width)
    assert fine.stats[Count.RECEIPTS] == 2


def test_what_was_not_reported_is_gathered_again() -> None:
    """For example because the ledger was unavailable."""
    counters = Counters()
    count(counters)
    first = counters.gather(NOW)
    assert first == counters.gather(NOW + timedelta(seconds=1))
    counters.mark_reported(first)
    assert counters.gather(NOW + timedelta(seconds=2)) == []


def test_the_next_bucket_starts_empty() -> None:
    """What was counted in the previous one stays there."""
    counters = Counters()
    count(counters)
    counters.mark_reported(counters.gather(NOW))
    count(counters)
    later = counters.gather(NOW + timedelta(seconds=10))
    (fine,), (coarse,) = of(later, FINE.width), of(later, COARSE.width)
    assert (fine.begin, fine.stats[Count.RECEIPTS]) == (NOW.replace(second=10), 1)
    assert coarse.stats[Count.RECEIPTS] == 2


def test_memory_is_bounded_while_the_ledger_is_unavailable() -> None:
    """Buckets older than their retention are dropped."""
    counters = Counters()
    for number in range(3000):
        count(counters)
        buckets = counters.gather(NOW + number * FINE.width)
    assert len(of(buckets, FINE.width)) <= FINE.kept / FINE.width + 1
    assert len(of(buckets, COARSE.width)) <= COARSE.kept / COARSE.width + 1


def test_workers_have_different_ids() -> None:
    """So has one that replaces a killed one."""
    assert Counters().worker != Counters().worker


def test_stats_survive_json_and_newer_versions() -> None:
    """Counts with unknown names are ignored."""
    stats = OperationStats()
    stats.counts[Count.LATE] = 2
    stats.times[Timing.ANSWER].add(3.0)
    plain = stats.to_json()
    plain["counts"]["new"] = 7
    plain["times"]["newer"] = {"1": 1}
    assert stats == OperationStats.from_json(plain)


def test_errors_of_the_provider() -> None:
    """Neither refusals nor our own errors are among them."""
    stats = OperationStats()
    for what in (Count.REFUSED, Count.OWN_ERRORS, Count.UNANSWERED, Count.SILENCES, Count.RECEIPTS):
        stats.counts[what] += 1
    assert stats.errors == 2
    assert stats.sends == 3
