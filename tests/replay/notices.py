"""What golden histories of notices, and of calls that send them, are captured from."""

from __future__ import annotations

import contextlib

from temporalio.client import WorkflowFailureError

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.deliveries import NoticeEvent, event_id
from tests.support.stage import Stage

from .playing import Run, Scenario, booking, parked, run

SUBSCRIBER, GONE = "capture", "gone"


def subscribed(request: CallRequest) -> CallRequest:
    """The request with a subscriber of all events."""
    return request.model_copy(update={"reply_to": SUBSCRIBER})


async def delivered(stage: Stage, event: str) -> Run:
    """Wait for the end of a delivery."""
    handle = stage.client.get_workflow_handle(names.notice_id(event))
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return Run(handle.id, (await handle.describe()).run_id)


async def told_in_time(stage: Stage) -> CallRequest:
    """A completed call."""
    return await run(stage, subscribed(stage.request(delay_ms=100)))


async def told_late(stage: Stage) -> CallRequest:
    """A delay, and then the late end; both were delivered."""
    request = subscribed(booking(stage, stuck=True))
    await parked(stage, request)
    await delivered(stage, event_id(request.call_id, 1, NoticeEvent.DELAYED))
    late = {"kind": "response", "event_key": "late-1", "data": {"ok": True}, "source": "status"}
    await stage.handle(request).signal("provider_message", late)
    return await run(stage, request)


async def told_failed(stage: Stage) -> CallRequest:
    """A refused call."""
    return await run(stage, subscribed(stage.request(refuse=422)))


async def notice_delivered(stage: Stage) -> Run:
    """A delivery to a subscriber that is well."""
    request = subscribed(stage.request(refuse=422))
    await run(stage, request)
    return await delivered(stage, event_id(request.call_id, 1, NoticeEvent.FAILED))


async def notice_dead(stage: Stage) -> Run:
    """A delivery to a subscriber that is gone."""
    request = stage.request(refuse=422).model_copy(update={"reply_to": GONE})
    await run(stage, request)
    return await delivered(stage, event_id(request.call_id, 1, NoticeEvent.FAILED))


NOTICES: list[Scenario] = [
    told_in_time,
    told_late,
    told_failed,
    notice_delivered,
    notice_dead,
]
