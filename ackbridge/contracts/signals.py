"""Signals and the update of a call, other than a provider's messages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from .calls import Effect
from .limits import MAX_ACTOR_LENGTH, Actor, Reason
from .wire import Duration, StrictModel


class Cancel(StrictModel):
    """The signal `cancel`."""

    by: Actor
    reason: Reason


class ForceAck(StrictModel):
    """The signal `force_ack`: stop waiting and complete the call, with or without a response."""

    by: Actor
    reason: Reason
    response: Any = None


class Reprocess(StrictModel):
    """The signal `reprocess`: resume a parked call.

    Attributes:
        batch: the batch that sends the signal, if one does.
    """

    by: Actor
    batch: str | None = Field(default=None, max_length=MAX_ACTOR_LENGTH)
    reason: Reason | None = None


class Resolve(StrictModel):
    """The signal `resolve`: an operator states what happened at the provider.

    Attributes:
        effect: `done` or `none`; `as` in JSON.
        response: the provider's response, if `done` and it is known.
    """

    by: Actor
    reason: Reason
    effect: Literal[Effect.DONE, Effect.NONE] = Field(alias="as")
    response: Any = None


class WriteOff(StrictModel):
    """The signal `write_off`: stop retrying the acknowledgement of a cycle."""

    by: Actor
    reason: Reason
    cycle: int = Field(ge=1)


class AwaitOutcome(StrictModel):
    """The update `await_outcome`.

    Attributes:
        timeout: after it, the update returns the current status.
        request_digest: `CallRequest.digest` of the caller's request; a mismatch is refused.
    """

    timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(hours=1))
    request_digest: str | None = None
