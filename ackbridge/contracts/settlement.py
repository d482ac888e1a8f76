"""What an operator states about a call that has ended: the argument of `SettleCall`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .calls import Effect
from .limits import MAX_CALL_ID_LENGTH, Actor, Reason
from .names import split_call_id
from .steps import AcknowledgementKind
from .wire import StrictModel


class OwedCycle(StrictModel):
    """Which acknowledgement to write off."""

    cycle: int = Field(ge=1)
    kind: AcknowledgementKind


class SettleRequest(StrictModel):
    """The one argument of the workflow `SettleCall` and of its activity; exactly one request.

    Attributes:
        effect: what happened at the provider, `done` or `none`; `as` in JSON.
        response: the provider's response, if `done` and it is known.
        held_id: the held message to apply to the call.
        write_off: the acknowledgement that is no longer sent.
    """

    call_id: str = Field(min_length=1, max_length=MAX_CALL_ID_LENGTH)
    by: Actor
    reason: Reason
    effect: Literal[Effect.DONE, Effect.NONE] | None = Field(default=None, alias="as")
    response: Any = None
    held_id: int | None = None
    write_off: OwedCycle | None = None

    @field_validator("call_id")
    @classmethod
    def _check_call_id(cls, value: str) -> str:
        split_call_id(value)
        return value

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        requests = (self.effect, self.held_id, self.write_off)
        if sum(request is not None for request in requests) != 1:
            raise ValueError("exactly one of as, held_id and write_off is needed")
        if self.response is not None and self.effect is not Effect.DONE:
            raise ValueError("a response needs as: done")
        return self
