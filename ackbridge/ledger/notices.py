"""Notices to subscribers: what is on its way, what has arrived, and what could not be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.clock import Clock
from ackbridge.contracts.deliveries import Delivery, NoticeBody
from ackbridge.ledger.database.tables import notices
from ackbridge.ledger.database.transactions import Database
from ackbridge.ledger.database.upserts import upsert

from .rows import NoticeRow, NoticeState


class Notices:
    """The part of the ledger that knows of notices; a dead one stays until somebody replays it.

    Every method is one transaction and may be repeated, as those of `Ledger`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def take_up(self, delivery: Delivery) -> datetime | None:
        """Keep a notice as pending, and count one more attempt.

        Returns:
            When it was delivered before; then nothing changes, unless it shall be sent again.
        """
        return await self._database.write(_take_up, delivery, self._clock())

    async def delivered(self, event_id: str, at: datetime) -> None:
        """The subscriber has accepted it."""
        values = {"state": NoticeState.DELIVERED, "reason": None, "settled_at": at}
        await self._database.write(_update, event_id, values, self._clock())

    async def not_accepted(self, event_id: str, reason: str) -> None:
        """An attempt has failed; there will be others."""
        await self._database.write(_update, event_id, {"reason": reason}, self._clock())

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """It will not be tried any more; one that was delivered meanwhile stays so."""
        await self._database.write(_bury, delivery, reason, self._clock())

    async def find(
        self,
        *,
        subscriber: str | None = None,
        state: NoticeState | None = None,
        event_id: str | None = None,
        limit: int = 100,
    ) -> list[NoticeRow]:
        """Notices, the oldest first.

        Args:
            subscriber, state, event_id: only those; None for all.
        """
        wanted = {"subscriber": subscriber, "state": state, "event_id": event_id}
        return await self._database.read(_find, wanted, limit)


def _take_up(connection: sa.Connection, delivery: Delivery, now: datetime) -> datetime | None:
    if not delivery.again and (before := _delivered_at(connection, delivery.body.id)):
        return before
    row = _row(delivery, now) | {"state": NoticeState.PENDING, "attempts": 1}
    connection.execute(_taken_up(connection.dialect.name), row)
    return None


def _bury(connection: sa.Connection, delivery: Delivery, reason: str, now: datetime) -> None:
    row = _row(delivery, now) | {
        "state": NoticeState.DEAD,
        "reason": reason,
        "attempts": 0,
        "settled_at": now,
    }
    connection.execute(_buried(connection.dialect.name), row)


def _update(
    connection: sa.Connection, event_id: str, values: Mapping[str, object], now: datetime
) -> None:
    changed = notices.update().where(notices.c.event_id == event_id)
    connection.execute(changed.values(updated_at=now, **values))


def _find(
    connection: sa.Connection, wanted: Mapping[str, str | None], limit: int
) -> list[NoticeRow]:
    query = sa.select(notices)
    for column, value in wanted.items():
        if value is not None:
            query = query.where(notices.c[column] == value)
    rows = connection.execute(query.order_by(*_BY_AGE).limit(limit))
    return [_read(row) for row in rows.mappings()]


def _delivered_at(connection: sa.Connection, event_id: str) -> datetime | None:
    query = sa.select(notices.c.settled_at).where(
        notices.c.event_id == event_id, notices.c.state == NoticeState.DELIVERED
    )
    found: datetime | None = connection.execute(query).scalar_one_or_none()
    return found


def _row(delivery: Delivery, now: datetime) -> dict[str, Any]:
    body = delivery.body
    return {
        "event_id": body.id,
        "subscriber": delivery.subscriber,
        "call_id": body.data.call_id,
        "type": body.type,
        "body": body.model_dump(mode="json"),
        "happened_at": body.timestamp,
        "updated_at": now,
    }


def _read(row: sa.RowMapping) -> NoticeRow:
    return NoticeRow(
        event_id=row["event_id"],
        subscriber=row["subscriber"],
        call_id=row["call_id"],
        type=row["type"],
        body=NoticeBody.model_validate(row["body"]),
        state=NoticeState(row["state"]),
        reason=row["reason"],
        attempts=row["attempts"],
        happened_at=row["happened_at"],
        updated_at=row["updated_at"],
        settled_at=row["settled_at"],
    )


@cache
def _taken_up(dialect: str) -> sa.Insert:
    statement = upsert(dialect, notices)
    return statement.on_conflict_do_update(
        index_elements=[notices.c.event_id],
        set_={
            "state": statement.excluded.state,
            "attempts": notices.c.attempts + 1,
            "settled_at": None,
            "updated_at": statement.excluded.updated_at,
        },
    )


@cache
def _buried(dialect: str) -> sa.Insert:
    statement = upsert(dialect, notices)
    known = ("state", "reason", "settled_at", "updated_at")
    return statement.on_conflict_do_update(
        index_elements=[notices.c.event_id],
        set_={name: statement.excluded[name] for name in known},
        where=notices.c.state == NoticeState.PENDING,
    )


_BY_AGE: Final = (notices.c.happened_at, notices.c.event_id)
