"""The breaker of a provider: from the counts that workers report to its next status. No I/O.

closed ──failures──► open ──pause──► half open ──successes──► closed, on a ramp ──steps──► closed
                      ▲                  │ failure                  │ failures
                      └──────────────────┴──────────────────────────┘  the next pause is longer
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    BreakerWindow,
    MonitorState,
    SendRate,
)
from ackbridge.stats.counters import FINE, Count

REPORT_LOOKBACK: Final = 4 * FINE.width
"""Reports older than this no longer change: a worker that reports even later is not counted."""

MAX_RATE: Final = 100_000.0
"""Sends per second; a ramp that has reached it no longer limits anything."""


@dataclass(frozen=True)
class BreakerRules:
    """What an integration file and operators configure about a provider's breaker and rate."""

    policy: BreakerPolicy | None  # None: the breaker changes only by force, and is closed otherwise
    limit: float | None = None  # sends per second that the provider accepts; None: any number
    per_tenant: float | None = None
    # The interval of health requests while the breaker is closed or open; None: the provider has no
    # health request.
    health_every: timedelta | None = None
    longest_deadline: timedelta = timedelta(0)  # the longest time that any response is awaited

    def is_probe_due(
        self, breaker: BreakerStatus, probed_at: datetime | None, now: datetime
    ) -> bool:
        if self.health_every is None:
            return False
        if probed_at is None:
            return True
        every = self.health_every
        if breaker.state is BreakerState.HALF_OPEN and self.policy is not None:
            every = min(every, self.policy.probe_every)
        return now - probed_at >= every


@dataclass(frozen=True)
class BreakerEvaluation:
    breaker: BreakerStatus
    rate: SendRate
    monitor: MonitorState


def evaluate(
    rules: BreakerRules,
    breaker: BreakerStatus,
    monitor: MonitorState,
    reports: Mapping[str, BreakerCounts],
    probe: Count | None,
    now: datetime,
    backlog: int = 0,
) -> BreakerEvaluation:
    """Count what is new in the reports, and decide the breaker's status and the send rate.

    `reports` are from `counts_by_report`; `backlog` are sends that wait in the provider's queue.
    """
    window = (rules.policy or BreakerPolicy()).window
    counts = new_counts(reports, monitor.marks) + probe_counts(probe)
    counts = without_stale_silences(breaker, counts, now)
    evidence = monitor.evidence.with_counts(counts, now, window)
    after = next_status(rules, breaker, evidence, now, backlog=backlog)
    has_changed = after.state is not breaker.state
    per_second = send_rate(rules.policy, after, rules.limit)
    return BreakerEvaluation(
        breaker=after,
        rate=SendRate(per_second=per_second, per_tenant=rules.per_tenant),
        monitor=MonitorState(
            evidence=BreakerWindow() if has_changed else evidence,
            marks=dict(reports),
            probed_at=monitor.probed_at if probe is None else now,
        ),
    )


def breaker_counts(counts: Mapping[Count, int]) -> BreakerCounts:
    """The statistics that count for the breaker.

    A refusal is an answer; a throttled send is neither an answer nor a failure. Health requests are
    left out, because `evaluate` gets their result before it is reported.
    """
    return BreakerCounts(
        answered=counts.get(Count.RECEIPTS, 0) + counts.get(Count.REFUSED, 0),
        failed=counts.get(Count.UNANSWERED, 0),
        responded=counts.get(Count.ANSWERS, 0) + counts.get(Count.FAILURES, 0),
        silent=counts.get(Count.SILENCES, 0),
    )


def probe_counts(result: Count | None) -> BreakerCounts:
    return BreakerCounts(
        healthy=int(result is Count.HEALTHY),
        unhealthy=int(result is Count.UNHEALTHY),
        unclear=int(result is Count.UNCLEAR),
    )


def counts_by_report(
    buckets: Iterable[tuple[datetime, Mapping[Count, int]]],
) -> dict[str, BreakerCounts]:
    """The reports of all workers and operations, by the start of their bucket (ISO 8601)."""
    reports: dict[str, BreakerCounts] = {}
    for begin, counts in buckets:
        name = begin.isoformat()
        reports[name] = reports.get(name, NO_COUNTS) + breaker_counts(counts)
    return reports


def new_counts(
    reports: Mapping[str, BreakerCounts], marks: Mapping[str, BreakerCounts]
) -> BreakerCounts:
    """What was reported since the marks were made."""
    return sum((counts - marks.get(name, NO_COUNTS) for name, counts in reports.items()), NO_COUNTS)


def without_stale_silences(
    breaker: BreakerStatus, counts: BreakerCounts, now: datetime
) -> BreakerCounts:
    """Counts without the silences that may be of requests sent before the breaker opened."""
    if breaker.silences_from is not None and now < breaker.silences_from:
        return counts.model_copy(update={"silent": 0})
    return counts


def next_status(
    rules: BreakerRules,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
    *,
    backlog: int = 0,
) -> BreakerStatus:
    """The next status of the breaker; the same object if it does not change.

    Args:
        backlog: sends that are waiting in the provider's queue; the ramp lasts until one second
            takes them all, so that they are not sent in one burst.
    """
    if breaker.forced_by is not None:
        return breaker
    if rules.policy is None:
        reason = "the integration file has no breaker any more"
        return breaker if breaker.is_unrestricted else BreakerStatus(since=now, reason=reason)
    if breaker.state is BreakerState.OPEN:
        return _after_pause(breaker, now, has_health=rules.health_every is not None)
    if breaker.state is BreakerState.HALF_OPEN:
        return _after_probes(rules, rules.policy, breaker, evidence, now)
    trip = _trip_reason(rules.policy, breaker, evidence)
    if trip is not None:
        return _opened(rules, rules.policy, breaker, trip, now)
    return _next_ramp_step(rules, rules.policy, breaker, evidence, now, backlog)


def send_rate(
    policy: BreakerPolicy | None, breaker: BreakerStatus, limit: float | None
) -> float | None:
    """Sends per second, all workers together; None: unlimited."""
    if breaker.state is BreakerState.OPEN:
        return 0.0
    if breaker.state is BreakerState.HALF_OPEN:
        every = (policy or BreakerPolicy()).probe_every.total_seconds()
        return _limited(1 / every, limit) if breaker.trickle else 0.0
    if breaker.step is None or policy is None:
        return limit
    return _limited(policy.ramp.rate(breaker.step), limit)


@dataclass(frozen=True)
class _Trip:
    """Why a breaker opens; `is_silence`: because responses are missing."""

    reason: str
    is_silence: bool = False


def _after_pause(breaker: BreakerStatus, now: datetime, *, has_health: bool) -> BreakerStatus:
    if breaker.until is not None and now < breaker.until:
        return breaker
    trickle = breaker.for_silence or not has_health
    probes = "single sends" if trickle else "health requests"
    return breaker.model_copy(
        update={
            "state": BreakerState.HALF_OPEN,
            "since": now,
            "until": None,
            "trickle": trickle,
            "reason": f"probing with {probes} after a pause of {_seconds(now - breaker.since)}",
        }
    )


def _after_probes(
    rules: BreakerRules,
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
) -> BreakerStatus:
    counts = evidence.total
    for failures, trip in (
        (counts.unhealthy, _Trip("half open, the health request failed")),
        (counts.failed, _Trip("half open, a send failed")),
        (counts.silent, _Trip("half open, a response did not arrive in time", is_silence=True)),
    ):
        if failures:
            return _opened(rules, policy, breaker, trip, now)
    successes = counts.responded if breaker.for_silence else counts.answered + counts.healthy
    if successes >= policy.probes:
        return _recovered(rules, policy, breaker, f"{successes} probes in a row succeeded", now)
    if not breaker.trickle and counts.unclear >= policy.probes:
        reason = "probing with single sends: the health request gives no clear result"
        return breaker.model_copy(update={"trickle": True, "reason": reason})
    return breaker


def _trip_reason(
    policy: BreakerPolicy, breaker: BreakerStatus, evidence: BreakerWindow
) -> _Trip | None:
    """Why the breaker should open; on the ramp the thresholds are lower."""
    on_ramp = breaker.step is not None
    min_volume = min(policy.probes, policy.min_volume) if on_ramp else policy.min_volume
    max_streak = min(policy.probes, policy.consecutive) if on_ramp else policy.consecutive
    recent = evidence.recent
    for failures, successes, streak, what, is_silence in (
        (recent.failed, recent.answered, evidence.failed_streak, "sends failed", False),
        (recent.silent, recent.responded, evidence.silent_streak, "calls timed out", True),
    ):
        total = failures + successes
        if total >= min_volume and failures / total >= policy.error_rate:
            within = _seconds(policy.window)
            return _Trip(f"{failures} of {total} {what} within {within}", is_silence)
        if streak >= max_streak:
            return _Trip(f"{streak} {what} in a row", is_silence)
    return None


def _opened(
    rules: BreakerRules, policy: BreakerPolicy, breaker: BreakerStatus, trip: _Trip, now: datetime
) -> BreakerStatus:
    openings = breaker.openings + 1
    pause = policy.pause(openings)
    return BreakerStatus(
        state=BreakerState.OPEN,
        since=now,
        until=now + pause,
        reason=f"{trip.reason}; pause of {_seconds(pause)}",
        openings=openings,
        for_silence=trip.is_silence,
        silences_from=now + rules.longest_deadline,
        # The failures for which it opens are part of the outage.
        opened_at=breaker.opened_at or now - policy.window,
    )


def _recovered(
    rules: BreakerRules, policy: BreakerPolicy, breaker: BreakerStatus, reason: str, now: datetime
) -> BreakerStatus:
    if policy.ramp.steps == 0 or _reaches(policy.ramp.rate(0), rules.limit):
        return BreakerStatus(since=now, reason=reason)
    return BreakerStatus(
        since=now,
        reason=reason,
        opened_at=breaker.opened_at,
        until=now + policy.ramp.every,
        openings=breaker.openings,
        silences_from=breaker.silences_from,
        step=0,
    )


def _next_ramp_step(
    rules: BreakerRules,
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
    backlog: int,
) -> BreakerStatus:
    """The next step once this one is over, and nothing has failed for the length of a step."""
    if breaker.step is None or (breaker.until is not None and now < breaker.until):
        return breaker
    recent_failures = sum(
        bucket.tally.failed + bucket.tally.silent
        for bucket in evidence.counted
        if now - bucket.at <= policy.ramp.every
    )
    if recent_failures:
        return breaker
    step = breaker.step + 1
    rate = policy.ramp.rate(step)
    is_queue_clear = backlog <= rate or rate >= MAX_RATE
    if (step >= policy.ramp.steps and is_queue_clear) or _reaches(rate, rules.limit):
        return breaker.model_copy(
            update={
                "step": None,
                "until": None,
                "openings": 0,
                "opened_at": None,
                "silences_from": None,
            }
        )
    return breaker.model_copy(update={"step": step, "until": now + policy.ramp.every})


def _limited(rate: float, limit: float | None) -> float:
    return rate if limit is None else min(rate, limit)


def _reaches(rate: float, limit: float | None) -> bool:
    return limit is not None and rate >= limit


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
