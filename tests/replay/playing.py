"""What golden histories are captured from: a call or another run, played to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import CallError
from tests.support.stage import Stage

PATIENCE = timedelta(minutes=1)


@dataclass(frozen=True)
class Run:
    """One run of a workflow that is no call."""

    workflow_id: str
    run_id: str


Scenario = Callable[[Stage], Awaitable[CallRequest | Run]]


async def run(stage: Stage, request: CallRequest) -> CallRequest:
    """Play a call to its end, whatever that is."""
    with contextlib.suppress(CallError):
        await (await stage.calls.start(request)).outcome(PATIENCE, settled=True)
    return request


def booking(stage: Stage, **behaviour: Any) -> CallRequest:
    """A request of the operation that parks."""
    payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
    request = stage.request().model_copy(update={"operation": "create_booking"})
    return request.model_copy(update={"payload": payload})


async def parked(stage: Stage, request: CallRequest) -> None:
    """Start a booking, and let both its deadlines pass."""
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=70))
    await stage.until(request, "parked")
