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
from ackbridge.stats.counters import FINE, Count, Counters

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
        heard=counts[Count.CALLS_HEARD],
        failed_overtaken=counts[Count.CALLS_FAILED_OVERTAKEN],
        silent_overtaken=counts[Count.CALLS_SILENT_OVERTAKEN],
    )


class Burst:
    """A worker whose calls are all sent within a second, and then no more; some are silent."""

    DEADLINE = 30 * SECOND

    def __init__(self, calls: int, silent_every: int) -> None:
        self._counters, self._now = Counters(), AT
        self._buckets: dict[datetime, Mapping[Count, int]] = {}
        self._monitor = MonitorState()
        self._last: BreakerEvaluation | None = None
        sent = {AT + SECOND * number / calls: number % silent_every for number in range(calls)}
        for sent_at, is_answered in sent.items():
            if is_answered:
                self._responded(sent_at)
        self.states = [self._next() for _ in range(16)]
        for sent_at, is_answered in sent.items():
            if not is_answered:
                self._silent(sent_at)
        self.states += [self._next() for _ in range(20)]

    def _responded(self, sent_at: datetime) -> None:
        self._counters.count("acme", "order", Count.CALLS_RESPONDED)
        self._counters.order.answered("acme", "order", Count.CALLS_RESPONDED, sent_at)
        due = sent_at + self.DEADLINE
        self._counters.count_at("acme", "order", Count.CALLS_HEARD, due)

    def _silent(self, sent_at: datetime) -> None:
        self._counters.count("acme", "order", Count.CALLS_SILENT)
        if self._counters.order.is_overtaken("acme", "order", Count.CALLS_RESPONDED, sent_at):
            self._counters.count("acme", "order", Count.CALLS_SILENT_OVERTAKEN)

    def _next(self) -> BreakerState:
        """Report and evaluate, two seconds later."""
        self._now += 2 * SECOND
        fine = (one for one in self._counters.gather(self._now) if one.width == FINE.width)
        self._buckets |= {one.begin: dict(one.stats.counts) for one in fine}
        begun = self._now - 40 * SECOND
        found = [(at, "order", one) for at, one in self._buckets.items() if at >= begun]
        reports = counts_by_report(found)
        self._last = evaluated(self._monitor, reports, self._now, self._last)
        self._monitor = self._last.monitor
        return self._last.breaker.state


def test_silences_of_a_burst_are_compared_with_its_answers() -> None:
    """They come at the deadline, when all the others were answered long ago."""
    for calls in (100, 1000):
        assert set(Burst(calls, silent_every=8).states) == {BreakerState.CLOSED}
    assert BreakerState.OPEN in Burst(100, silent_every=1).states, "all of them are silent"


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
