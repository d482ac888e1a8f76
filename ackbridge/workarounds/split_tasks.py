"""Reset workflows that no longer replay, because a query has split one of their workflow tasks."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Final, Self

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHistory
from temporalio.client import WorkflowExecution as Execution
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

EVERY: Final = timedelta(seconds=30)
TASKS_BACK: Final = 10
"""How many workflow tasks a reset discards at the most; a history that does not replay for longer
has another cause, such as a worker of another version, and is left to an operator."""

MAX_RESETS: Final = 3
"""Of one workflow; what does not replay even then is left to an operator."""

REASON: Final = "a query split a workflow task, and its history no longer replays (decision 7)"

_NONDETERMINISM: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
_RESET: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
_LIST: Final = (
    "ExecutionStatus = 'Running' AND TemporalReportedProblems IN "
    "('cause=WorkflowTaskFailedCauseNonDeterministicError')"
)
_AT_ONCE: Final = 100
_RPC_TIMEOUT: Final = timedelta(seconds=10)

log = logging.getLogger(__name__)


class SplitTaskRepair:
    """Resets a workflow to the last workflow task up to which its history replays.

    What follows is done again: every activity is idempotent, and signals are applied again.
    """

    def __init__(self, client: Client, replayer: Callable[[], Replayer]) -> None:
        self._client = client
        self._replayer = replayer
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Repair in the background."""
        self._task = asyncio.create_task(self._repair_repeatedly(EVERY))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _repair_repeatedly(self, every: timedelta) -> None:
        while True:
            try:
                await self.repair()
            except RPCError as error:
                if error.status is RPCStatusCode.INVALID_ARGUMENT:
                    log.warning("stuck workflows are not found: %s", error)
                    return
                log.info("stuck workflows are not looked for: %s", error)
            await asyncio.sleep(every.total_seconds())

    async def repair(self) -> list[str]:
        """Reset what is stuck; returns the ids.

        Raises:
            RPCError: the server does not answer, or does not know the search attribute.
        """
        found = self._client.list_workflows(_LIST, limit=_AT_ONCE, rpc_timeout=_RPC_TIMEOUT)
        return [execution.id async for execution in found if await self._reset(execution)]

    async def _reset(self, execution: Execution) -> bool:
        handle = self._client.get_workflow_handle(execution.id, run_id=execution.run_id)
        history = await handle.fetch_history(rpc_timeout=_RPC_TIMEOUT)
        finished = await self._last_good_task(history)
        if finished is None:
            log.warning("%s does not replay, and is left to an operator", execution.id)
            return False
        run = WorkflowExecution(workflow_id=execution.id, run_id=execution.run_id)
        request = ResetWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=run,
            reason=REASON,
            workflow_task_finish_event_id=finished,
            # The same from every worker: only the first one resets.
            request_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{execution.run_id}/{finished}")),
        )
        await self._client.workflow_service.reset_workflow_execution(request, timeout=_RPC_TIMEOUT)
        log.warning("%s was reset to event %d: %s", execution.id, finished, REASON)
        return True

    async def _last_good_task(self, history: WorkflowHistory) -> int | None:
        """The event that ended the last workflow task up to which the history replays."""
        causes = [
            event.workflow_task_failed_event_attributes.cause
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        ]
        if causes[-1:] != [_NONDETERMINISM] or causes.count(_RESET) >= MAX_RESETS:
            return None
        for started, finished in _tasks_backwards(history.events):
            prefix = WorkflowHistory(history.workflow_id, history.events[: started + 1])
            replayed = await self._replayer().replay_workflow(prefix, raise_on_replay_failure=False)
            if replayed.replay_failure is None:
                return finished
        return None


def _tasks_backwards(events: Sequence[HistoryEvent]) -> Iterator[tuple[int, int]]:
    """Completed workflow tasks: the index of the start, and the id of the event that ended it."""
    completed = [
        event
        for event in reversed(events)
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    for event in completed[:TASKS_BACK]:
        started = event.workflow_task_completed_event_attributes.started_event_id
        # Events are numbered from 1.
        yield started - 1, event.event_id
