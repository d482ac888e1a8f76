"""Where the breaker of a provider stands, and an operator's word about it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime

from .limits import Actor, Reason
from .wire import StrictModel, Wire


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerSetting(Wire):
    """The breaker of a provider, whole.

    Attributes:
        since: when it came into this state.
        reason: why, in one line for people.
        forced_by: who holds it there; no decision moves it until that is lifted.
        until: when it moves next at the earliest: out of its pause, or to the next step.
        openings: how often in a row it has opened; each pause is longer.
        trickle: half open, it is single sends that tell how the provider is, and not its health.
        for_silence: it has opened because responses stayed away, and only those close it.
        silences_from: until then whatever stays away may have been sent before it opened.
        step: closed, where the ramp after a recovery is; None: as much is sent as may be.
    """

    state: BreakerState = BreakerState.CLOSED
    since: AwareDatetime
    reason: str
    forced_by: str | None = None
    until: AwareDatetime | None = None
    openings: int = 0
    trickle: bool = False
    for_silence: bool = False
    silences_from: AwareDatetime | None = None
    step: int | None = None

    @property
    def is_calm(self) -> bool:
        """Whether it holds nothing back: closed, and no ramp."""
        return self.state is BreakerState.CLOSED and self.step is None

    @classmethod
    def fresh(cls, now: datetime) -> Self:
        """The breaker of a provider that nothing is known of."""
        return cls(since=now, reason="nothing observed yet")

    def held(self, state: BreakerState, by: str, reason: str, now: datetime) -> BreakerSetting:
        """Where somebody wants to have it, until it is released."""
        return BreakerSetting(
            state=state,
            since=now,
            reason=reason,
            forced_by=by,
            openings=self.openings,
            trickle=state is BreakerState.HALF_OPEN,
        )

    def released(self, reason: str, now: datetime) -> BreakerSetting:
        """Left to the observations. One that was not closed asks first: its pause is over."""
        if self.state is BreakerState.CLOSED:
            return BreakerSetting(since=now, reason=reason)
        asking = {"state": BreakerState.OPEN, "since": now, "until": now, "trickle": False}
        return self.model_copy(update={**asking, "reason": reason, "forced_by": None})


class ForceBreaker(StrictModel):
    """The update (and the signal) `force_breaker`.

    Attributes:
        state: where the breaker is held; None lets it go where the observations move it.
    """

    state: BreakerState | None
    by: Actor
    reason: Reason
