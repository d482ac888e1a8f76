"""The inbox: messages that wait for their call, or for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.database.tables import inbox
from ackbridge.ledger.database.upserts import insert_new, upsert

from .rows import HeldEntry, InboxEntry, InboxState, StoredEntry

FIRST_BACKOFF: Final = timedelta(seconds=1)
LONGEST_BACKOFF: Final = timedelta(minutes=5)


def keep(connection: sa.Connection, entry: InboxEntry) -> bool:
    """Keep a message once; see `Ledger.keep`."""
    return insert_new(connection, inbox, _row(entry))


def hold(connection: sa.Connection, entry: InboxEntry, reason: str, now: datetime) -> None:
    """Keep a message for people, also one that has been waiting; what is settled stays so."""
    row = _row(entry) | {"state": InboxState.HELD, "reason": reason, "settled_at": now}
    statement = upsert(connection.dialect.name, inbox).values(row)
    # Its call has read it by now, which the row of one that waited need not have.
    known = ("operation", "call_id", "message", "state", "reason", "settled_at")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[inbox.c.provider, inbox.c.event_key],
            set_={name: statement.excluded[name] for name in known},
            where=inbox.c.state == InboxState.PENDING,
        )
    )


def held(connection: sa.Connection, provider: str | None, limit: int) -> list[HeldEntry]:
    """What is kept for people, oldest first; see `Ledger.held`."""
    query = sa.select(inbox).where(inbox.c.state == InboxState.HELD)
    if provider is not None:
        query = query.where(inbox.c.provider == provider)
    rows = connection.execute(query.order_by(inbox.c.settled_at, inbox.c.id).limit(limit))
    return [
        HeldEntry(row["id"], _entry(row), row["reason"], row["settled_at"])
        for row in rows.mappings()
    ]


def _row(entry: InboxEntry) -> dict[str, Any]:
    return {
        "provider": entry.provider,
        "event_key": bounded("event_key", entry.event_key),
        "operation": entry.operation,
        "call_id": entry.call_id,
        "reference": entry.reference and bounded("reference", entry.reference),
        "message": entry.message and entry.message.model_dump(mode="json"),
        "document": entry.document,
        "received_at": entry.received_at,
        "state": InboxState.PENDING,
        "attempts": 0,
        "next_try_at": entry.received_at,
    }


def waiting(
    connection: sa.Connection, provider: str, call_id: str, reference: str | None
) -> list[StoredEntry]:
    """Pending entries for a call, oldest first; see `Ledger.waiting`."""
    key = {"whose": provider, "which": call_id, "known_as": reference}
    return [_stored(row) for row in connection.execute(_WAITING, key).mappings()]


def due(
    connection: sa.Connection, older_than: timedelta, limit: int, now: datetime
) -> list[StoredEntry]:
    """Pending entries whose next try has come, oldest first; see `Ledger.due`."""
    conditions = (inbox.c.next_try_at <= now, inbox.c.received_at <= now - older_than)
    rows = connection.execute(_PENDING.where(*conditions).limit(limit))
    return [_stored(row) for row in rows.mappings()]


def settle(
    connection: sa.Connection,
    ids: Sequence[int],
    state: InboxState,
    reason: str | None,
    now: datetime,
) -> None:
    """Close entries; what is delivered or a duplicate stays so."""
    connection.execute(
        inbox.update()
        .where(inbox.c.id.in_(ids), inbox.c.state.in_([InboxState.PENDING, InboxState.HELD]))
        .values(state=state, reason=reason, settled_at=now)
    )


def postpone(connection: sa.Connection, ids: Sequence[int], now: datetime) -> None:
    """Try again later, and later each time."""
    rows = connection.execute(sa.select(inbox.c.id, inbox.c.attempts).where(inbox.c.id.in_(ids)))
    tries: list[dict[str, Any]] = [
        {"row": row.id, "attempts": row.attempts + 1, "next_try_at": now + _backoff(row.attempts)}
        for row in rows
    ]
    if tries:
        connection.execute(inbox.update().where(inbox.c.id == sa.bindparam("row")), tries)


def delivered(connection: sa.Connection, provider: str, event_key: str, now: datetime) -> None:
    """The event has been applied: nobody needs to deliver it again."""
    row = {
        "which": event_key,
        "whose": provider,
        "state": InboxState.DELIVERED,
        "settled_at": now,
    }
    connection.execute(_DELIVERED, row)


def bounded(field: str, key: str) -> str:
    """A provider's id, if it is one.

    Raises:
        InvalidInputError: it is longer than any index takes.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidInputError(
            f"{field}: {len(key)} characters, at most {MAX_KEY_LENGTH} are allowed"
        )
    return key


def _backoff(attempts: int) -> timedelta:
    # Bounded before it is computed: 2 ** attempts outgrows a timedelta within hours.
    doubled: int = 2 ** min(attempts, 16)
    return min(FIRST_BACKOFF * doubled, LONGEST_BACKOFF)


def _stored(row: sa.RowMapping) -> StoredEntry:
    return StoredEntry(row["id"], _entry(row), row["attempts"])


def _entry(row: sa.RowMapping) -> InboxEntry:
    return InboxEntry(
        provider=row["provider"],
        event_key=row["event_key"],
        operation=row["operation"],
        call_id=row["call_id"],
        reference=row["reference"],
        message=row["message"] and ProviderMessage.model_validate(row["message"]),
        document=row["document"],
        received_at=row["received_at"],
    )


_PENDING = (
    sa.select(inbox)
    .where(inbox.c.state == InboxState.PENDING)
    .order_by(inbox.c.received_at, inbox.c.id)
)

# Statements of every call: building one costs as much as executing it.

_WAITING = _PENDING.where(
    inbox.c.provider == sa.bindparam("whose"),
    # A message that names a call is that call's only, whatever reference it carries.
    (inbox.c.call_id == sa.bindparam("which"))
    | (inbox.c.call_id.is_(None) & (inbox.c.reference == sa.bindparam("known_as"))),
)

_DELIVERED = inbox.update().where(
    inbox.c.provider == sa.bindparam("whose"),
    inbox.c.event_key == sa.bindparam("which"),
    inbox.c.state == sa.literal(InboxState.PENDING),
)
