"""From workers' counts_by_report to what the breaker decides by, and the turnstile of a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    MonitorState,
    SendRate,
)
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.control.admission import HalfOpenLimiter
from ackbridge.control.breaker import (
    BreakerRules,
    breaker_counts,
    counts_by_report,
    evaluate,
    new_counts,
)
from ackbridge.stats.counters import Count

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RULES = BreakerRules(BreakerPolicy(), health_every=30 * SECOND)
CLOSED = BreakerStatus.initial(AT)


def test_theirs_is_told_apart_from_ours() -> None:
    """Refusals are answers; 429 and our own trouble are nothing; silence is not a failed send."""
    counts = {what: 2**number for number, what in enumerate(Count)}
    tally = breaker_counts(counts)
    assert tally == BreakerCounts(
        answered=counts[Count.RECEIPTS] + counts[Count.REFUSED],
        failed=counts[Count.UNANSWERED],
        responded=counts[Count.ANSWERS] + counts[Count.FAILURES],
        silent=counts[Count.SILENCES],
    )


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=20))
def test_every_report_counts_once(growth: list[list[int]]) -> None:
    """Reports grow, and are read again and again: in the end each failure was new_counts once."""
    stands = [0, 0, 0]
    marks: dict[str, BreakerCounts] = {}
    seen = NO_COUNTS
    for more in growth:
        stands = [before + by for before, by in zip(stands, more, strict=True)]
        buckets = [
            (AT + number * 10 * SECOND, {Count.UNANSWERED: count})
            for number, count in enumerate(stands)
        ]
        found = counts_by_report(buckets)
        seen += new_counts(found, marks)
        marks = found
    assert seen.failed == sum(stands)


def test_a_look_goes_on_where_the_one_before_has_ended() -> None:
    """What was counted before is no new_counts, not even after the breaker has moved."""
    buckets = [(AT, {Count.UNANSWERED: 6}), (AT, {Count.UNANSWERED: 4})]
    seen = evaluate(RULES, CLOSED, MonitorState(), counts_by_report(buckets), None, AT + SECOND)
    assert seen.breaker.state is BreakerState.OPEN
    assert seen.rate == SendRate(per_second=0)
    later = AT + 32 * SECOND
    again = evaluate(
        RULES, seen.breaker, seen.monitor, counts_by_report(buckets), Count.HEALTHY, later
    )
    assert again.breaker.state is BreakerState.HALF_OPEN
    assert again.monitor.probed_at == later
    once_more = evaluate(
        RULES, again.breaker, again.monitor, counts_by_report(buckets), None, later + SECOND
    )
    assert once_more.breaker is again.breaker


def test_when_the_health_is_asked() -> None:
    """At once, then every 30 s, and every 5 s while the breaker is half open."""
    half_open = CLOSED.model_copy(update={"state": BreakerState.HALF_OPEN})
    assert RULES.is_probe_due(CLOSED, None, AT)
    assert not RULES.is_probe_due(CLOSED, AT, AT + 29 * SECOND)
    assert RULES.is_probe_due(CLOSED, AT, AT + 30 * SECOND)
    assert not RULES.is_probe_due(half_open, AT, AT + 4 * SECOND)
    assert RULES.is_probe_due(half_open, AT, AT + 5 * SECOND)
    assert not BreakerRules(BreakerPolicy()).is_probe_due(CLOSED, None, AT)


def snapshot(state: BreakerState, *, trickle: bool = False) -> ControlSnapshot:
    """A control whose breaker is in a state; half open, it lets one pass in five seconds."""
    breaker = BreakerStatus(state=state, since=AT, reason="r", trickle=trickle)
    rate = SendRate(per_second=0.2 if trickle else 0)
    return ControlSnapshot(provider="acme", version=1, at=AT, breaker=breaker, rate=rate)


def test_the_turnstile() -> None:
    """Closed, everybody passes; open, nobody; half open, one in a while, if sends shall tell."""
    now = 0.0
    turnstile = HalfOpenLimiter(lambda: now)
    assert turnstile.admits(snapshot(BreakerState.CLOSED))
    assert not turnstile.admits(snapshot(BreakerState.OPEN))
    assert not turnstile.admits(snapshot(BreakerState.HALF_OPEN))
    trickling = snapshot(BreakerState.HALF_OPEN, trickle=True)
    assert turnstile.admits(trickling)
    assert not turnstile.admits(trickling)
    now = 4.9
    assert not turnstile.admits(trickling)
    now = 5.0
    assert turnstile.admits(trickling)
