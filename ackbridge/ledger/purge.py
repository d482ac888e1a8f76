"""Housekeeping: what is over and old leaves the ledger, in small transactions.

A clean-up walks every table once, in the order of its primary key, some hundred rows at a time.
Whatever stands between two transactions is consistent, so it may end anywhere.
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
from ackbridge.ledger.database.tables import (
    acknowledgements,
    batch_calls,
    calls,
    correlations,
    event_keys,
    inbox,
    log,
    notices,
    parked,
    responses,
)
from ackbridge.ledger.database.transactions import Database

from .parked import ParkedState
from .rows import InboxState, NoticeState

ROWS: Final = 500
"""How many rows one transaction looks at, at the most."""

Condition: TypeAlias = sa.ColumnElement[bool]
_ENDED: Final = (Stage.COMPLETED.value, Stage.FAILED.value, Stage.CANCELLED.value)


@dataclass(frozen=True)
class _Kind:
    """What is kept for one span.

    Attributes:
        name: of its field in `Retention`.
        age: the time from which its age is counted.
        goes: which rows go that are older than this; those that protect something do not.
    """

    name: str
    table: sa.Table
    age: sa.Column[datetime]
    goes: Callable[[datetime], Condition]

    @property
    def key(self) -> tuple[sa.ColumnElement[object], ...]:
        """The primary key as it is stored: what an escaped text stands for is no order."""
        return tuple(
            column if isinstance(column.type, sa.Integer) else sa.type_coerce(column, sa.Text)
            for column in self.table.primary_key.columns
        )

    def beyond(self, after: tuple[str | int, ...]) -> Condition:
        """The rows after this one."""
        return sa.tuple_(*self.key) > sa.tuple_(*after) if after else sa.true()

    def until(self, last: tuple[str | int, ...] | None) -> Condition:
        """The rows up to this one."""
        return sa.true() if last is None else sa.tuple_(*self.key) <= sa.tuple_(*last)

    def old(self, since: datetime) -> Condition:
        """The rows that go."""
        return sa.and_(self.age < since, self.goes(since))


class Purging:
    """The part of the ledger that forgets; every method may be repeated."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self,
        retention: Retention,
        as_of: datetime | None = None,
        place: PurgeCursor | None = None,
        *,
        dry_run: bool = False,
        rows: int = ROWS,
    ) -> PurgePageResult:
        """Look at some rows, and delete those of them that are over and old, in one transaction.

        Args:
            as_of: from when ages are counted; None: from now.
            place: where the page before has ended; None: at the beginning.
            dry_run: count what would be deleted.
            rows: how many to look at.
        """
        now = as_of or self._clock()
        kind = _KINDS[place.kind] if place else next(iter(_KINDS.values()))
        kept: timedelta = getattr(retention, kind.name)
        if kept == KEEP_FOREVER:
            return PurgePageResult(as_of=now, place=_next(kind, None), gone={})
        old, after = kind.old(now - kept), place.after if place else ()
        last, number = await self._database.read(_look, kind, old, after, rows)
        if number and not dry_run:
            here = sa.and_(old, kind.beyond(after), kind.until(last))
            number = await self._database.write(_delete, kind, here)
        gone = {kind.name: number} if number else {}
        return PurgePageResult(as_of=now, place=_next(kind, last), gone=gone)


def _look(
    connection: sa.Connection,
    kind: _Kind,
    old: Condition,
    after: tuple[str | int, ...],
    rows: int,
) -> tuple[tuple[str | int, ...] | None, int]:
    """The key of the page's last row, None in the last page, and how many rows of it go."""
    beyond = kind.beyond(after)
    last = connection.execute(
        sa.select(*kind.key).where(beyond).order_by(*kind.key).offset(rows - 1).limit(1)
    ).one_or_none()
    until = tuple(last) if last else None
    count = sa.select(sa.func.count()).select_from(kind.table)
    number = connection.execute(count.where(beyond, kind.until(until), old)).scalar_one()
    return until, int(number)


def _delete(connection: sa.Connection, kind: _Kind, which: Condition) -> int:
    if kind.table is calls:
        return _forget_calls(connection, which)
    return connection.execute(kind.table.delete().where(which)).rowcount


def _forget_calls(connection: sa.Connection, which: Condition) -> int:
    """Calls whole: the claim goes with its outcome and with everything that is found by its id.

    What a new call with the same id would do again has made the same keys for it: those of our own
    making go, too. The events that providers have named stay in the duplicate index.
    """
    # In one order, and locked, so that whoever claims one of them waits and then finds it free.
    query = sa.select(calls.c.call_id).where(which).order_by(calls.c.call_id).with_for_update()
    ids = list(connection.execute(query).scalars())
    stored = sa.type_coerce(responses.c.event_key, sa.Text)
    ours = sa.select(responses.c.provider, responses.c.event_key).where(
        responses.c.call_id.in_(ids),
        responses.c.source != MessageSource.CALLBACK.value,
        # Somebody may hand over a provider's own event by a signal; such a key is not ours.
        stored.like(responses.c.source + ":%"),
    )
    named = sa.tuple_(event_keys.c.provider, event_keys.c.event_key)
    connection.execute(event_keys.delete().where(named.in_(ours)))
    for table in (responses, correlations, acknowledgements, log, notices, parked, calls):
        connection.execute(table.delete().where(table.c.call_id.in_(ids)))
    return len(ids)


def _next(kind: _Kind, last: tuple[str | int, ...] | None) -> PurgeCursor | None:
    if last is not None:
        return PurgeCursor(kind=kind.name, after=last)
    names = list(_KINDS)
    following = names[names.index(kind.name) + 1 :]
    return PurgeCursor(kind=following[0]) if following else None


def _is_over(since: datetime) -> Condition:
    """Calls that are over, owe nothing, and about which nobody has anything left to do."""
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
    tells = sa.exists().where(
        notices.c.call_id == calls.c.call_id,
        (notices.c.state != NoticeState.DELIVERED.value) | (notices.c.updated_at >= since),
    )
    return sa.and_(sa.or_(has_ended, is_gone), ~owes, ~has_messages, ~tells)


def _is_unclaimed(_since: datetime) -> Condition:
    """Events whose call is forgotten; those of an id that was used again stay as long as it."""
    return ~sa.exists().where(calls.c.call_id == event_keys.c.call_id)


def _in(column: sa.Column[str], *states: str) -> Callable[[datetime], Condition]:
    return lambda _since: column.in_(states)


def _every(_since: datetime) -> Condition:
    return sa.true()


_SETTLED = _in(inbox.c.state, InboxState.DELIVERED.value, InboxState.DUPLICATE.value)
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
        _Kind("log", log, log.c.last_at, _every),
        _Kind("batches", batch_calls, batch_calls.c.ended_at, _every),
        _Kind("calls", calls, calls.c.updated_at, _is_over),
        _Kind("events", event_keys, event_keys.c.recorded_at, _is_unclaimed),
    )
}
"""In this order: a call goes after what people had to look at."""
