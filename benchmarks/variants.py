"""The three ways of doing the same work that are measured against each other."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from ackbridge.client import AckbridgeClient
from ackbridge.contracts import CallRequest

from .orchestration import FLOOR, TASK_QUEUE, TEXTBOOK

PATIENCE = timedelta(minutes=5)
PAYLOAD = {"amount": 5, "currency": "EUR"}


@dataclass(frozen=True)
class Variant:
    """One way of doing it.

    Attributes:
        name: as in the report.
        run: does it once under a new id, and answers with that id.
    """

    name: str
    run: Callable[[], Awaitable[str]]


def variants(client: Client) -> list[Variant]:
    """Ours, the engine's floor, and the textbook's, all on one engine."""
    calls = AckbridgeClient(client)
    run = uuid.uuid4().hex[:8]
    numbers = itertools.count()

    async def ours() -> str:
        request = CallRequest(
            provider="sandbox",
            operation="create_order",
            key=f"bench-{run}-{next(numbers)}",
            payload=PAYLOAD,
        )
        await (await calls.start(request)).outcome(PATIENCE, settled=True)
        return request.call_id

    async def floor() -> str:
        handle = await client.start_workflow(
            FLOOR, id=f"floor-{run}-{next(numbers)}", task_queue=TASK_QUEUE
        )
        await handle.result()
        return handle.id

    async def textbook() -> str:
        key = f"textbook-{run}-{next(numbers)}"
        request = {"key": key, "payload": PAYLOAD}
        handle = await client.start_workflow(TEXTBOOK, request, id=key, task_queue=TASK_QUEUE)
        await handle.result()
        return key

    return [Variant("ours", ours), Variant("floor", floor), Variant("textbook", textbook)]


async def cost_in_history(handle: WorkflowHandle[object, object]) -> tuple[int, int]:
    """(history events, billable actions) of a workflow that has ended.

    Actions as Temporal Cloud counts them: the start, each signal, timer, upsert and activity, and
    all local activities of one workflow task together.
    """
    counted = {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
        EventType.EVENT_TYPE_TIMER_STARTED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
        EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
    }
    events = actions = 0
    tasks_with_local_activities: set[int] = set()
    async for event in handle.fetch_history_events():
        events += 1
        actions += event.event_type in counted
        if event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            marker = event.marker_recorded_event_attributes
            tasks_with_local_activities.add(marker.workflow_task_completed_event_id)
    return events, actions + len(tasks_with_local_activities)
