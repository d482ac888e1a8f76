"""What relays and operators do with the rows of an outbox; each method is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.clock import Clock
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.limits import MAX_REASON_LENGTH
from ackbridge.contracts.wire import parse_argument
from ackbridge.ledger.database.engines import DatabaseName, Store, open_database, reads, writes

from .table import OUTBOX, PENDING, REJECTED, STARTED

NAME: Final = DatabaseName(
    "the outbox",
    "ACKBRIDGE_OUTBOX_URL",
    "it has no table yet: ackbridge outbox sql prints its definition",
    synchronous="FULL",
)

TIMEOUT: Final = timedelta(seconds=5)
"""Of one transaction."""

LEASE: Final = timedelta(seconds=15)
"""Rows of a relay that was killed are another's after this."""

DELETED_AT_ONCE: Final = 1000
"""Rows that one transaction deletes."""


@dataclass(frozen=True)
class OutboxRow:
    """A row that a relay has leased.

    Attributes:
        attempts: those that have failed.
    """

    id: int
    attempts: int
    fields: Mapping[str, Any]

    @property
    def call_id(self) -> str:
        return names.call_id(*(self.fields[name] for name in ("provider", "operation", "key")))

    def request(self) -> CallRequest:
        """The request; raises `InvalidInputError`, naming the field."""
        return parse_argument(CallRequest, (self.fields,))


@dataclass(frozen=True)
class ListedRow:
    """A row as operators see it, without what its caller has written."""

    id: int
    call_id: str
    state: str
    attempts: int
    created_at: datetime
    reason: str | None


@dataclass(frozen=True)
class OutboxDepth:
    """How much waits in an outbox.

    Attributes:
        pending: committed, and not started yet.
        lag: the age of the oldest of these.
        rejected: set aside, for an operator.
    """

    pending: int
    lag: timedelta
    rejected: int


class OutboxStore(Store):
    """The rows of one outbox, which several relays may share."""

    @reads
    def has_due(self, connection: sa.Connection) -> bool:
        """Whether there is something to lease; it costs an idle outbox no transaction."""
        query = sa.select(OUTBOX.c.id).where(_IS_PENDING, _is_due(self.clock())).limit(1)
        return connection.execute(query).first() is not None

    @writes
    def lease(self, connection: sa.Connection, limit: int) -> list[OutboxRow]:
        """Take the oldest rows that are due; nobody else gets them for the time of a `LEASE`."""
        now = self.clock()
        # SQLite has one writer at a time, and ignores the lock.
        query = (
            sa.select(OUTBOX)
            .where(_IS_PENDING, _is_due(now))
            .order_by(OUTBOX.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = [_row(found) for found in connection.execute(query)]
        if rows:
            leased = sa.update(OUTBOX).where(OUTBOX.c.id.in_([row.id for row in rows]))
            connection.execute(leased.values(due_at=now + LEASE))
        return rows

    @writes
    def store(
        self,
        connection: sa.Connection,
        started: Sequence[int],
        rejected: Mapping[int, str],
        postponed: Mapping[int, tuple[timedelta, str]],
    ) -> None:
        """Store what became of leased rows.

        Args:
            started: their calls exist. That holds whatever another relay has stored meanwhile.
            rejected: and why; for an operator.
            postponed: for how long, and why.
        """
        now = self.clock()
        if started:
            connection.execute(
                sa.update(OUTBOX)
                .where(OUTBOX.c.id.in_(started))
                .values(state=STARTED, ended_at=now, due_at=None, reason=None)
            )
        changes: list[tuple[int, dict[str, Any]]] = [
            (id_, {"state": REJECTED, "ended_at": now, "due_at": None, "reason": _bounded(reason)})
            for id_, reason in rejected.items()
        ]
        changes += [
            (id_, {"due_at": now + pause, "reason": _bounded(reason)})
            for id_, (pause, reason) in postponed.items()
        ]
        for id_, values in changes:
            connection.execute(
                sa.update(OUTBOX)
                .where(OUTBOX.c.id == id_, _IS_PENDING)
                .values(attempts=OUTBOX.c.attempts + 1, **values)
            )

    @writes
    def delete_started(self, connection: sa.Connection, keep: timedelta) -> int:
        """Delete rows whose calls were started so long ago; returns how many, if not all."""
        old = (
            sa.select(OUTBOX.c.id)
            .where(_IS_STARTED, OUTBOX.c.ended_at <= self.clock() - keep)
            .limit(DELETED_AT_ONCE)
        )
        return connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.id.in_(old))).rowcount

    @writes
    def retry(self, connection: sa.Connection, ids: Sequence[int] | None) -> int:
        """Make rejected rows pending again: these, or all; returns how many."""
        statement = sa.update(OUTBOX).where(_IS_REJECTED)
        if ids is not None:
            statement = statement.where(OUTBOX.c.id.in_(ids))
        again = statement.values(state=PENDING, attempts=0, ended_at=None, due_at=None)
        return connection.execute(again).rowcount

    @reads
    def depth(self, connection: sa.Connection) -> OutboxDepth:
        """Count what waits."""
        counts = sa.select(sa.func.count()).select_from(OUTBOX)
        first = sa.select(OUTBOX.c.created_at).where(_IS_PENDING).order_by(OUTBOX.c.id).limit(1)
        oldest = connection.scalar(first)
        lag = self.clock() - _aware(oldest) if oldest else timedelta(0)
        return OutboxDepth(
            pending=connection.scalar(counts.where(_IS_PENDING)) or 0,
            lag=max(lag, timedelta(0)),
            rejected=connection.scalar(counts.where(_IS_REJECTED)) or 0,
        )

    @reads
    def listed(self, connection: sa.Connection, state: str, limit: int) -> list[ListedRow]:
        """The oldest rows in a state."""
        columns = [
            OUTBOX.c[name]
            for name in (
                *("id", "provider", "operation", "key"),
                *("state", "attempts", "created_at", "reason"),
            )
        ]
        query = sa.select(*columns).where(_in_state(state)).order_by(OUTBOX.c.id).limit(limit)
        return [
            ListedRow(
                id=row.id,
                call_id=names.call_id(row.provider, row.operation, row.key),
                state=row.state,
                attempts=row.attempts,
                created_at=_aware(row.created_at),
                reason=row.reason,
            )
            for row in connection.execute(query)
        ]


def open_outbox(url: str, clock: Clock) -> OutboxStore:
    """Open the database of an outbox; the first use connects.

    Raises:
        ConfigurationError: the URL is of neither PostgreSQL nor SQLite.
    """
    return OutboxStore(open_database(url, TIMEOUT, name=NAME), clock)


def _row(found: sa.Row[Any]) -> OutboxRow:
    own = {"provider": found.provider, "operation": found.operation, "key": found.key}
    # The columns win: they are what operators search.
    fields = {**found.options, **own, "payload": found.payload}
    return OutboxRow(id=found.id, attempts=found.attempts, fields=fields)


def _is_due(now: datetime) -> sa.ColumnElement[bool]:
    return OUTBOX.c.due_at.is_(None) | (OUTBOX.c.due_at <= now)


def _in_state(state: str) -> sa.ColumnElement[bool]:
    """A condition with a literal, which a partial index can be recognised by."""
    return OUTBOX.c.state == sa.literal_column(f"'{state}'")


_IS_PENDING = _in_state(PENDING)
_IS_REJECTED = _in_state(REJECTED)
_IS_STARTED = _in_state(STARTED)


def _bounded(reason: str) -> str:
    """What both databases store: no NUL, and no half of a surrogate pair."""
    return reason.replace("\0", "")[:MAX_REASON_LENGTH].encode(errors="replace").decode()


def _aware(time: datetime) -> datetime:
    """SQLite has no time zones: its times are in UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
