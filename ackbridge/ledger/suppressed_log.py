"""The log: what was not applied, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ackbridge.ledger.database.tables import log
from ackbridge.ledger.database.upserts import upsert

from .rows import LogKind


@dataclass(frozen=True)
class LogEntry:
    """One line of the log; `subject` is an event key or a reference."""

    kind: LogKind
    provider: str
    subject: str
    call_id: str | None
    reason: str

    @property
    def fingerprint(self) -> str:
        """Makes two entries the same: every field. Stored, because reasons outgrow an index."""
        fields = [self.kind, self.provider, self.subject, self.call_id, self.reason]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def count(connection: sa.Connection, entry: LogEntry, now: datetime) -> None:
    """Log it; a repeat counts up."""
    _write(connection, entry, now, 1, {"times": log.c.times + 1})


def note(connection: sa.Connection, entry: LogEntry, now: datetime, times: int = 1) -> None:
    """Log that it happened at least so many times; noting the same again changes nothing.

    For steps that may run twice for one occurrence.
    """
    more = sa.case((log.c.times < times, times), else_=log.c.times)
    _write(connection, entry, now, times, {"times": more})


def _write(
    connection: sa.Connection,
    entry: LogEntry,
    now: datetime,
    times: int,
    again: Mapping[str, Any],
) -> None:
    statement = upsert(connection.dialect.name, log).values(
        fingerprint=entry.fingerprint, **asdict(entry), times=times, first_at=now, last_at=now
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[log.c.fingerprint], set_={**again, "last_at": now}
        )
    )
