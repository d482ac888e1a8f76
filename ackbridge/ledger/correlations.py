"""Correlations: which call a provider means by its own reference."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from . import logbook
from .inserting import insert_new
from .rows import LogKind
from .tables import correlations


def commit(
    connection: sa.Connection, call_id: str, provider: str, reference: str, now: datetime
) -> None:
    """Write the correlation; the first call wins; see `Ledger.commit_reference`."""
    row = {
        "provider": provider,
        "reference": reference,
        "call_id": call_id,
        "committed_at": now,
    }
    if insert_new(connection, correlations, row):
        return
    owner = find(connection, provider, reference)
    if owner == call_id:
        return
    reason = f"the reference stands for {owner} already"
    entry = logbook.LogEntry(LogKind.REFERENCE_CONFLICT, provider, reference, call_id, reason)
    logbook.note(connection, entry, now)


def find(connection: sa.Connection, provider: str, reference: str) -> str | None:
    """The call that a reference stands for."""
    return connection.execute(
        sa.select(correlations.c.call_id).where(
            correlations.c.provider == provider, correlations.c.reference == reference
        )
    ).scalar_one_or_none()
