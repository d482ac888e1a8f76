"""The three records of a call: the provider's, the ledger's, and the workflow's."""

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

_CLOSED = (
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
)

# Others, such as a signal that came while the workflow was closing, are the engine's daily life.
_OUR_FAULT = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
)


@dataclass(frozen=True)
class LedgerRow:
    """A row of the ledger's log or inbox: an event key, and what became of the event."""

    event_key: str
    what: str
    reason: str | None
    times: int


@dataclass(frozen=True)
class Records:
    """What each of the three remembers of one call.

    Attributes:
        journal: the provider's, in order.
        works: what the provider has done, one for each key it was sent.
        closings, broken_tasks: of the workflow: how it ended, and failures of its own code.
    """

    journal: Sequence[dict[str, Any]]
    works: Sequence[dict[str, Any]]
    call: CallRow | None
    responses: Sequence[ResponseRow]
    rows: Sequence[LedgerRow]
    closings: Sequence[str]
    broken_tasks: Sequence[str]

    def seen(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """Entries of the journal of one kind."""
        return [
            entry
            for entry in self.journal
            if entry["kind"] == kind and wanted.items() <= entry.items()
        ]

    def about(self, mark: str) -> list[LedgerRow]:
        """What the ledger says of an event."""
        return [row for row in self.rows if mark in row.event_key]


async def read_records(
    call_id: str,
    *,
    provider: httpx.AsyncClient,
    ledger: Ledger,
    ledger_path: Path,
    handle: WorkflowHandle[Any, Any],
) -> Records:
    """Read all three."""
    events = await provider.get("/_events", params={"call_id": call_id})
    works = await provider.get("/_works", params={"call_id": call_id})
    closings, broken = [], []
    async for event in handle.fetch_history_events():
        if event.event_type in _CLOSED:
            closings.append(EventType.Name(event.event_type).rpartition("_")[2].lower())
        failed = event.workflow_task_failed_event_attributes
        if event.HasField("workflow_task_failed_event_attributes") and failed.cause in _OUR_FAULT:
            broken.append(failed.failure.message)
    return Records(
        journal=events.json(),
        works=works.json(),
        call=await ledger.calls.get(call_id),
        responses=await ledger.calls.responses(call_id),
        rows=await asyncio.to_thread(_rows, ledger_path),
        closings=closings,
        broken_tasks=broken,
    )


def _rows(path: Path) -> list[LedgerRow]:
    """The log and the inbox; the facade has no way to read them, nobody else needs one."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        log = connection.execute("SELECT subject, kind, reason, times FROM log").fetchall()
        inbox = connection.execute("SELECT event_key, state, reason, 1 FROM inbox").fetchall()
    return [LedgerRow(*row) for row in (*log, *inbox)]
