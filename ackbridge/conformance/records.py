"""The three records of a call: the provider's, the ledger's, and the workflow's history."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHandle

from ackbridge.ledger.calls import CallRow, ResponseRow
from ackbridge.ledger.ledger import Ledger

_CLOSE_EVENTS = (
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
)

# Other causes are normal, such as a signal that arrives while the workflow closes.
_OUR_FAILURES = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
)


@dataclass(frozen=True)
class LedgerRow:
    """A row of the ledger's log or inbox: an event key, and what was done with the event."""

    event_key: str
    what: str
    reason: str | None
    times: int


@dataclass(frozen=True)
class Records:
    provider_events: Sequence[dict[str, Any]]  # from the provider's event log, in order
    works: Sequence[dict[str, Any]]  # the provider's jobs, one per idempotency key
    call: CallRow | None
    responses: Sequence[ResponseRow]
    ledger_rows: Sequence[LedgerRow]  # of all calls
    close_events: Sequence[str]
    failed_tasks: Sequence[str]  # messages of workflow tasks that failed in our own code

    def events(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            event
            for event in self.provider_events
            if event["kind"] == kind and fields.items() <= event.items()
        ]

    def rows_of(self, event_key: str) -> list[LedgerRow]:
        """The ledger's rows of an event."""
        return [row for row in self.ledger_rows if row.event_key == event_key]


async def read_records(
    call_id: str,
    *,
    provider: httpx.AsyncClient,
    ledger: Ledger,
    ledger_path: Path,
    handle: WorkflowHandle[Any, Any],
) -> Records:
    events = await provider.get("/_events", params={"call_id": call_id})
    works = await provider.get("/_works", params={"call_id": call_id})
    close_events, failed_tasks = [], []
    async for event in handle.fetch_history_events():
        if event.event_type in _CLOSE_EVENTS:
            close_events.append(EventType.Name(event.event_type).rpartition("_")[2].lower())
        failed = event.workflow_task_failed_event_attributes
        is_failed = event.HasField("workflow_task_failed_event_attributes")
        if is_failed and failed.cause in _OUR_FAILURES:
            failed_tasks.append(failed.failure.message)
    return Records(
        provider_events=events.json(),
        works=works.json(),
        call=await ledger.calls.get(call_id),
        responses=await ledger.calls.responses(call_id),
        ledger_rows=await asyncio.to_thread(_ledger_rows, ledger_path),
        close_events=close_events,
        failed_tasks=failed_tasks,
    )


def _ledger_rows(path: Path) -> list[LedgerRow]:
    # By SQL: only the conformance kit needs these, so the ledger has no method for them.
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        log = connection.execute("SELECT subject, kind, reason, times FROM log").fetchall()
        inbox = connection.execute("SELECT event_key, state, reason, 1 FROM inbox").fetchall()
    return [LedgerRow(*row) for row in (*log, *inbox)]
