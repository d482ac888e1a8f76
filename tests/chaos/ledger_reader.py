"""Reads the ledger's record with SQL of its own, independent of the ledger's code."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import Acknowledgement, EventRecords, LedgerRecord, Response


@dataclass(frozen=True)
class LedgerProgress:
    """The state of the ledger during a run.

    Attributes:
        stages: by call id.
        hosts: of calls that were claimed in a host, by call id.
        owing: calls that owe an acknowledgement.
        pending: entries of the inbox that have been tried fewer than `TRIED_ENOUGH` times.
    """

    stages: dict[str, str]
    hosts: dict[str, str]
    owing: frozenset[str]
    pending: int


def read_ledger(file: Path) -> tuple[dict[str, LedgerRecord], EventRecords]:
    """Everything in the ledger, as it is at one moment: by call id, and about events."""
    with _snapshot(file) as ledger:
        rows = {table: _rows(ledger, table) for table in _TABLES}
    return _by_call(rows), _about_events(rows)


def read_progress(file: Path) -> LedgerProgress:
    """What is needed to decide whether all calls are quiet."""
    with _snapshot(file) as ledger:
        stages = dict(ledger.execute("SELECT call_id, stage FROM calls").fetchall())
        hosted = "SELECT call_id, host FROM calls WHERE host IS NOT NULL"
        hosts = dict(ledger.execute(hosted).fetchall())
        owing = ledger.execute("SELECT call_id FROM acknowledgements WHERE is_owed").fetchall()
        (pending,) = ledger.execute(_PENDING, (TRIED_ENOUGH,)).fetchone()
    return LedgerProgress(stages, hosts, frozenset(call_id for (call_id,) in owing), pending)


class StageWatch:
    """The stages of all calls, as they were in the ledger a moment ago."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stages: dict[str, str] = {}

    async def run(self) -> None:
        """Read them again and again; ends only with its task."""
        while True:
            self._stages = (await asyncio.to_thread(read_progress, self._file)).stages
            await asyncio.sleep(READ_EVERY)

    def is_parked(self, call_id: str) -> bool:
        return self._stages.get(call_id) == "parked"

    async def until_claimed(self, call_id: str) -> None:
        """Wait until a workflow has claimed the call."""
        while call_id not in self._stages:  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(READ_EVERY)


_TABLES = {
    "calls": "SELECT call_id, stage, reason, outcome FROM calls",
    "responses": "SELECT call_id, cycle, event_key, data, source FROM responses",
    "event_keys": "SELECT event_key, call_id FROM event_keys",
    "inbox": "SELECT event_key, state FROM inbox",
    "acknowledgements": "SELECT call_id, cycle, kind, is_owed, reason FROM acknowledgements",
    "log": "SELECT kind, subject, times FROM log",
}

_PENDING = "SELECT count(*) FROM inbox WHERE state = 'pending' AND attempts < ?"

TRIED_ENOUGH = 3
"""Tries after which an entry of the inbox may go on waiting without us."""

READ_EVERY = 0.5
"""Seconds between two looks at the stages of calls that are under way."""

Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def _snapshot(file: Path) -> Iterator[sqlite3.Connection]:
    # Not opened read-only: a file whose last writer has just gone cannot be opened so.
    with closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=30)) as ledger:
        ledger.execute("PRAGMA query_only = ON")
        ledger.execute("BEGIN")
        yield ledger


def _rows(ledger: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    cursor = ledger.execute(_TABLES[table])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _by_call(rows: Rows) -> dict[str, LedgerRecord]:
    responses: defaultdict[str, list[Response]] = defaultdict(list)
    applied: defaultdict[str, list[str]] = defaultdict(list)
    told: defaultdict[str, list[Acknowledgement]] = defaultdict(list)
    for row in rows["responses"]:
        responses[row["call_id"]].append(
            Response(row["cycle"], row["event_key"], _json(row["data"]), row["source"])
        )
    for row in rows["event_keys"]:
        applied[row["call_id"]].append(row["event_key"])
    for row in rows["acknowledgements"]:
        told[row["call_id"]].append(
            Acknowledgement(row["cycle"], row["kind"], bool(row["is_owed"]), row["reason"])
        )
    calls = {row["call_id"]: row for row in rows["calls"]}
    return {
        call_id: LedgerRecord(
            stage=calls.get(call_id, {}).get("stage"),
            reason=calls.get(call_id, {}).get("reason"),
            outcome=_json(calls.get(call_id, {}).get("outcome")),
            responses=tuple(responses[call_id]),
            applied=tuple(applied[call_id]),
            acknowledgements=tuple(told[call_id]),
        )
        for call_id in {**calls, **responses, **applied, **told}
    }


def _about_events(rows: Rows) -> EventRecords:
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for row in (*rows["event_keys"], *rows["responses"]):
        owners[row["event_key"]].add(row["call_id"])
    logged = [row for row in rows["log"] if row["kind"] == "suppressed"]
    return EventRecords(
        suppressed=frozenset(row["subject"] for row in logged),
        inbox={row["event_key"]: row["state"] for row in rows["inbox"]},
        owners={key: tuple(sorted(calls)) for key, calls in owners.items()},
        suppressions=sum(row["times"] for row in logged),
    )


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
