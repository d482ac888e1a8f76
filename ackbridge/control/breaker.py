"""The breaker of a provider: when it opens, half-opens and closes. Pure; time is handed in.

closed ──failures──► open ──pause──► half open ──successes──► closed, on a ramp ──steps──► closed
                      ▲                  │ failure                  │ failures
                      └──────────────────┴──────────────────────────┘  the next pause is longer
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ackbridge.contracts.breaker import (
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    BreakerWindow,
)

FASTEST = 100_000.0
"""Sends per second that are no throttling of anything any more."""


@dataclass(frozen=True)
class BreakerTrip:
    """Why a breaker opens, and whether it is for responses that stayed away."""

    reason: str
    is_silence: bool = False


def weigh(breaker: BreakerStatus, tally: BreakerCounts, now: datetime) -> BreakerCounts:
    """What of a tally says something: silences of what was sent before it opened say nothing."""
    if breaker.silences_from is not None and now < breaker.silences_from:
        return tally.model_copy(update={"silent": 0})
    return tally


def advance(
    policy: BreakerPolicy | None,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
    *,
    limit: float | None = None,
    patience: timedelta = timedelta(0),
    has_health: bool = False,
    backlog: int = 0,
) -> BreakerStatus:
    """Where the breaker goes; the very same one when it stays.

    Args:
        policy: None: it moves only by force, and is closed otherwise.
        evidence: since its last change of state.
        limit: sends per second that the provider tolerates at all.
        patience: how long responses are awaited at the most.
        has_health: whether the provider has a health request.
        backlog: sends that wait in its queue. They shall not fall upon it when the ramp ends.
    """
    if breaker.forced_by is not None:
        return breaker
    if policy is None:
        return breaker if breaker.is_unrestricted else _closed(now, "it has no rules any more")
    if breaker.state is BreakerState.OPEN:
        return _after_pause(breaker, now, has_health)
    if breaker.state is BreakerState.HALF_OPEN:
        return _judged(policy, breaker, evidence, now, limit, patience)
    trouble = _trouble(policy, breaker, evidence)
    if trouble is not None:
        return _opened(policy, breaker, trouble, now, patience)
    return _climbed(policy, breaker, evidence, now, limit, backlog)


def allowed(
    policy: BreakerPolicy | None, breaker: BreakerStatus, limit: float | None
) -> float | None:
    """Sends per second, all workers together; None: as many as come."""
    if breaker.state is BreakerState.OPEN:
        return 0.0
    if breaker.state is BreakerState.HALF_OPEN:
        every = (policy or BreakerPolicy()).probe_every.total_seconds()
        return _within(1 / every, limit) if breaker.trickle else 0.0
    if breaker.step is None or policy is None:
        return limit
    return _within(policy.ramp.rate(breaker.step), limit)


def _after_pause(breaker: BreakerStatus, now: datetime, has_health: bool) -> BreakerStatus:
    if breaker.until is not None and now < breaker.until:
        return breaker
    trickle = breaker.for_silence or not has_health
    how = "single sends" if trickle else "its health request"
    return breaker.model_copy(
        update={
            "state": BreakerState.HALF_OPEN,
            "since": now,
            "until": None,
            "trickle": trickle,
            "reason": f"after a pause of {_span(now - breaker.since)}: {how} will tell",
        }
    )


def _judged(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
    limit: float | None,
    patience: timedelta,
) -> BreakerStatus:
    """Half open: one failure opens it again, so many successes close it."""
    seen = evidence.total
    for count, trouble in (
        (seen.unhealthy, BreakerTrip("half open, its health request failed")),
        (seen.failed, BreakerTrip("half open, a send failed")),
        (seen.silent, BreakerTrip("half open, a response did not come in time", is_silence=True)),
    ):
        if count:
            return _opened(policy, breaker, trouble, now, patience)
    good = seen.responded if breaker.for_silence else seen.answered + seen.healthy
    if good >= policy.probes:
        return _recovered(policy, breaker, f"{good} probes in a row succeeded", now, limit)
    if not breaker.trickle and seen.unclear >= policy.probes:
        reason = "its health request says nothing: single sends will tell"
        return breaker.model_copy(update={"trickle": True, "reason": reason})
    return breaker


def _trouble(
    policy: BreakerPolicy, breaker: BreakerStatus, evidence: BreakerWindow
) -> BreakerTrip | None:
    """Why it should open; on the ramp, as soon as there is a sign of it."""
    on_ramp = breaker.step is not None
    volume = min(policy.probes, policy.min_volume) if on_ramp else policy.min_volume
    streak = min(policy.probes, policy.consecutive) if on_ramp else policy.consecutive
    recent = evidence.recent
    for bad, good, row, what, is_silence in (
        (recent.failed, recent.answered, evidence.failed_streak, "sends failed", False),
        (recent.silent, recent.responded, evidence.silent_streak, "responses stayed away", True),
    ):
        every = bad + good
        if every >= volume and bad / every >= policy.error_rate:
            span = _span(policy.window)
            return BreakerTrip(f"{bad} of {every} {what} within {span}", is_silence)
        if row >= streak:
            return BreakerTrip(f"{row} {what} in a row", is_silence)
    return None


def _opened(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    trouble: BreakerTrip,
    now: datetime,
    patience: timedelta,
) -> BreakerStatus:
    openings = breaker.openings + 1
    pause = policy.pause(openings)
    return BreakerStatus(
        state=BreakerState.OPEN,
        since=now,
        until=now + pause,
        reason=f"{trouble.reason}; pause of {_span(pause)}",
        openings=openings,
        for_silence=trouble.is_silence,
        silences_from=now + patience,
    )


def _recovered(
    policy: BreakerPolicy, breaker: BreakerStatus, reason: str, now: datetime, limit: float | None
) -> BreakerStatus:
    if policy.ramp.steps == 0 or _reaches(policy.ramp.rate(0), limit):
        return _closed(now, reason)
    return BreakerStatus(
        since=now,
        reason=reason,
        until=now + policy.ramp.every,
        openings=breaker.openings,
        silences_from=breaker.silences_from,
        step=0,
    )


def _climbed(
    policy: BreakerPolicy,
    breaker: BreakerStatus,
    evidence: BreakerWindow,
    now: datetime,
    limit: float | None,
    backlog: int,
) -> BreakerStatus:
    """The next step of the ramp, when its time has come and nothing has failed lately."""
    if breaker.step is None or (breaker.until is not None and now < breaker.until):
        return breaker
    latest = sum(
        part.tally.failed + part.tally.silent
        for part in evidence.counted
        if now - part.at <= policy.ramp.every
    )
    if latest:
        return breaker
    step = breaker.step + 1
    rate = policy.ramp.rate(step)
    has_cleared = backlog <= rate or rate >= FASTEST
    if (step >= policy.ramp.steps and has_cleared) or _reaches(rate, limit):
        return breaker.model_copy(
            update={"step": None, "until": None, "openings": 0, "silences_from": None}
        )
    return breaker.model_copy(update={"step": step, "until": now + policy.ramp.every})


def _closed(now: datetime, reason: str) -> BreakerStatus:
    return BreakerStatus(since=now, reason=reason)


def _within(rate: float, limit: float | None) -> float:
    return rate if limit is None else min(rate, limit)


def _reaches(rate: float, limit: float | None) -> bool:
    return limit is not None and rate >= limit


def _span(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
