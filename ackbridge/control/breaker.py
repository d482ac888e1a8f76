"""The breakers of a provider: from the counts that workers report to their next status. No I/O.

closed ──failures──► open ──pause──► half open ──successes──► closed, on a ramp ──steps──► closed
                      ▲                  │ failures                 │ failures
                      └──────────────────┴──────────────────────────┘  the next pause is longer

Each operation has its own breaker. The provider's opens when most of its operations fail, and is
the only one that changes the rate of the send queue.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
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
    OperationMonitor,
    SendRate,
)
from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.stats.counters import FINE, Count

REPORT_LOOKBACK: Final = 4 * FINE.width
"""Reports older than this no longer change: a worker that reports even later is not counted."""

MAX_RATE: Final = 100_000.0
"""Sends per second; a ramp that has reached it no longer limits anything."""

IN_USE_FOR: Final = timedelta(minutes=15)
"""An operation without any outcome for longer says nothing about the provider as a whole."""

NEWS_WITHIN: Final = timedelta(seconds=10)
"""Until every worker has read a new status, and has reported what it counted by the old one."""

MARGIN: Final = 1.5
"""Standard deviations by which failures exceed `error_rate`, so that it is not by chance."""


@dataclass(frozen=True)
class BreakerRules:
    """What an integration file and operators configure about a provider's breakers and rate."""

    policy: BreakerPolicy | None  # None: breakers change only by force, and are closed otherwise
    limit: float | None = None  # sends per second that the provider accepts; None: any number
    per_tenant: float | None = None
    # The interval of health requests while the breaker is closed or open; None: the provider has no
    # health request.
    health_every: timedelta | None = None

    def is_probe_due(
        self, breaker: BreakerStatus, probed_at: datetime | None, now: datetime
    ) -> bool:
        if self.health_every is None:
            return False
        if probed_at is None:
            return True
        every = self.health_every
        if breaker.state is BreakerState.HALF_OPEN and self.policy is not None:
            is_first = probed_at < breaker.since
            every = timedelta(0) if is_first else min(every, self.policy.probe_every)
        return now - probed_at >= every


@dataclass(frozen=True)
class BreakerEvaluation:
    """What follows from the reports.

    Attributes:
        breakers: by operation, those that have changed.
        to_extend: operations whose deadline is to be extended, by whether up to its ceiling.
    """

    breaker: BreakerStatus
    rate: SendRate
    monitor: MonitorState
    breakers: Mapping[str, BreakerStatus]
    to_extend: Mapping[str, bool]


def evaluate(
    rules: BreakerRules,
    breaker: BreakerStatus,
    breakers: Mapping[str, BreakerStatus],
    monitor: MonitorState,
    reports: Mapping[str, Mapping[str, BreakerCounts]],
    probe: Count | None,
    now: datetime,
    *,
    backlog: int = 0,
    extendable: Collection[str] = (),
) -> BreakerEvaluation:
    """Count what is new in the reports, and decide the status of every breaker and the send rate.

    Args:
        breaker: of the provider.
        breakers: by operation.
        reports: by operation, from `counts_by_report`.
        backlog: sends that wait in the provider's queue.
        extendable: operations whose deadline was learned and can be extended.
    """
    policy = rules.policy or BreakerPolicy()
    operations = {
        name: _evaluate_operation(
            rules,
            breakers.get(name) or BreakerStatus.initial(now),
            monitor.operations.get(name) or OperationMonitor(),
            reports.get(name, {}),
            now,
            can_extend=name in extendable,
        )
        for name in sorted(reports.keys() | breakers.keys() | monitor.operations.keys())
    }
    counted = BreakerCounts.total(
        [probe_counts(probe), *(one.counts for one in operations.values())]
    )
    evidence = monitor.evidence.with_counts(counted, now, policy.window)
    after = _next_of_provider(rules, breaker, evidence, operations, now, backlog)
    has_changed = after.state is not breaker.state
    return BreakerEvaluation(
        breaker=after,
        rate=SendRate(
            per_second=send_rate(rules.policy, after, rules.limit), per_tenant=rules.per_tenant
        ),
        monitor=MonitorState(
            evidence=BreakerWindow() if has_changed else evidence,
            operations={name: one.monitor for name, one in operations.items() if one.is_in_use},
            probed_at=monitor.probed_at if probe is None else now,
        ),
        breakers={name: one.after for name, one in operations.items() if one.has_changed},
        to_extend={
            name: one.after.state is not one.before.state
            for name, one in operations.items()
            if one.extends
        },
    )


# Counting


def breaker_counts(counts: Mapping[Count, int]) -> BreakerCounts:
    """The statistics that count for a breaker: the outcomes of calls, not of attempts."""
    return BreakerCounts(
        answered=counts.get(Count.CALLS_ANSWERED, 0),
        failed=counts.get(Count.CALLS_FAILED, 0),
        responded=counts.get(Count.CALLS_RESPONDED, 0),
        silent=counts.get(Count.CALLS_SILENT, 0),
        heard=counts.get(Count.CALLS_HEARD, 0),
        failed_overtaken=counts.get(Count.CALLS_FAILED_OVERTAKEN, 0),
        silent_overtaken=counts.get(Count.CALLS_SILENT_OVERTAKEN, 0),
    )


def probe_counts(result: Count | None) -> BreakerCounts:
    return BreakerCounts(
        healthy=int(result is Count.HEALTHY),
        unhealthy=int(result is Count.UNHEALTHY),
        unclear=int(result is Count.UNCLEAR),
    )


def counts_by_report(
    buckets: Iterable[tuple[datetime, str, Mapping[Count, int]]],
) -> dict[str, dict[str, BreakerCounts]]:
    """The reports of all workers: by operation, then by the start of their bucket (ISO 8601)."""
    reports: dict[str, dict[str, BreakerCounts]] = {}
    for begin, operation, counts in buckets:
        if operation == WHOLE_PROVIDER:
            continue
        of_operation = reports.setdefault(operation, {})
        name = begin.isoformat()
        of_operation[name] = of_operation.get(name, NO_COUNTS) + breaker_counts(counts)
    return reports


def new_counts(
    reports: Mapping[str, BreakerCounts], marks: Mapping[str, BreakerCounts]
) -> BreakerCounts:
    """What was reported since the marks were made."""
    return BreakerCounts.total(
        counts - marks.get(name, NO_COUNTS) for name, counts in reports.items()
    )


# The breaker of an operation


@dataclass(frozen=True)
class _Trip:
    """Why a breaker opens; `is_silence`: because responses are missing."""

    reason: str
    is_silence: bool = False


@dataclass(frozen=True)
class _Evaluated:
    """An operation: its breaker before and after, and what was counted.

    Attributes:
        trip: why it opens now.
        extends: its deadline is to be extended.
    """

    before: BreakerStatus
    after: BreakerStatus
    counts: BreakerCounts
    monitor: OperationMonitor
    is_in_use: bool
    trip: _Trip | None = None
    extends: bool = False

    @property
    def has_changed(self) -> bool:
        return self.after is not self.before

    @property
    def is_failing(self) -> bool:
        """Whether its breaker is not closed, and no operator has forced it."""
        return self.after.state is not BreakerState.CLOSED and self.after.forced_by is None


def _evaluate_operation(
    rules: BreakerRules,
    before: BreakerStatus,
    monitor: OperationMonitor,
    reports: Mapping[str, BreakerCounts],
    now: datetime,
    *,
    can_extend: bool,
) -> _Evaluated:
    counts = new_counts(reports, monitor.marks)
    if before.judged_from is not None and now < before.judged_from + NEWS_WITHIN:
        counts = counts.model_copy(update={"silent": 0})
    window = (rules.policy or BreakerPolicy()).window
    evidence = monitor.evidence.with_counts(counts, now, window)
    after, trip = next_status(rules.policy, before, evidence, counts, now)
    extends = trip is not None and trip.is_silence and can_extend and _is_closed(before)
    if extends and trip is not None:
        reason = f"{trip.reason}: slower, or silent? its calls wait longer until that is known"
        # If it is silent, the outage has begun with these calls.
        began = before.opened_at or now - window
        changed = {"judged_from": now, "reason": reason, "opened_at": began}
        after, trip = before.model_copy(update=changed), None
    has_recovered = _is_closed(after) and not _is_closed(before) and before.forced_by is None
    is_reset = after.state is not before.state or extends
    used_at = now if counts.has_news else monitor.used_at
    is_recent = used_at is not None and now - used_at <= IN_USE_FOR
    return _Evaluated(
        before=before,
        after=after,
        counts=counts,
        monitor=OperationMonitor(
            evidence=BreakerWindow() if is_reset else evidence,
            marks=dict(reports),
            used_at=used_at,
        ),
        is_in_use=is_recent or bool(reports),
        trip=trip,
        extends=extends or (has_recovered and before.for_silence),
    )


def next_status(
    policy: BreakerPolicy | None,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    new: BreakerCounts,
    now: datetime,
) -> tuple[BreakerStatus, _Trip | None]:
    """The next status of an operation's breaker, the same object if it does not change.

    Args:
        new: what has been added to the evidence just now.

    Returns:
        Also why it opens, if it does.
    """
    if breaker.forced_by is not None:
        return breaker, None
    if policy is None:
        return _without_policy(breaker, now), None
    if breaker.state is BreakerState.OPEN:
        return _after_pause(policy, breaker, now, has_health=False), None
    if breaker.state is BreakerState.CLOSED:
        trip = _trip_reason(policy, breaker, evidence, new)
        if trip is None:
            return _after_probation(policy, breaker, evidence.total, now), None
        return _opened(policy, breaker, trip, now), trip
    trip = _failed_probes(policy, evidence.total)
    if trip is not None:
        return _opened(policy, breaker, trip, now), trip
    after = _after_successes(policy, breaker, evidence.total, None, now)
    if after.step is not None:
        after = after.model_copy(update={"until": now + policy.ramp.every * policy.ramp.steps})
    return after, None


def _without_policy(breaker: BreakerStatus, now: datetime) -> BreakerStatus:
    reason = "the integration file has no breaker any more"
    return breaker if breaker.is_unrestricted else BreakerStatus(since=now, reason=reason)


def _after_pause(
    policy: BreakerPolicy, breaker: BreakerStatus, now: datetime, *, has_health: bool
) -> BreakerStatus:
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
            "probe_every": policy.probe_every,
            "reason": f"probing with {probes} after a pause of {_seconds(now - breaker.since)}",
        }
    )


def _failed_probes(policy: BreakerPolicy, counts: BreakerCounts) -> _Trip | None:
    """As many failures as successes would have closed it."""
    if counts.failed >= policy.probes:
        return _Trip(f"half open, failed calls: {counts.failed}")
    if counts.silent >= policy.probes:
        return _Trip(
            f"half open, calls without a response: {counts.silent}",
            is_silence=True,
        )
    return None


def _after_successes(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    counts: BreakerCounts,
    limit: float | None,
    now: datetime,
) -> BreakerStatus:
    successes = counts.responded if breaker.for_silence else counts.answered + counts.healthy
    if successes < policy.probes:
        return breaker
    reason = f"{successes} probes succeeded"
    if policy.ramp.steps == 0 or _reaches(policy.ramp.rate(0), limit):
        return BreakerStatus(since=now, reason=reason, judged_from=now)
    return BreakerStatus(
        since=now,
        reason=reason,
        until=now + policy.ramp.every,
        opened_at=breaker.opened_at,
        judged_from=now,
        step=0,
    )


def _trip_reason(
    policy: BreakerPolicy, breaker: BreakerStatus, evidence: BreakerWindow, new: BreakerCounts
) -> _Trip | None:
    """Why the breaker should open; after a recovery the thresholds are lower.

    Calls that fail open it, and not answers that leave the window before failures of their time.
    """
    on_ramp = breaker.step is not None
    min_volume = min(policy.probes, policy.min_volume) if on_ramp else policy.min_volume
    max_streak = min(policy.probes, policy.consecutive) if on_ramp else policy.consecutive
    recent = evidence.recent
    # Those that were sent at the time of the silent ones, or as many as are answered now.
    heard = max(recent.heard, recent.responded)
    for is_news, failures, successes, streak, what, is_silence in (
        (new.failed, recent.failed, recent.answered, evidence.failed_streak, "calls failed", False),
        (new.silent, recent.silent, heard, evidence.silent_streak, "calls timed out", True),
    ):
        if not is_news:
            continue
        total = failures + successes
        if total >= min_volume and _exceeds(failures, total, policy.error_rate):
            within = _seconds(policy.window)
            return _Trip(f"{failures} of {total} {what} within {within}", is_silence)
        if streak >= max_streak:
            return _Trip(f"{streak} {what} in a row", is_silence)
    return None


def _exceeds(failures: int, total: int, rate: float) -> bool:
    """Whether the share of failures is above the rate, and not only by chance."""
    margin = MARGIN * math.sqrt(total * rate * (1 - rate))
    return failures >= min(total, total * rate + margin)


def _opened(
    policy: BreakerPolicy, breaker: BreakerStatus, trip: _Trip, now: datetime
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
        # The failures for which it opens are part of the outage.
        opened_at=breaker.opened_at or now - policy.window,
        judged_from=now,
    )


def _after_probation(
    policy: BreakerPolicy, breaker: BreakerStatus, counts: BreakerCounts, now: datetime
) -> BreakerStatus:
    """Forget the outage once the operation has been well for some time, or was only slower."""
    is_suspected = breaker.step is None and breaker.opened_at is not None
    if is_suspected and counts.responded >= policy.probes and counts.responded > counts.silent:
        return breaker.model_copy(update={"opened_at": None})
    if breaker.step is None or (breaker.until is not None and now < breaker.until):
        return breaker
    return breaker.model_copy(update=_RECOVERED)


_RECOVERED: Final = {"step": None, "until": None, "opened_at": None}


# The breaker of the provider


def _next_of_provider(
    rules: BreakerRules,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    operations: Mapping[str, _Evaluated],
    now: datetime,
    backlog: int,
) -> BreakerStatus:
    policy = rules.policy
    if breaker.forced_by is not None:
        return breaker
    if policy is None:
        return _without_policy(breaker, now)
    if breaker.state is BreakerState.OPEN:
        return _after_pause(policy, breaker, now, has_health=rules.health_every is not None)
    trip = _trip_of_provider(operations)
    if trip is not None:
        return _opened(policy, breaker, trip, now)
    if breaker.state is BreakerState.HALF_OPEN:
        return _after_probes(policy, breaker, evidence.total, rules.limit, now)
    return _next_ramp_step(policy, breaker, evidence, rules.limit, now, backlog)


def _trip_of_provider(operations: Mapping[str, _Evaluated]) -> _Trip | None:
    """An operation's breaker opens now, and those of most operations in use are not closed."""
    in_use = [one for one in operations.values() if one.is_in_use]
    failing = [one for one in in_use if one.is_failing]
    tripped = [(name, one.trip) for name, one in operations.items() if one.trip is not None]
    if not tripped or 2 * len(failing) <= len(in_use):
        return None
    name, trip = tripped[0]
    is_silence = all(one.after.for_silence for one in failing)
    if len(in_use) == 1:
        return _Trip(trip.reason, is_silence)
    reason = f"{len(failing)} of {len(in_use)} operations fail; {name}: {trip.reason}"
    return _Trip(reason, is_silence)


def _after_probes(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    counts: BreakerCounts,
    limit: float | None,
    now: datetime,
) -> BreakerStatus:
    trip = _failed_probes(policy, counts)
    if trip is not None:
        return _opened(policy, breaker, trip, now)
    after = _after_successes(policy, breaker, counts, limit, now)
    if after is not breaker or breaker.trickle:
        return after
    # A health request that fails costs nothing: the next one follows after the interval.
    if counts.healthy:
        reason = "probing with single sends too: the health request succeeds"
    elif counts.unclear:
        reason = "probing with single sends: the health request gives no clear result"
    elif counts.unhealthy and now - breaker.since >= policy.pause(breaker.openings):
        # The health page may be all that is broken by now.
        reason = "probing with single sends too: the health request still fails"
    else:
        return breaker
    return breaker.model_copy(update={"trickle": True, "reason": reason})


def _next_ramp_step(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    limit: float | None,
    now: datetime,
    backlog: int,
) -> BreakerStatus:
    """The next step once this one is over, and most calls of its length were answered.

    The ramp lasts until one second takes all sends that wait, so that they are no burst.
    """
    if breaker.step is None or (breaker.until is not None and now < breaker.until):
        return breaker
    counts = BreakerCounts.total(
        one.tally for one in evidence.counted if now - one.at <= policy.ramp.every
    )
    failures = max(counts.failed, counts.silent)
    if failures and failures >= policy.error_rate * (failures + counts.answered):
        return breaker
    step = breaker.step + 1
    rate = policy.ramp.rate(step)
    is_queue_clear = backlog <= rate or rate >= MAX_RATE
    if (step >= policy.ramp.steps and is_queue_clear) or _reaches(rate, limit):
        return breaker.model_copy(update=_RECOVERED)
    return breaker.model_copy(update={"step": step, "until": now + policy.ramp.every})


def send_rate(
    policy: BreakerPolicy | None, breaker: BreakerStatus, limit: float | None
) -> float | None:
    """Sends per second by the provider's breaker, all workers together; None: unlimited."""
    if breaker.state is BreakerState.OPEN:
        return 0.0
    if breaker.state is BreakerState.HALF_OPEN:
        every = (policy or BreakerPolicy()).probe_every.total_seconds()
        return _limited(1 / every, limit) if breaker.trickle else 0.0
    if breaker.step is None or policy is None:
        return limit
    return _limited(policy.ramp.rate(breaker.step), limit)


def _is_closed(breaker: BreakerStatus) -> bool:
    return breaker.state is BreakerState.CLOSED


def _limited(rate: float, limit: float | None) -> float:
    return rate if limit is None else min(rate, limit)


def _reaches(rate: float, limit: float | None) -> bool:
    return limit is not None and rate >= limit


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
