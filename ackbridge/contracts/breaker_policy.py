"""The breaker of a provider: its rules, what has been counted, how fast may be sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from .limits import Actor, Reason
from .wire import Duration, StrictModel, Wire

_FROM_FILES = ConfigDict(use_attribute_docstrings=True)
_Positive = Annotated[Duration, Field(gt=timedelta(0))]

GRAINS = 20
"""Into so many parts the window is divided; older parts are forgotten one by one."""


class SendRamp(StrictModel):
    """How fast is sent again after a recovery."""

    model_config = _FROM_FILES

    start: float = Field(default=1, gt=0)
    """Sends per second at first, all workers together."""
    factor: float = Field(default=2, gt=1)
    """What each step multiplies them by."""
    every: _Positive = timedelta(seconds=10)
    """How long a step lasts at least; one with failures lasts until there are none."""
    steps: int = Field(default=6, ge=0, le=60)
    """After so many steps the ramp is over, unless more sends wait than one second takes; at
    `limits.requests_per_second` it is over anyway. 0: no ramp."""

    def rate(self, step: int) -> float:
        """Sends per second in a step, from 0."""
        return float(self.start * self.factor**step)


class BreakerPolicy(StrictModel):
    """When a provider is given a pause, and how it is taken up again."""

    model_config = _FROM_FILES

    window: _Positive = timedelta(seconds=30)
    """How far back the error rate looks."""
    error_rate: float = Field(default=0.5, gt=0, le=1)
    """From this share of failures on it opens: of requests without an answer or answered 5xx, or
    of calls whose response did not come in time."""
    min_volume: int = Field(default=20, ge=1)
    """A rate over fewer requests, or calls, says nothing."""
    consecutive: int = Field(default=10, ge=1)
    """So many failures in a row open it, however few there are. More than the attempts of one
    call, so that no single call can open it."""
    open_for: _Positive = timedelta(seconds=30)
    """The first pause; it doubles with every opening in a row."""
    open_at_most: _Positive = timedelta(minutes=10)
    """The longest pause."""
    probes: int = Field(default=3, ge=1, le=100)
    """So many successes close it, and on the ramp so many failures in a row open it again."""
    probe_every: _Positive = timedelta(seconds=5)
    """The time between two probes: health requests, or single sends where there is no health."""
    ramp: SendRamp = SendRamp()
    """How fast is sent again once it has closed."""

    def pause(self, openings: int) -> timedelta:
        """How long it stays open the so-manieth time in a row, from 1."""
        doublings: int = 2 ** min(max(openings, 1) - 1, 32)
        return max(self.open_for, min(self.open_for * doublings, self.open_at_most))


class Tally(Wire):
    """How often what happened. Only what is the provider's doing: no refusal, no trouble of ours.

    Attributes:
        answered: sends that the provider answered, whatever it said.
        failed: sends that it did not answer, or with a 5xx.
        responded: calls whose response came.
        silent: calls whose response did not come in time.
        healthy, unhealthy: health requests.
        unclear: health requests that say nothing about it.
    """

    answered: int = 0
    failed: int = 0
    responded: int = 0
    silent: int = 0
    healthy: int = 0
    unhealthy: int = 0
    unclear: int = 0

    def __add__(self, other: Tally) -> Tally:
        return _each(self, other, 1)

    def __sub__(self, other: Tally) -> Tally:
        """What has been added since; a count that was lost is not a negative one."""
        return _each(self, other, -1)


NOTHING = Tally()


class Counted(Wire):
    """What was counted about a moment."""

    at: AwareDatetime
    tally: Tally


class Evidence(Wire):
    """What a breaker decides by, since it last changed its state.

    Attributes:
        counted: of the window, oldest first.
        total: since the change.
        failed_streak, silent_streak: reported since the last report with a success.
    """

    counted: tuple[Counted, ...] = ()
    total: Tally = NOTHING
    failed_streak: int = 0
    silent_streak: int = 0

    @property
    def recent(self) -> Tally:
        """The window's."""
        return sum((part.tally for part in self.counted), NOTHING)

    def noted(self, tally: Tally, now: AwareDatetime, window: timedelta) -> Evidence:
        """With what has been counted by now, and without what is older than the window."""
        kept = [part for part in self.counted if now - part.at <= window]
        if tally != NOTHING:
            if kept and now - kept[-1].at < window / GRAINS:
                kept[-1] = Counted(at=kept[-1].at, tally=kept[-1].tally + tally)
            else:
                kept.append(Counted(at=now, tally=tally))
        return Evidence(
            counted=tuple(kept),
            total=self.total + tally,
            failed_streak=0 if tally.answered else self.failed_streak + tally.failed,
            silent_streak=0 if tally.responded else self.silent_streak + tally.silent,
        )


class SendRate(Wire):
    """How fast a provider's send queue is dispatched, all workers together.

    Attributes:
        per_second: None: as fast as workers take them.
        per_tenant: for each fairness key; None: no bound of its own.
    """

    per_second: float | None = None
    per_tenant: float | None = None

    def __str__(self) -> str:
        rate = "as many as come" if self.per_second is None else f"{self.per_second:g}/s"
        return rate if self.per_tenant is None else f"{rate}, {self.per_tenant:g}/s per tenant"


class LimitSetting(Wire):
    """An operator's word about `limits.requests_per_second`: what, who, why and when."""

    per_second: float
    by: str
    reason: str
    at: AwareDatetime


class SetLimit(StrictModel):
    """The update (and the signal) `set_limit`.

    Attributes:
        per_second: sends, all workers together; 0 stops them, None goes back to what the
            integration file says.
    """

    per_second: float | None = Field(ge=0, le=100_000)
    by: Actor
    reason: Reason


class Watch(Wire):
    """Where a watch is; the next one goes on there and counts nothing twice.

    Attributes:
        marks: what has been counted of the latest reports, by when they began (ISO 8601).
        probed_at: when the provider's health was asked last.
    """

    evidence: Evidence = Evidence()
    marks: dict[str, Tally] = Field(default_factory=dict)
    probed_at: AwareDatetime | None = None


def _each(one: Tally, other: Tally, sign: int) -> Tally:
    return Tally(
        **{
            name: max(0, getattr(one, name) + sign * getattr(other, name))
            for name in Tally.model_fields
        }
    )
