"""Responses and the duplicate index: exactly one response for a call, one call for an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ackbridge.contracts.calls import CallOutcome
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import Recorded
from ackbridge.ledger.database.tables import event_keys, responses
from ackbridge.ledger.database.upserts import insert_new

from . import inbox, parked, suppressed_log
from .calls import settle_captured
from .rows import LogKind, ResponseRow


@dataclass(frozen=True)
class CaptureResult:
    """A response on its way into the ledger; see `Ledger.record`."""

    call_id: str
    provider: str
    operation: str
    cycle: int
    message: ProviderMessage
    outcome: CallOutcome
    was_parked: bool = False


def record(connection: sa.Connection, capture: CaptureResult, now: datetime) -> Recorded:
    """Write the response, its duplicate-index row and the outcome, or say why not."""
    if not _insert_response(connection, capture, now):
        return _compare(connection, capture, now)
    if not _insert_event_key(connection, capture, now):
        # The response goes before the index, so that rows are always locked in one order.
        connection.execute(responses.delete().where(responses.c.call_id == capture.call_id))
        owner = _owner(connection, capture.provider, capture.message.event_key)
        return _refuse(connection, capture, f"the event was applied to {owner} already", now)
    settle_captured(connection, capture.call_id, capture.outcome, now)
    if capture.was_parked:
        parked.leave(connection, capture.call_id)
    inbox.delivered(connection, capture.provider, capture.message.event_key, now)
    return Recorded(accepted=True)


def is_recorded(connection: sa.Connection, provider: str, event_key: str) -> bool:
    """Whether any call has applied this event."""
    return _owner(connection, provider, event_key) is not None


def of_call(connection: sa.Connection, call_id: str) -> list[ResponseRow]:
    """Read the responses of a call: one, or none."""
    rows = connection.execute(sa.select(responses).where(responses.c.call_id == call_id))
    return [
        ResponseRow(**dict(row) | {"source": MessageSource(row["source"])})
        for row in rows.mappings()
    ]


def _insert_response(connection: sa.Connection, capture: CaptureResult, now: datetime) -> bool:
    row = {
        "call_id": capture.call_id,
        "provider": capture.provider,
        "operation": capture.operation,
        "cycle": capture.cycle,
        "event_key": capture.message.event_key,
        "data": capture.message.data,
        "source": capture.message.source,
        "received_at": capture.message.received_at,
        "recorded_at": now,
    }
    return insert_new(connection, responses, row)


def _insert_event_key(connection: sa.Connection, capture: CaptureResult, now: datetime) -> bool:
    row = {
        "provider": capture.provider,
        "event_key": capture.message.event_key,
        "call_id": capture.call_id,
        "recorded_at": now,
    }
    return insert_new(connection, event_keys, row)


def _compare(connection: sa.Connection, capture: CaptureResult, now: datetime) -> Recorded:
    """A response stands: this very one when a step is repeated, or another one."""
    standing = connection.execute(
        sa.select(responses.c.event_key).where(responses.c.call_id == capture.call_id)
    ).scalar_one()
    if standing == capture.message.event_key:
        return Recorded(accepted=True, repeated=True)
    return _refuse(connection, capture, "another response stands for this call", now)


def _refuse(
    connection: sa.Connection, capture: CaptureResult, reason: str, now: datetime
) -> Recorded:
    entry = suppressed_log.LogEntry(
        LogKind.SUPPRESSED, capture.provider, capture.message.event_key, capture.call_id, reason
    )
    suppressed_log.note(connection, entry, now)
    return Recorded(accepted=False, reason=reason)


def _owner(connection: sa.Connection, provider: str, event_key: str) -> str | None:
    return connection.execute(
        sa.select(event_keys.c.call_id).where(
            event_keys.c.provider == provider, event_keys.c.event_key == event_key
        )
    ).scalar_one_or_none()
