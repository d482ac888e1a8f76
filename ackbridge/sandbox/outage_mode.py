"""How the simulated provider as a whole is, whatever single requests ask for: `/_mood`."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from .behaviour import Behaviour, Milliseconds
from .provider_dialect import WorkRequest
from .request_handler import BehaviourFor


class OutageState(BaseModel):
    """What `PUT /_mood` takes.

    Attributes:
        state: `slow`: requests for work take `slow_ms` longer. `silent`: new work is never done
            or told. `broken`: requests for work, and for health, are answered 503.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["well", "slow", "silent", "broken"] = "well"
    slow_ms: Milliseconds = 2000


class OutageMode:
    """The mood of one provider. Status requests and acknowledgements do not suffer from it."""

    def __init__(self, behaviour_for: BehaviourFor) -> None:
        self._behaviour_for = behaviour_for
        self.now = OutageState()

    @property
    def is_broken(self) -> bool:
        """Whether nothing is done for anybody."""
        return self.now.state == "broken"

    async def linger(self) -> None:
        """Be as slow as the mood has it."""
        if self.now.state == "slow":
            await asyncio.sleep(self.now.slow_ms / 1000)

    def behaviour_for(self, request: WorkRequest) -> Behaviour | None:
        """How a request is met that says nothing itself."""
        if self.now.state == "silent":
            return Behaviour(stuck=True)
        return self._behaviour_for(request)


def mood_routes(mood: OutageMode) -> APIRouter:
    """The routes. They need no credentials."""
    routes = APIRouter()

    @routes.get("/_mood")
    async def tell() -> OutageState:
        return mood.now

    @routes.put("/_mood")
    async def change(state: OutageState) -> OutageState:
        mood.now = state
        return mood.now

    return routes
