"""What a worker notes on its way into the ledger: nothing lost, nothing twice, bounded."""

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


def note(counters: Counters, times: int = 1) -> None:
    """Something of acme's orders."""
    counters.count("acme", "order", Count.RECEIPTS, times)
    counters.time("acme", "order", Timing.RECEIPT, timedelta(seconds=0.2))


def of(buckets: list[StatsBucket], width: timedelta) -> list[StatsBucket]:
    """Those of one grain."""
    return [one for one in buckets if one.width == width]


def test_everything_is_in_a_fine_and_a_coarse_bucket() -> None:
    """Each begins where every worker's begins."""
    counters = Counters()
    note(counters, 3)
    buckets = counters.gather(NOW)
    assert {one.width: one.begin for one in buckets} == {
        FINE.width: NOW.replace(second=0),
        COARSE.width: NOW.replace(second=0),
    }
    assert [one.stats[Count.RECEIPTS] for one in buckets] == [3, 3]


def test_a_bucket_is_reported_as_a_whole() -> None:
    """A later report of the same bucket has all of it, and so may take the place of the first."""
    counters = Counters()
    note(counters)
    counters.mark_reported(counters.gather(NOW))
    note(counters)
    (fine,) = of(counters.gather(NOW + timedelta(seconds=3)), FINE.width)
    assert fine.stats[Count.RECEIPTS] == 2


def test_what_was_not_reported_is_gathered_again() -> None:
    """The ledger was away, or nobody knows whether it has taken it."""
    counters = Counters()
    note(counters)
    first = counters.gather(NOW)
    assert first == counters.gather(NOW + timedelta(seconds=1))
    counters.mark_reported(first)
    assert counters.gather(NOW + timedelta(seconds=2)) == []


def test_the_next_bucket_begins_with_nothing() -> None:
    """What was counted in the one before stays there."""
    counters = Counters()
    note(counters)
    counters.mark_reported(counters.gather(NOW))
    note(counters)
    later = counters.gather(NOW + timedelta(seconds=10))
    (fine,), (coarse,) = of(later, FINE.width), of(later, COARSE.width)
    assert (fine.begin, fine.stats[Count.RECEIPTS]) == (NOW.replace(second=10), 1)
    assert coarse.stats[Count.RECEIPTS] == 2


def test_memory_is_bounded_while_the_ledger_is_away() -> None:
    """Nobody would read what is older than it is kept."""
    counters = Counters()
    for number in range(3000):
        note(counters)
        buckets = counters.gather(NOW + number * FINE.width)
    assert len(of(buckets, FINE.width)) <= FINE.kept / FINE.width + 1
    assert len(of(buckets, COARSE.width)) <= COARSE.kept / COARSE.width + 1


def test_two_workers_are_told_apart() -> None:
    """Also the one that takes the place of one that was killed."""
    assert Counters().worker != Counters().worker


def test_observed_survives_json_and_newer_versions() -> None:
    """What is counted under names we do not know is left out."""
    stats = OperationStats()
    stats.counts[Count.LATE] = 2
    stats.times[Timing.ANSWER].add(3.0)
    plain = stats.to_json()
    plain["counts"]["new"] = 7
    plain["times"]["newer"] = {"1": 1}
    assert stats == OperationStats.from_json(plain)


def test_trouble_is_told_apart() -> None:
    """A refusal is no error of the provider's, and neither is what is ours."""
    stats = OperationStats()
    for what in (Count.REFUSED, Count.OWN_ERRORS, Count.UNANSWERED, Count.SILENCES, Count.RECEIPTS):
        stats.counts[what] += 1
    assert stats.errors == 2
    assert stats.sends == 3
