"""What the breaker counts of workers' reports."""

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


def test_what_counts_for_the_breaker() -> None:
    """Refusals are answers; 429 and our own errors do not count; a silence is no failed send."""
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
    """Reports grow, and are read repeatedly: each failure is counted once."""
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


def test_an_evaluation_resumes_where_the_last_one_ended() -> None:
    """What was counted is not counted again, not even after the breaker has changed."""
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


def test_when_health_requests_are_due() -> None:
    """At once, then every 30 s, and every 5 s while the breaker is half open."""
    half_open = CLOSED.model_copy(update={"state": BreakerState.HALF_OPEN})
    assert RULES.is_probe_due(CLOSED, None, AT)
    assert not RULES.is_probe_due(CLOSED, AT, AT + 29 * SECOND)
    assert RULES.is_probe_due(CLOSED, AT, AT + 30 * SECOND)
    assert not RULES.is_probe_due(half_open, AT, AT + 4 * SECOND)
    assert RULES.is_probe_due(half_open, AT, AT + 5 * SECOND)
    assert not BreakerRules(BreakerPolicy()).is_probe_due(CLOSED, None, AT)
