"""Purge: deletes what is over and expired, in small transactions.

A purge goes through every table once, in the order of its primary key, some hundred rows at a time.
The ledger is consistent between two transactions, so it may stop anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import sqlalchemy as sa

from ackbridge.clock import Clock
from ackbridge.contracts.calls import Stage
from ackbridge.contracts.messages import MessageSource
from ackbridge.contracts.purge import KEEP_FOREVER, PurgeCursor, PurgePageResult, Retention

from .batches import ParkedState
from .bodies import ObjectStore, object_errors
from .database.engines import Database, Store, reads, writes
from .database.tables import (
    acknowledgements,
    batch_calls,
    bodies,
    calls,
    correlations,
    event_keys,
    inbox,
    log,
    notices,
    parked,
    responses,
)
from .inbox import InboxState
from .notices import NoticeState

PAGE_ROWS: Final = 500
"""How many rows one transaction looks at, at most."""

Condition: TypeAlias = sa.ColumnElement[bool]
_Key: TypeAlias = tuple[str | int, ...]
_ENDED: Final = (Stage.COMPLETED.value, Stage.FAILED.value, Stage.CANCELLED.value)


@dataclass(frozen=True)
class _Kind:
    """Rows with one retention.

    Attributes:
        name: of its field in `Retention`, except `bodies`, which expire as calls do.
        age: the time from which the age of a row counts.
        is_over: which rows may be deleted once they have expired at this time.
    """

    name: str
    table: sa.Table
    age: sa.Column[datetime]
    is_over: Callable[[datetime], Condition]

    @property
    def key(self) -> tuple[sa.ColumnElement[object], ...]:
        """The primary key as it is stored: unescaped texts are not in the order of the index."""
        return tuple(
            column if isinstance(column.type, sa.Integer) else sa.type_coerce(column, sa.Text)
            for column in self.table.primary_key.columns
        )

    def after(self, key: _Key) -> Condition:
        return sa.tuple_(*self.key) > sa.tuple_(*key) if key else sa.true()

    def until(self, key: _Key | None) -> Condition:
        return sa.true() if key is None else sa.tuple_(*self.key) <= sa.tuple_(*key)

    def expired(self, since: datetime) -> Condition:
        return sa.and_(self.age < since, self.is_over(since))


class LedgerPurge(Store):
    """Deletes expired rows, a page at a time, and the bodies in an object store with them."""

    def __init__(
        self, database: Database, clock: Clock, objects: ObjectStore | None = None
    ) -> None:
        super().__init__(database, clock)
        self._objects = objects

    async def page(
        self,
        retention: Retention,
        as_of: datetime | None = None,
        place: PurgeCursor | None = None,
        *,
        dry_run: bool = False,
        rows: int = PAGE_ROWS,
    ) -> PurgePageResult:
        """Look at some rows, and delete those that are over and expired, in one transaction.

        Args:
            as_of: the time at which ages are computed; None: now.
            place: where the previous page ended; None: at the beginning.
            dry_run: only count what would be deleted.
            rows: how many to look at.
        """
        now = as_of or self.clock()
        kind = _KINDS[place.kind] if place else next(iter(_KINDS.values()))
        kept: timedelta = getattr(retention, "calls" if kind.table is bodies else kind.name)
        if kept == KEEP_FOREVER:
            return PurgePageResult(as_of=now, place=_next_cursor(kind, None), gone={})
        expired, after = kind.expired(now - kept), place.after if place else ()
        last, number = await self._look(kind, expired, after, rows)
        if number and not dry_run:
            page = sa.and_(expired, kind.after(after), kind.until(last))
            await self._delete_objects(kind, page)
            number = await self._delete(kind, page)
        gone = {kind.name: number} if number else {}
        return PurgePageResult(as_of=now, place=_next_cursor(kind, last), gone=gone)

    @reads
    def _look(
        self, connection: sa.Connection, kind: _Kind, expired: Condition, after: _Key, rows: int
    ) -> tuple[_Key | None, int]:
        """The key of the page's last row, None in the last page; and how many rows are expired."""
        in_page = kind.after(after)
        query = sa.select(*kind.key).where(in_page).order_by(*kind.key).offset(rows - 1).limit(1)
        last = connection.execute(query).one_or_none()
        until = tuple(last) if last else None
        count = sa.select(sa.func.count()).select_from(kind.table)
        number = connection.execute(count.where(in_page, kind.until(until), expired)).scalar_one()
        return until, int(number)

    async def _delete_objects(self, kind: _Kind, which: Condition) -> None:
        """Delete the objects of bodies before their rows, so that none is forgotten."""
        if self._objects is None or kind.table not in (calls, bodies):
            return
        with object_errors():
            await self._objects.delete(await self._locations(kind, which))

    @reads
    def _locations(self, connection: sa.Connection, kind: _Kind, which: Condition) -> list[str]:
        if kind.table is calls:
            which = bodies.c.call_id.in_(sa.select(calls.c.call_id).where(which))
        query = sa.select(bodies.c.location).where(which, bodies.c.location.is_not(None))
        return list(connection.execute(query).scalars())

    @writes
    def _delete(self, connection: sa.Connection, kind: _Kind, which: Condition) -> int:
        if kind.table is calls:
            return _delete_calls(connection, which)
        return connection.execute(kind.table.delete().where(which)).rowcount


def _delete_calls(connection: sa.Connection, which: Condition) -> int:
    """Delete calls with their claim, outcome and everything that is found by their id.

    Event keys that we made up go, too: a new call with the same id would make the same ones. Event
    keys of providers stay in the duplicate index.
    """
    # In one order, and locked: a concurrent claim waits, and then finds the id free.
    query = sa.select(calls.c.call_id).where(which).order_by(calls.c.call_id).with_for_update()
    ids = list(connection.execute(query).scalars())
    stored = sa.type_coerce(responses.c.event_key, sa.Text)
    ours = sa.select(responses.c.provider, responses.c.event_key).where(
        responses.c.call_id.in_(ids),
        responses.c.source != MessageSource.CALLBACK.value,
        # An operator may send a provider's own event as a signal; such a key is not ours.
        stored.like(responses.c.source + ":%"),
    )
    event = sa.tuple_(event_keys.c.provider, event_keys.c.event_key)
    connection.execute(event_keys.delete().where(event.in_(ours)))
    for table in (responses, bodies, correlations, acknowledgements, log, notices, parked, calls):
        connection.execute(table.delete().where(table.c.call_id.in_(ids)))
    return len(ids)


def _next_cursor(kind: _Kind, last: _Key | None) -> PurgeCursor | None:
    if last is not None:
        return PurgeCursor(kind=kind.name, after=last)
    names = list(_KINDS)
    following = names[names.index(kind.name) + 1 :]
    return PurgeCursor(kind=following[0]) if following else None


def _is_call_over(since: datetime) -> Condition:
    """Calls that have ended, owe no acknowledgement, and have nothing pending for operators."""
    has_ended = sa.and_(calls.c.stage.in_(_ENDED), calls.c.outcome.is_not(sa.null()))
    is_gone = sa.exists().where(
        parked.c.call_id == calls.c.call_id,
        parked.c.state == ParkedState.GONE.value,
        parked.c.taken_at < since,
    )
    owes = sa.exists().where(
        acknowledgements.c.call_id == calls.c.call_id, acknowledgements.c.is_owed
    )
    has_messages = sa.exists().where(
        inbox.c.provider == calls.c.provider,
        inbox.c.call_id == calls.c.call_id,
        inbox.c.state.in_((InboxState.PENDING.value, InboxState.HELD.value)),
    )
    has_notices = sa.exists().where(
        notices.c.call_id == calls.c.call_id,
        (notices.c.state != NoticeState.DELIVERED.value) | (notices.c.updated_at >= since),
    )
    return sa.and_(sa.or_(has_ended, is_gone), ~owes, ~has_messages, ~has_notices)


def _without_call(column: sa.Column[str]) -> Callable[[datetime], Condition]:
    """Rows whose call is deleted; those of an id that was used again stay as long as its call."""
    return lambda _since: ~sa.exists().where(calls.c.call_id == column)


def _in(column: sa.Column[str], *states: str) -> Callable[[datetime], Condition]:
    return lambda _since: column.in_(states)


def _always(_since: datetime) -> Condition:
    return sa.true()


_SETTLED = _in(
    inbox.c.state,
    *(state.value for state in InboxState if state not in (InboxState.PENDING, InboxState.HELD)),
)
_HELD = _in(inbox.c.state, InboxState.HELD.value)
_DELIVERED = _in(notices.c.state, NoticeState.DELIVERED.value)
_DEAD = _in(notices.c.state, NoticeState.DEAD.value)

_KINDS: Final = {
    kind.name: kind
    for kind in (
        _Kind("inbox", inbox, inbox.c.settled_at, _SETTLED),
        _Kind("held", inbox, inbox.c.settled_at, _HELD),
        _Kind("notices", notices, notices.c.settled_at, _DELIVERED),
        _Kind("dead_notices", notices, notices.c.settled_at, _DEAD),
        _Kind("log", log, log.c.last_at, _always),
        _Kind("batches", batch_calls, batch_calls.c.ended_at, _always),
        _Kind("calls", calls, calls.c.updated_at, _is_call_over),
        _Kind("bodies", bodies, bodies.c.stored_at, _without_call(bodies.c.call_id)),
        _Kind("events", event_keys, event_keys.c.recorded_at, _without_call(event_keys.c.call_id)),
    )
}
"""In this order: a call is deleted after what keeps it."""
