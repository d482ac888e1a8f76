"""Notices to subscribers: pending, delivered, and dead ones that could not be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa

from ackbridge.contracts.calls import NoticeStatus
from ackbridge.contracts.deliveries import Delivery, EventData, NoticeBody

from .calls import show_delay
from .database.engines import Store, reads, upsert, writes
from .database.tables import calls, notices


class NoticeState(StrEnum):
    """The state of a notice.

    Attributes:
        PENDING: its delivery is being attempted.
        DELIVERED: the subscriber has accepted it.
        DEAD: it is no longer attempted, until an operator replays it.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class NoticeRow:
    """A notice to a subscriber, as it is stored.

    Attributes:
        body: the content; a response that is delivered with it is not stored here.
        reason: why the last attempt failed, or why it is dead.
        happened_at: the time of the event.
        settled_at: when it was delivered or given up.
    """

    event_id: str
    subscriber: str
    call_id: str
    type: str
    body: NoticeBody
    state: NoticeState
    reason: str | None
    attempts: int
    happened_at: datetime
    updated_at: datetime
    settled_at: datetime | None


class NoticeStore(Store):
    """Notices; a dead one stays until an operator replays it, or it expires."""

    @writes
    def start_attempt(self, connection: sa.Connection, delivery: Delivery) -> datetime | None:
        """Store a notice as pending, and count one more attempt.

        Returns:
            When it was delivered before; then nothing changes, unless it is to be sent again.
        """
        if not delivery.again and (before := _delivered_at(connection, delivery.body.id)):
            return before
        row = _row(delivery, self.clock()) | {"state": NoticeState.PENDING, "attempts": 1}
        _show_delay(connection, delivery.body, self.clock())
        connection.execute(_start_attempt(connection.dialect.name), row)
        return None

    @writes
    def mark_delivered(self, connection: sa.Connection, event_id: str, at: datetime) -> None:
        """The subscriber has accepted it."""
        values = {"state": NoticeState.DELIVERED, "reason": None, "settled_at": at}
        _update(connection, event_id, values, self.clock())

    @writes
    def record_failure(self, connection: sa.Connection, event_id: str, reason: str) -> None:
        """An attempt has failed, and is retried."""
        _update(connection, event_id, {"reason": reason}, self.clock())

    @writes
    def mark_dead(self, connection: sa.Connection, delivery: Delivery, reason: str) -> None:
        """It is no longer attempted; one that was delivered meanwhile does not change."""
        now = self.clock()
        row = _row(delivery, now) | {
            "state": NoticeState.DEAD,
            "reason": reason,
            "attempts": 0,
            "settled_at": now,
        }
        connection.execute(_mark_dead(connection.dialect.name), row)

    @reads
    def find(
        self,
        connection: sa.Connection,
        *,
        subscriber: str | None = None,
        state: NoticeState | None = None,
        event_id: str | None = None,
        limit: int = 100,
    ) -> list[NoticeRow]:
        """Notices, oldest first, filtered by what is given."""
        query = sa.select(notices)
        filters = {"subscriber": subscriber, "state": state, "event_id": event_id}
        for column, value in filters.items():
            if value is not None:
                query = query.where(notices.c[column] == value)
        query = query.order_by(notices.c.happened_at, notices.c.event_id).limit(limit)
        return [_notice(row) for row in connection.execute(query).mappings()]


def _update(
    connection: sa.Connection, event_id: str, values: Mapping[str, object], now: datetime
) -> None:
    statement = notices.update().where(notices.c.event_id == event_id)
    connection.execute(statement.values(updated_at=now, **values))


def _show_delay(connection: sa.Connection, body: NoticeBody, now: datetime) -> None:
    """Let pages show a delay of a call that is not parked, which the ledger learns only now."""
    if isinstance(body.data, EventData) or body.data.status is not NoticeStatus.DELAYED:
        return
    known = sa.select(notices.c.event_id).where(notices.c.event_id == body.id)
    if connection.execute(known).first() is not None:
        return
    query = sa.select(calls.c.event_at).where(
        calls.c.call_id == body.data.call_id, calls.c.outcome.is_(None)
    )
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is not None and (row.event_at is None or row.event_at <= body.timestamp):
        show_delay(connection, body.data.call_id, now, body.data.notice)


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
        "call_id": body.data.call_id or "",
        "type": body.type,
        "body": body.model_dump(mode="json"),
        "happened_at": body.timestamp,
        "updated_at": now,
    }


def _notice(row: sa.RowMapping) -> NoticeRow:
    read = {"body": NoticeBody.model_validate(row["body"]), "state": NoticeState(row["state"])}
    return NoticeRow(**dict(row) | read)


@cache
def _start_attempt(dialect: str) -> sa.Insert:
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
def _mark_dead(dialect: str) -> sa.Insert:
    statement = upsert(dialect, notices)
    columns = ("state", "reason", "settled_at", "updated_at")
    return statement.on_conflict_do_update(
        index_elements=[notices.c.event_id],
        set_={name: statement.excluded[name] for name in columns},
        where=notices.c.state == NoticeState.PENDING,
    )
