"""The circuit breaker of a provider: its policy, its status, and the send rate that follows."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, ConfigDict, Field

from .limits import Actor, Name, Reason
from .wire import Duration, StrictModel, Wire

WINDOW_BUCKETS: Final = 20
"""Parts of a breaker's window; the oldest is dropped when it leaves the window."""

_FROM_FILES = ConfigDict(use_attribute_docstrings=True)
_Positive = Annotated[Duration, Field(gt=timedelta(0))]


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerStatus(Wire):
    """The state of a provider's breaker, with everything the next decision needs.

    Attributes:
        since: when it entered this state.
        reason: one line for operators.
        forced_by: the operator who forced this state; it does not change until it is released.
        until: the earliest time of the next change: the end of the pause, or of a ramp step.
        openings: consecutive openings; each pause is longer than the one before.
        trickle: half open, single sends probe the provider, not its health request.
        for_silence: it opened because responses were missing, and only responses close it.
        opened_at: when the outage began whose recovery is not over; None: it is.
        silences_from: silences before this time may be of requests sent before it opened.
        step: closed, the current step of the ramp after a recovery; None: no ramp.
    """

    state: BreakerState = BreakerState.CLOSED
    since: AwareDatetime
    reason: str
    forced_by: str | None = None
    until: AwareDatetime | None = None
    openings: int = 0
    trickle: bool = False
    for_silence: bool = False
    opened_at: AwareDatetime | None = None
    silences_from: AwareDatetime | None = None
    step: int | None = None

    @property
    def is_unrestricted(self) -> bool:
        """Whether it is closed, and not on a ramp."""
        return self.state is BreakerState.CLOSED and self.step is None

    @classmethod
    def initial(cls, now: datetime) -> Self:
        """The breaker of a provider without statistics."""
        return cls(since=now, reason="no statistics yet")

    def forced(self, state: BreakerState, by: str, reason: str, now: datetime) -> BreakerStatus:
        """In the state an operator requests, until it is released."""
        return BreakerStatus(
            state=state,
            since=now,
            reason=reason,
            forced_by=by,
            openings=self.openings,
            trickle=state is BreakerState.HALF_OPEN,
            opened_at=None if state is BreakerState.CLOSED else self.opened_at or now,
        )

    def released(self, reason: str, now: datetime) -> BreakerStatus:
        """No longer forced. If it was not closed, its pause ends now and the provider is probed."""
        if self.state is BreakerState.CLOSED:
            return BreakerStatus(since=now, reason=reason)
        expired = {"state": BreakerState.OPEN, "since": now, "until": now, "trickle": False}
        return self.model_copy(update={**expired, "reason": reason, "forced_by": None})


class ForceBreaker(StrictModel):
    """The update (and the signal) `force_breaker`.

    Attributes:
        state: the state to force; None releases the breaker to automatic control.
        operation: whose breaker; None: the provider's.
    """

    state: BreakerState | None
    operation: Name | None = None
    by: Actor
    reason: Reason


class SendRamp(StrictModel):
    """How the send rate rises after a recovery."""

    model_config = _FROM_FILES

    start: float = Field(default=1, gt=0)
    """Sends per second in the first step, all workers together."""
    factor: float = Field(default=2, gt=1)
    """By how much each step multiplies the rate."""
    every: _Positive = timedelta(seconds=10)
    """Minimum duration of a step; a step with failures lasts until there are none."""
    steps: int = Field(default=6, ge=0, le=60)
    """Number of steps. The ramp goes on while more sends are queued than one second takes, and
    ends early at `limits.requests_per_second`. 0: no ramp."""

    def rate(self, step: int) -> float:
        """Sends per second in a step, from 0."""
        return float(self.start * self.factor**step)


class BreakerPolicy(StrictModel):
    """When the breaker of a provider opens, and how it recovers."""

    model_config = _FROM_FILES

    window: _Positive = timedelta(seconds=30)
    """Time span over which the error rate is computed."""
    error_rate: float = Field(default=0.5, gt=0, le=1)
    """Share of failures at which the breaker opens: requests without an answer or answered 5xx,
    or calls whose response did not arrive in time."""
    min_volume: int = Field(default=20, ge=1)
    """Minimum number of requests, or calls, for which the error rate is evaluated."""
    consecutive: int = Field(default=10, ge=1)
    """Consecutive failures that open the breaker at any volume. Keep it above the attempts of one
    call, so that no single call can open the breaker."""
    open_for: _Positive = timedelta(seconds=30)
    """Duration of the first pause; it doubles with every consecutive opening."""
    open_at_most: _Positive = timedelta(minutes=10)
    """Maximum duration of a pause."""
    probes: int = Field(default=3, ge=1, le=100)
    """Consecutive successes that close the breaker; on the ramp, consecutive failures that open it
    again."""
    probe_every: _Positive = timedelta(seconds=5)
    """Time between two probes: health requests, or single sends for a provider without health."""
    ramp: SendRamp = SendRamp()
    """How the send rate rises once the breaker has closed."""

    def pause(self, openings: int) -> timedelta:
        """How long the breaker stays open after this many consecutive openings, from 1."""
        doublings: int = 2 ** min(max(openings, 1) - 1, 32)
        return max(self.open_for, min(self.open_for * doublings, self.open_at_most))


class BreakerCounts(Wire):
    """The provider's answers and failures; refusals count as answers, our own errors not at all.

    Attributes:
        answered: sends that the provider answered, with any result but a 5xx.
        failed: sends without an answer, or answered 5xx.
        responded: calls whose response arrived.
        silent: calls whose response did not arrive in time.
        healthy, unhealthy, unclear: health requests, by result; unclear ones say neither.
    """

    answered: int = 0
    failed: int = 0
    responded: int = 0
    silent: int = 0
    healthy: int = 0
    unhealthy: int = 0
    unclear: int = 0

    def __add__(self, other: BreakerCounts) -> BreakerCounts:
        return self._combined(other, 1)

    def __sub__(self, other: BreakerCounts) -> BreakerCounts:
        """The increase since `other`; a count that went down, because a report was lost, is 0."""
        return self._combined(other, -1)

    def _combined(self, other: BreakerCounts, sign: int) -> BreakerCounts:
        return BreakerCounts(
            **{
                name: max(0, getattr(self, name) + sign * getattr(other, name))
                for name in BreakerCounts.model_fields
            }
        )


NO_COUNTS: Final = BreakerCounts()


class WindowBucket(Wire):
    at: AwareDatetime
    tally: BreakerCounts


class BreakerWindow(Wire):
    """The counts a breaker decides by, since its last change of state.

    Attributes:
        counted: of the policy's window, oldest first.
        total: since the change of state.
        failed_streak, silent_streak: failures since the last report that contained a success.
    """

    counted: tuple[WindowBucket, ...] = ()
    total: BreakerCounts = NO_COUNTS
    failed_streak: int = 0
    silent_streak: int = 0

    @property
    def recent(self) -> BreakerCounts:
        """The counts of the policy's window."""
        return sum((bucket.tally for bucket in self.counted), NO_COUNTS)

    def with_counts(
        self, counts: BreakerCounts, now: AwareDatetime, window: timedelta
    ) -> BreakerWindow:
        """With new counts added, and what is older than the window dropped."""
        kept = [bucket for bucket in self.counted if now - bucket.at <= window]
        if counts != NO_COUNTS:
            if kept and now - kept[-1].at < window / WINDOW_BUCKETS:
                kept[-1] = WindowBucket(at=kept[-1].at, tally=kept[-1].tally + counts)
            else:
                kept.append(WindowBucket(at=now, tally=counts))
        return BreakerWindow(
            counted=tuple(kept),
            total=self.total + counts,
            failed_streak=0 if counts.answered else self.failed_streak + counts.failed,
            silent_streak=0 if counts.responded else self.silent_streak + counts.silent,
        )


class MonitorState(Wire):
    """What the monitoring of a provider has processed; resuming from it counts nothing twice.

    Attributes:
        marks: the counts already processed, by the start of their report (ISO 8601).
        probed_at: the time of the last health request.
    """

    evidence: BreakerWindow = BreakerWindow()
    marks: dict[str, BreakerCounts] = Field(default_factory=dict)
    probed_at: AwareDatetime | None = None


class SendRate(Wire):
    """The dispatch rate of a provider's send queue, all workers together.

    Attributes:
        per_second: None: no limit.
        per_tenant: for each fairness key; None: no limit of its own.
    """

    per_second: float | None = None
    per_tenant: float | None = None

    def __str__(self) -> str:
        rate = "unlimited" if self.per_second is None else f"{self.per_second:g}/s"
        return rate if self.per_tenant is None else f"{rate}, {self.per_tenant:g}/s per tenant"


class LimitOverride(Wire):
    """A rate limit that an operator set in place of `limits.requests_per_second`."""

    per_second: float
    by: str
    reason: str
    at: AwareDatetime


class SetLimit(StrictModel):
    """The update (and the signal) `set_limit`.

    Attributes:
        per_second: sends, all workers together; 0 stops them, None returns to the limit of the
            integration file.
    """

    per_second: float | None = Field(ge=0, le=100_000)
    by: Actor
    reason: Reason
