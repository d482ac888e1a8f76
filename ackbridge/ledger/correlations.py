"""Correlations: which call a provider means by its own reference."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ackbridge.ledger.database.tables import correlations
from ackbridge.ledger.database.upserts import insert_new

from . import suppressed_log
from .rows import LogKind


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
    entry = suppressed_log.LogEntry(
        LogKind.REFERENCE_CONFLICT, provider, reference, call_id, reason
    )
    suppressed_log.note(connection, entry, now)


def find(connection: sa.Connection, provider: str, reference: str) -> str | None:
    """The call that a reference stands for."""
    return connection.execute(
        sa.select(correlations.c.call_id).where(
            correlations.c.provider == provider, correlations.c.reference == reference
        )
    ).scalar_one_or_none()
