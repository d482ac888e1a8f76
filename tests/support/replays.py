"""Replaying histories with the code as it is."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from ackbridge.temporal.connect import client_options
from ackbridge.workarounds.temporal_sdk import workflow_runner
from workflows import WORKFLOWS


def replayer() -> Replayer:
    """One with the worker's own converter, plugins and sandbox."""
    return Replayer(workflows=WORKFLOWS, workflow_runner=workflow_runner(), **client_options())


def has_run(events: Sequence[HistoryEvent]) -> bool:
    """Whether there is anything to replay: of a run without a task, the SDK's replayer waits for
    the first one for ever."""
    return any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED for event in events)


async def replay(history: WorkflowHistory) -> None:
    """Replay what a run has done so far; raises if it does not replay."""
    if has_run(history.events):
        await replayer().replay_workflow(history)
