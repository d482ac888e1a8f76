"""What a call costs in the engine's history."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

_COUNTED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    EventType.EVENT_TYPE_TIMER_STARTED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
}


VISIBLE_AFTER = 3.0
"""Seconds after which a new workflow is listed."""


async def cost_in_hosts(client: Client, host_type: str, since: datetime) -> tuple[int, int, int]:
    """(history events, billable actions, bytes) of all workflows of a type started since."""
    await asyncio.sleep(VISIBLE_AFTER)
    query = f"WorkflowType = '{host_type}' AND StartTime >= '{since.isoformat()}'"
    events = actions = size = 0
    async for found in client.list_workflows(query):
        handle = client.get_workflow_handle(found.id, run_id=found.run_id)
        own_events, own_actions = await cost_in_history(handle)
        events += own_events
        actions += own_actions
        size += await history_size(handle)
    return events, actions, size


async def history_size(handle: WorkflowHandle[Any, Any]) -> int:
    """Bytes, as the engine counts them."""
    described = await handle.describe()
    return int(described.raw_description.workflow_execution_info.history_size_bytes)


async def cost_in_history(handle: WorkflowHandle[Any, Any]) -> tuple[int, int]:
    """(history events, billable actions) of a workflow.

    Actions as Temporal Cloud counts them: the start, each signal, timer, upsert and activity, and
    all local activities of one workflow task together.
    """
    events = actions = 0
    tasks_with_local_activities: set[int] = set()
    async for event in handle.fetch_history_events():
        events += 1
        actions += event.event_type in _COUNTED
        if event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            marker = event.marker_recorded_event_attributes
            tasks_with_local_activities.add(marker.workflow_task_completed_event_id)
    return events, actions + len(tasks_with_local_activities)
