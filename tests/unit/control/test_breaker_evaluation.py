"""What the breaker counts of workers' reports."""

from __future__ import annotations

from collections.abc import Mapping
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
    BreakerEvaluation,
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


def evaluated(
    monitor: MonitorState,
    reports: Mapping[str, Mapping[str, BreakerCounts]],
    now: datetime,
    before: BreakerEvaluation | None = None,
    probe: Count | None = None,
) -> BreakerEvaluation:
    """An evaluation after another one."""
    breaker = before.breaker if before else CLOSED
    breakers = before.breakers if before else {}
    return evaluate(RULES, breaker, breakers, monitor, reports, probe, now)


def test_what_counts_for_the_breaker() -> None:
    """Calls, not attempts: neither 429, nor our own errors, nor the number of cycles."""
    counts = {what: 2**number for number, what in enumerate(Count)}
    assert breaker_counts(counts) == BreakerCounts(
        answered=counts[Count.CALLS_ANSWERED],
        failed=counts[Count.CALLS_FAILED],
        responded=counts[Count.CALLS_RESPONDED],
        silent=counts[Count.CALLS_SILENT],
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
            (AT + number * 10 * SECOND, "order", {Count.CALLS_FAILED: count})
            for number, count in enumerate(stands)
        ]
        found = counts_by_report(buckets).get("order", {})
        seen += new_counts(found, marks)
        marks = found
    assert seen.failed == sum(stands)


def test_reports_are_kept_apart_by_operation() -> None:
    """Those of all workers together; the provider's own have its health requests only."""
    buckets = [
        (AT, "order", {Count.CALLS_FAILED: 2}),
        (AT, "order", {Count.CALLS_FAILED: 3}),
        (AT, "quote", {Count.CALLS_ANSWERED: 1}),
        (AT, "", {Count.HEALTHY: 1}),
    ]
    assert counts_by_report(buckets) == {
        "order": {AT.isoformat(): BreakerCounts(failed=5)},
        "quote": {AT.isoformat(): BreakerCounts(answered=1)},
    }


def test_an_evaluation_resumes_where_the_last_one_ended() -> None:
    """What was counted is not counted again, not even after the breaker has changed."""
    buckets = [(AT, "order", {Count.CALLS_FAILED: 6}), (AT, "order", {Count.CALLS_FAILED: 4})]
    reports = counts_by_report(buckets)
    seen = evaluated(MonitorState(), reports, AT + SECOND)
    assert seen.breaker.state is BreakerState.OPEN
    assert seen.rate == SendRate(per_second=0)
    later = AT + 32 * SECOND
    again = evaluated(seen.monitor, reports, later, seen, Count.UNHEALTHY)
    assert again.breaker.state is BreakerState.HALF_OPEN
    assert again.monitor.probed_at == later
    once_more = evaluated(again.monitor, reports, later + SECOND, again)
    assert once_more.breaker is again.breaker
    assert once_more.breakers == {}


def test_an_idle_operation_is_forgotten() -> None:
    """The state of the monitor is bounded by what is in use."""
    reports = counts_by_report([(AT, "order", {Count.CALLS_ANSWERED: 1})])
    seen = evaluated(MonitorState(), reports, AT)
    assert seen.monitor.operations.keys() == {"order"}
    later = evaluated(seen.monitor, {}, AT + 16 * 60 * SECOND)
    assert later.monitor.operations == {}


def test_when_health_requests_are_due() -> None:
    """At once, then every 30 s, and every 5 s while the breaker is half open."""
    half_open = CLOSED.model_copy(update={"state": BreakerState.HALF_OPEN})
    assert RULES.is_probe_due(CLOSED, None, AT)
    assert not RULES.is_probe_due(CLOSED, AT, AT + 29 * SECOND)
    assert RULES.is_probe_due(CLOSED, AT, AT + 30 * SECOND)
    assert not RULES.is_probe_due(half_open, AT, AT + 4 * SECOND)
    assert RULES.is_probe_due(half_open, AT, AT + 5 * SECOND)
    assert RULES.is_probe_due(half_open, AT - SECOND, AT), "the first one at once"
    assert not BreakerRules(BreakerPolicy()).is_probe_due(CLOSED, None, AT)
