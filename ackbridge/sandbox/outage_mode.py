"""Outages of the provider as a whole, whatever single requests ask for."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .behaviour import Behaviour, Milliseconds
from .provider_dialect import JobRequest
from .request_handler import BehaviourFor


class OutageState(BaseModel):
    """The body of `PUT /_mood`.

    Attributes:
        state: `slow`: job requests take `slow_ms` longer. `silent`: new jobs are never done, and
            send no callback. `broken`: job and health requests are answered 503.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["well", "slow", "silent", "broken"] = "well"
    slow_ms: Milliseconds = 2000


class OutageMode:
    """The current state. Status requests and acknowledgements are not affected by it."""

    def __init__(self, behaviour_for: BehaviourFor) -> None:
        self._behaviour_for = behaviour_for
        self.current = OutageState()

    @property
    def is_broken(self) -> bool:
        return self.current.state == "broken"

    async def delay(self) -> None:
        if self.current.state == "slow":
            await asyncio.sleep(self.current.slow_ms / 1000)

    def behaviour_for(self, request: JobRequest) -> Behaviour | None:
        if self.current.state == "silent":
            return Behaviour(stuck=True)
        return self._behaviour_for(request)
