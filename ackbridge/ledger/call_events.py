"""What a page shows of calls: the newest event of each, for those that follow them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ackbridge.contracts.calls import (
    CallOutcome,
    Effect,
    Notice,
    NoticeStatus,
    OutcomeCode,
)

from .database.engines import Store, reads
from .database.tables import Key, calls


@dataclass(frozen=True)
class CallEvent:
    """What a user is shown of a call.

    Attributes:
        number: from 1, by one more each time that this changes.
        late: the call is completed, after something else was shown or a delay was reported.
        effect, code: as in the outcome; of a parked call, what is known so far.
        notice: None: the built-in text.
        at: when it was stored.
    """

    call_id: str
    number: int
    status: NoticeStatus
    late: bool
    effect: Effect | None
    code: OutcomeCode | None
    notice: Notice | None
    at: datetime


class CallEventStore(Store):
    """The newest events of calls. Each query is one statement, however many calls it is about."""

    @reads
    def numbers(self, connection: sa.Connection, call_ids: Sequence[str]) -> dict[str, int]:
        """The numbers of the newest events of these calls, of those that have any."""
        query = _numbers(connection.dialect.name)
        rows = connection.execute(query, {"ids": _ids(connection, call_ids)})
        return {row.call_id: row.event_number for row in rows}

    @reads
    def newest(self, connection: sa.Connection, call_ids: Sequence[str]) -> list[CallEvent]:
        """The newest events of these calls, of those that have any."""
        query = _newest(connection.dialect.name)
        rows = connection.execute(query, {"ids": _ids(connection, call_ids)})
        found = []
        for row in rows.mappings():
            try:
                found.append(_event(row))
            except ValueError:
                # Of a newer version, whose call must not keep the others from their events.
                log.warning("%s: its event cannot be read", row["call_id"])
        return found


log = logging.getLogger(__name__)

_KEY: Final = Key()


def _ids(connection: sa.Connection, call_ids: Sequence[str]) -> Any:
    stored = [_KEY.process_bind_param(one, connection.dialect) for one in call_ids]
    return json.dumps(stored) if connection.dialect.name == "sqlite" else stored


def _is_asked_for(dialect: str) -> sa.ColumnElement[bool]:
    """One parameter for all ids: a list of parameters would be another statement each time."""
    stored = sa.type_coerce(calls.c.call_id, sa.Text)
    has_event = calls.c.event_number > 0
    if dialect == "sqlite":
        listed = sa.func.json_each(sa.bindparam("ids", type_=sa.Text)).table_valued("value")
        return sa.and_(stored.in_(sa.select(listed.c.value)), has_event)
    listed_ids = sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text))
    return sa.and_(stored == sa.any_(listed_ids), has_event)


@cache
def _numbers(dialect: str) -> sa.Select[Any]:
    return sa.select(calls.c.call_id, calls.c.event_number).where(_is_asked_for(dialect))


@cache
def _newest(dialect: str) -> sa.Select[Any]:
    columns = ("call_id", "event_number", "event", "event_at", "notice", "outcome")
    query = sa.select(*(calls.c[name] for name in columns), calls.c.effect, calls.c.code)
    return query.where(_is_asked_for(dialect))


def _event(row: sa.RowMapping) -> CallEvent:
    status = NoticeStatus(row["event"].partition(":")[0])
    notice = row["notice"] and Notice.model_validate(row["notice"])
    late = False
    if row["outcome"] is not None and status is not NoticeStatus.DELAYED:
        outcome = CallOutcome.model_validate(row["outcome"])
        notice = notice or outcome.notice
        is_completed = status is NoticeStatus.COMPLETED
        late = is_completed and (outcome.late or row["event_number"] > 1)
    return CallEvent(
        call_id=row["call_id"],
        number=row["event_number"],
        status=status,
        late=late,
        effect=row["effect"] and Effect(row["effect"]),
        code=row["code"] and _code(row["code"]),
        notice=notice,
        at=row["event_at"],
    )


def _code(stored: str) -> OutcomeCode | None:
    """Parked calls may have reasons that are no codes of outcomes."""
    return OutcomeCode(stored) if stored in set(OutcomeCode) else None
