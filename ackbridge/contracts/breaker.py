"""The circuit breaker of a provider: its policy, its status, and the send rate that follows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, ConfigDict, Field

from .limits import Actor, Name, Reason
from .wire import Duration, StrictModel, Wire

WINDOW_BUCKETS: Final = 20
"""Parts of a breaker's window; the oldest is dropped when it leaves the window."""

PAUSE_GROWTH: Final = 1.5
"""So that the last pause of an outage is at most half as long as the outage was before it."""

_FROM_FILES = ConfigDict(use_attribute_docstrings=True)
_Positive = Annotated[Duration, Field(gt=timedelta(0))]


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerStatus(Wire):
    """The state of one breaker, with everything the next decision needs.

    Attributes:
        since: when it entered this state.
        reason: one line for operators.
        forced_by: the operator who forced this state; it does not change until it is released.
        until: the earliest time of the next change: the end of the pause, or of a ramp step.
        openings: openings without a success in between; each pause is longer than the one before.
        trickle: half open, single sends probe the provider, not its health request.
        for_silence: it opened because responses were missing, and only responses close it.
        opened_at: when the outage began whose recovery is not over; None: it is.
        judged_from: failures of requests that were sent before this time do not count.
        probe_every: half open, the time between two probes.
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
    judged_from: AwareDatetime | None = None
    probe_every: timedelta | None = None
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
            probe_every=BreakerPolicy().probe_every if state is BreakerState.HALF_OPEN else None,
            opened_at=None if state is BreakerState.CLOSED else self.opened_at or now,
            judged_from=now,
        )

    def released(self, reason: str, now: datetime) -> BreakerStatus:
        """No longer forced. If it was not closed, its pause ends now and the provider is probed."""
        if self.state is BreakerState.CLOSED:
            return BreakerStatus(since=now, reason=reason, judged_from=now)
        expired = {"state": BreakerState.OPEN, "since": now, "until": now, "trickle": False}
        return self.model_copy(update={**expired, "reason": reason, "forced_by": None})


class ForceBreaker(StrictModel):
    """The update (and the signal) `force_breaker`.

    Attributes:
        state: the state to force; None releases the breaker to automatic control.
        operation: whose breaker; None: the provider's.
        expected: `ControlSnapshot.breaker_tag` as it was read; refused if it has changed since.
    """

    state: BreakerState | None
    operation: Name | None = None
    by: Actor
    reason: Reason
    expected: str | None = None


class SendRamp(StrictModel):
    """How the send rate rises after a recovery."""

    model_config = _FROM_FILES

    start: float = Field(default=1, gt=0)
    """Sends per second in the first step, all workers together."""
    factor: float = Field(default=2, gt=1)
    """By how much each step multiplies the rate."""
    every: _Positive = timedelta(seconds=10)
    """Minimum duration of a step; a step in which most calls fail lasts longer."""
    steps: int = Field(default=6, ge=0, le=60)
    """Number of steps. The ramp goes on while more sends are queued than one second takes, and
    ends early at `limits.requests_per_second`. 0: no ramp."""

    def rate(self, step: int) -> float:
        """Sends per second in a step, from 0."""
        return float(self.start * self.factor**step)


class BreakerPolicy(StrictModel):
    """When the breakers of a provider and its operations open, and how they recover."""

    model_config = _FROM_FILES

    window: _Positive = timedelta(seconds=30)
    """Time span over which the error rate is computed."""
    error_rate: float = Field(default=0.5, gt=0, le=1)
    """Share of failing calls above which an operation's breaker opens, by more than chance (one and
    a half standard deviations). A call fails with a request that is not answered or answered 5xx,
    or with a response that does not arrive in time; it counts once, however often it is tried."""
    min_volume: int = Field(default=20, ge=1)
    """Minimum number of calls for which the error rate is evaluated."""
    consecutive: int = Field(default=10, ge=1)
    """Consecutive failing calls that open the breaker at any volume."""
    open_for: _Positive = timedelta(seconds=30)
    """Duration of the first pause; each further one without a success in between is half as long
    again."""
    open_at_most: _Positive = timedelta(minutes=2)
    """Maximum duration of a pause."""
    probes: int = Field(default=3, ge=1, le=100)
    """Successes that close the breaker, and failures that open it again."""
    probe_every: _Positive = timedelta(seconds=5)
    """Time between two probes: health requests, or single sends for a provider without health."""
    ramp: SendRamp = SendRamp()
    """How the send rate rises once the breaker has closed."""

    def pause(self, openings: int) -> timedelta:
        """How long the breaker stays open the n-th time without a success in between, from 1."""
        growth: float = PAUSE_GROWTH ** min(max(openings, 1) - 1, 32)
        return max(self.open_for, min(self.open_for * growth, self.open_at_most))


class BreakerCounts(Wire):
    """The outcomes of calls, each counted once per call when it happens.

    Refusals count as answers, a 429 and our own errors not at all.

    Attributes:
        answered: calls whose request the provider answered, with any result but a 5xx.
        failed: calls with an attempt that was not answered, or with a 5xx.
        responded: calls whose response, or failure, the provider reported.
        silent: calls whose response did not arrive in time.
        heard: as `responded`, but counted when their silence would have been.
        failed_overtaken, silent_overtaken: those of the failed and the silent ones that were sent
            before a call that was answered: they are not the last ones in a row.
        healthy, unhealthy, unclear: health requests, by result; unclear ones say neither.
    """

    answered: int = 0
    failed: int = 0
    responded: int = 0
    silent: int = 0
    healthy: int = 0
    unhealthy: int = 0
    unclear: int = 0
    heard: int = 0
    failed_overtaken: int = 0
    silent_overtaken: int = 0

    @property
    def has_news(self) -> bool:
        """Whether anything has happened: what is heard has happened before."""
        return self.model_copy(update={"heard": 0}) != NO_COUNTS

    def __add__(self, other: BreakerCounts) -> BreakerCounts:
        return self._combined(other, 1)

    def __sub__(self, other: BreakerCounts) -> BreakerCounts:
        """The increase since `other`; a count that went down, because a report was lost, is 0."""
        return self._combined(other, -1)

    @classmethod
    def total(cls, counts: Iterable[BreakerCounts]) -> BreakerCounts:
        """The sum."""
        listed = list(counts)
        return cls(**{name: sum(getattr(one, name) for one in listed) for name in _OUTCOMES})

    def _combined(self, other: BreakerCounts, sign: int) -> BreakerCounts:
        return BreakerCounts(
            **{
                name: max(0, getattr(self, name) + sign * getattr(other, name))
                for name in _OUTCOMES
            }
        )


_OUTCOMES: Final = tuple(BreakerCounts.model_fields)

NO_COUNTS: Final = BreakerCounts()


class WindowBucket(Wire):
    at: AwareDatetime
    tally: BreakerCounts


class BreakerWindow(Wire):
    """The counts a breaker decides by, since its last change of state.

    Attributes:
        counted: of the policy's window, oldest first.
        total: since the change of state.
        failed_streak, silent_streak: failures since the last report that contained a success, of
            calls that none was sent after that was answered.
    """

    counted: tuple[WindowBucket, ...] = ()
    total: BreakerCounts = NO_COUNTS
    failed_streak: int = 0
    silent_streak: int = 0

    @property
    def recent(self) -> BreakerCounts:
        """The counts of the policy's window."""
        return BreakerCounts.total(bucket.tally for bucket in self.counted)

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
            failed_streak=_streak(
                self.failed_streak, counts.answered, counts.failed - counts.failed_overtaken
            ),
            silent_streak=_streak(
                self.silent_streak, counts.responded, counts.silent - counts.silent_overtaken
            ),
        )


def _streak(before: int, successes: int, failures: int) -> int:
    return 0 if successes else before + max(failures, 0)


class OperationMonitor(Wire):
    """What the monitoring of an operation has processed.

    Attributes:
        marks: the counts already processed, by the start of their report (ISO 8601).
        used_at: when an outcome was counted last.
    """

    evidence: BreakerWindow = BreakerWindow()
    marks: dict[str, BreakerCounts] = Field(default_factory=dict)
    used_at: AwareDatetime | None = None


class MonitorState(Wire):
    """What the monitoring of a provider has processed; resuming from it counts nothing twice.

    Attributes:
        evidence: of all operations, and the health requests.
        operations: by name, those in use.
        probed_at: the time of the last health request.
    """

    evidence: BreakerWindow = BreakerWindow()
    operations: dict[str, OperationMonitor] = Field(default_factory=dict)
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
        expected: `ControlSnapshot.limit_tag` as it was read; refused if it has changed since.
    """

    per_second: float | None = Field(ge=0, le=100_000)
    by: Actor
    reason: Reason
    expected: str | None = None
