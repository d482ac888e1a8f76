"""Parked calls: written by the calls themselves, selected oldest first."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts import names
from ackbridge.contracts.batches import ParkedSelection
from ackbridge.contracts.steps import Parking
from ackbridge.ledger.database.tables import parked
from ackbridge.ledger.database.upserts import upsert

from .rows import ParkedCall, ParkedCount

UNKNOWN: Final = "unknown"
"""The reason of calls that older workers have parked."""


class ParkedState(StrEnum):
    """Where a row of `parked` stands.

    Attributes:
        WAITING: its call may be taken.
        MARKED: a batch has it, and has not told it yet.
        TAKEN: it was told, and has neither ended nor been parked again.
        GONE: the engine knows no such open call; it is kept for people.
    """

    WAITING = "waiting"
    MARKED = "marked"
    TAKEN = "taken"
    GONE = "gone"


def park(connection: sa.Connection, call_id: str, parking: Parking | None, now: datetime) -> None:
    """A call is parked; the same parking again changes nothing."""
    provider, operation, key = names.split_call_id(call_id)
    row = {
        "call_id": call_id,
        "provider": provider,
        "operation": operation,
        "key": key,
        "reason": parking.reason if parking else UNKNOWN,
        "times": parking.times if parking else 1,
        "parked_at": now,
        "state": ParkedState.WAITING,
        "batch": None,
        "taken_at": None,
    }
    is_counted = parking is not None
    connection.execute(_park(connection.dialect.name, is_counted=is_counted), row)


def leave(connection: sa.Connection, call_id: str) -> None:
    """A call has ended."""
    connection.execute(_LEAVE, {"which": call_id})


def waiting(
    connection: sa.Connection, selection: ParkedSelection, limit: int, now: datetime
) -> list[ParkedCall]:
    """The calls that a batch would take, in its order."""
    query = selected(selection, now).order_by(*OLDEST_FIRST).limit(limit)
    return [
        ParkedCall(row.call_id, row.operation, row.reason, row.times, row.parked_at)
        for row in connection.execute(query)
    ]


def count(
    connection: sa.Connection, selection: ParkedSelection, now: datetime
) -> list[ParkedCount]:
    """How many calls a batch would take, by operation and reason."""
    kinds = (parked.c.operation, parked.c.reason)
    oldest = sa.func.min(parked.c.parked_at, type_=parked.c.parked_at.type)
    query = selected(selection, now).with_only_columns(*kinds, sa.func.count(), oldest)
    rows = connection.execute(query.group_by(*kinds).order_by(*kinds))
    return [ParkedCount(*row) for row in rows]


def selected(selection: ParkedSelection, as_of: datetime) -> sa.Select[tuple[object, ...]]:
    """The rows of calls that wait and are selected."""
    until = as_of - (selection.older_than or timedelta(0))
    wanted = [
        parked.c.provider == selection.provider,
        parked.c.state == ParkedState.WAITING,
        parked.c.parked_at <= until,
    ]
    if selection.operation is not None:
        wanted.append(parked.c.operation == selection.operation)
    if selection.reason is not None:
        wanted.append(parked.c.reason == selection.reason)
    if selection.keys:
        wanted.append(parked.c.key.in_(selection.keys))
    return sa.select(parked).where(*wanted)


OLDEST_FIRST = (parked.c.parked_at, parked.c.call_id)
_LEAVE = parked.delete().where(parked.c.call_id == sa.bindparam("which"))


@cache
def _park(dialect: str, *, is_counted: bool) -> sa.Insert:
    statement = upsert(dialect, parked)
    new = statement.excluded
    again: dict[str, Any] = {
        name: new[name] for name in ("parked_at", "state", "batch", "taken_at")
    }
    if is_counted:
        again |= {"reason": new.reason, "times": new.times}
        is_news = parked.c.times != new.times
    else:
        again |= {"times": parked.c.times + 1}
        is_news = parked.c.state != ParkedState.WAITING.value
    return statement.on_conflict_do_update(
        index_elements=[parked.c.call_id], set_=again, where=is_news
    )
