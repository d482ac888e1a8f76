"""What golden histories of notices, and of calls that send them, are captured from."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from temporalio.client import WorkflowFailureError

from ackbridge.client.catch_up import catch_up
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.catch_up import CatchUpRequest
from ackbridge.contracts.deliveries import (
    Delivery,
    EventData,
    EventStream,
    ForwardedEvent,
    NoticeBody,
    NoticeEvent,
    event_id,
    provider_event_id,
)
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


async def events_forwarded(stage: Stage) -> Run:
    """Events of one object: one that is accepted, a dead one, and a repeated one."""
    stream = EventStream(provider="sandbox", subject="object-1")
    events = [_event(SUBSCRIBER, "e1"), _event(GONE, "e2"), _event(SUBSCRIBER, "e1")]
    handle = await stage.client.start_workflow(
        names.FORWARD_EVENTS,
        stream.model_dump(mode="json"),
        id=names.events_id(stream.provider, stream.subject),
        task_queue=names.TASK_QUEUE,
        start_signal=names.FORWARD,
        start_signal_args=[{"events": [one.model_dump(mode="json") for one in events]}],
    )
    await handle.result()
    return Run(handle.id, (await handle.describe()).run_id)


LISTS = """
provider: feed
base_url: URL
breaker: null
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:SANDBOX_WEBHOOK_SECRET"]}
  event_key: id
  events: {note: {when: id, notify: capture}}
  list: {path: /events, query: {after: "{since}", page: "{page}"}, each: data, next: next}
operations: {ask: {request: {path: /asks}, response: {mode: sync}}}
"""
"""A provider that lists its events."""


async def caught_up(stage: Stage) -> Run:
    """Two pages of events: two that are forwarded, and one that cannot be read."""
    request = CatchUpRequest(provider="feed", since=datetime(2026, 1, 1, tzinfo=UTC), by="ann")
    await catch_up(stage.client, request)
    handle = stage.client.get_workflow_handle(names.catch_up_id("feed"))
    return Run(handle.id, (await handle.describe()).run_id)


def _event(subscriber: str, event_key: str) -> ForwardedEvent:
    data = EventData(provider="sandbox", event="refund", event_key=event_key, object="object-1")
    body = NoticeBody(
        id=provider_event_id("sandbox", event_key),
        type="event.refund",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        data=data,
    )
    notice = Delivery(subscriber=subscriber, body=body)
    return ForwardedEvent(event_key=event_key, notice=notice)


NOTICES: list[Scenario] = [
    told_in_time,
    told_late,
    told_failed,
    notice_delivered,
    notice_dead,
    events_forwarded,
    caught_up,
]
