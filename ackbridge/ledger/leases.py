"""Leases: how many requests of a provider are in flight, all workers together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from .database.engines import Store, reads, upsert, writes
from .database.tables import leases

WAITER_GRACE: Final = timedelta(minutes=1)
"""A request that has not come back for its lease so long after it should have waits no more."""

MIN_RETRY: Final = timedelta(milliseconds=250)
MAX_RETRY: Final = timedelta(seconds=30)
"""How soon, and how late, a request that waits comes back."""

MIN_HELD: Final = timedelta(milliseconds=100)


@dataclass(frozen=True)
class LeaseRequest:
    """A request that needs a lease to be sent.

    Attributes:
        holder: names the request; asking again under the same name is no second lease.
        tenant: whose requests `per_tenant` counts; empty for none.
        total, per_tenant: the most leases, of all and of the tenant.
        waits_since: earlier ones are first.
        period: the lease ends after this, if it is not released: longer than the request may take.
    """

    provider: str
    holder: str
    call_id: str
    tenant: str
    total: int | None
    per_tenant: int | None
    waits_since: datetime
    period: timedelta


@dataclass(frozen=True)
class LeaseResult:
    """Whether a lease was given.

    Attributes:
        is_of_tenant: whether `in_flight` and `most` are the tenant's: the scarcer ones.
        in_flight, most: requests that have a lease, and how many may have one.
        waiting: requests that waited before this one.
        retry_after: when to ask again.
    """

    is_granted: bool
    is_of_tenant: bool = False
    in_flight: int = 0
    most: int = 0
    waiting: int = 0
    retry_after: timedelta = MIN_RETRY


@dataclass(frozen=True)
class LeasedRequest:
    """A request that is in flight, or waits for its lease."""

    call_id: str
    tenant: str
    is_waiting: bool
    since: datetime


class LeaseStore(Store):
    """Leases are given one after the other, so there are never more than there may be."""

    @writes
    def acquire(self, connection: sa.Connection, wanted: LeaseRequest) -> LeaseResult:
        """Give a lease, or let the request wait; `LeaseResult` says which."""
        now = self.clock()
        _lock(connection, wanted.provider)
        waiting, others = _read(connection, wanted, now)
        of_tenant = [row for row in others if row.tenant == wanted.tenant]
        free, most, is_of_tenant = min(
            (limit - len(rows), limit, is_of_tenant)
            for limit, rows, is_of_tenant in (
                (wanted.total, others, False),
                (wanted.per_tenant, of_tenant, True),
            )
            if limit is not None
        )
        held_for = _held_for([now - row.acquired_at for row in others])
        # Whoever comes back first may overtake those whose turn comes before they could be back, so
        # that no lease lies idle meanwhile.
        overtakes = most * max(1.0, 2 * MIN_RETRY / held_for)
        result = LeaseResult(
            is_granted=free > 0 and waiting < free + overtakes,
            is_of_tenant=is_of_tenant,
            in_flight=most - free,
            most=most,
            waiting=waiting,
            # Half of the time after which it is probably its turn.
            retry_after=min(max(held_for * (waiting + 1) / most / 2, MIN_RETRY), MAX_RETRY),
        )
        _write(connection, wanted, result, now)
        return result

    @writes
    def release(self, connection: sa.Connection, provider: str, holder: str) -> None:
        """End a lease, or the wait for it."""
        connection.execute(_DELETE, {"whose": provider, "named": holder})

    @reads
    def requests(self, connection: sa.Connection, provider: str, limit: int) -> list[LeasedRequest]:
        """What is in flight, and then what waits, oldest first."""
        query = (
            sa.select(leases)
            .where(leases.c.provider == provider, leases.c.expires_at > self.clock())
            .order_by(leases.c.acquired_at.is_(None), leases.c.acquired_at, leases.c.waits_since)
            .limit(limit)
        )
        return [
            LeasedRequest(
                call_id=row.call_id,
                tenant=row.tenant,
                is_waiting=row.acquired_at is None,
                since=row.acquired_at or row.waits_since,
            )
            for row in connection.execute(query)
        ]

    @reads
    def counts(self, connection: sa.Connection, provider: str) -> dict[str, tuple[int, int]]:
        """By tenant, how many requests are in flight, and how many wait."""
        held = sa.func.count(leases.c.acquired_at)
        query = (
            sa.select(leases.c.tenant, held, sa.func.count() - held)
            .where(leases.c.provider == provider, leases.c.expires_at > self.clock())
            .group_by(leases.c.tenant)
        )
        return {tenant: (int(a), int(b)) for tenant, a, b in connection.execute(query)}


def _lock(connection: sa.Connection, provider: str) -> None:
    """Let one transaction at a time decide about a provider's leases, until it ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"named": f"ackbridge.leases.{provider}"})
    # SQLite has one writer at a time.


def _read(
    connection: sa.Connection, wanted: LeaseRequest, now: datetime
) -> tuple[int, list[sa.Row[Any]]]:
    """How many wait and came before (of the tenant, where it has a limit), and others' leases."""
    query = _READ if wanted.per_tenant is None else _READ_OF_TENANT
    key = {
        "whose": wanted.provider,
        "of": wanted.tenant,
        "named": wanted.holder,
        "since": wanted.waits_since,
        "now": now,
    }
    rows = list(connection.execute(query, key))
    return int(rows[0].waiting), [row for row in rows if row.tenant is not None]


def _held_for(ages: Sequence[timedelta]) -> timedelta:
    """How long a lease is probably held: on average, leases are seen when half of it is over."""
    return max(MIN_HELD, 2 * sum(ages, timedelta(0)) / max(1, len(ages)))


def _write(
    connection: sa.Connection, wanted: LeaseRequest, result: LeaseResult, now: datetime
) -> None:
    lasts = wanted.period if result.is_granted else result.retry_after + WAITER_GRACE
    row = {
        "provider": wanted.provider,
        "holder": wanted.holder,
        "tenant": wanted.tenant,
        "call_id": wanted.call_id,
        "waits_since": wanted.waits_since,
        "acquired_at": now if result.is_granted else None,
        "expires_at": now + lasts,
    }
    connection.execute(_upsert(connection.dialect.name), row)


@cache
def _upsert(dialect: str) -> sa.Insert:
    statement = upsert(dialect, leases)
    return statement.on_conflict_do_update(
        index_elements=leases.primary_key.columns,
        set_={name: statement.excluded[name] for name in ("acquired_at", "expires_at")},
    )


_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:named, 0))")

_IS_LIVE = (
    (leases.c.provider == sa.bindparam("whose"))
    & (leases.c.expires_at > sa.bindparam("now"))
    & (leases.c.holder != sa.bindparam("named"))
)


def _read_query(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """One row at least: the number of those that wait, beside each lease that is held."""
    before = (
        sa.select(sa.func.count().label("waiting"))
        .select_from(leases)
        .where(
            _IS_LIVE,
            leases.c.acquired_at.is_(None),
            leases.c.waits_since < sa.bindparam("since"),
            *conditions,
        )
        .subquery()
    )
    held = (
        sa.select(leases.c.tenant, leases.c.acquired_at)
        .where(_IS_LIVE, leases.c.acquired_at.is_not(None))
        .subquery()
    )
    return sa.select(before.c.waiting, held.c.tenant, held.c.acquired_at).select_from(
        before.outerjoin(held, sa.true())
    )


_READ = _read_query()
_READ_OF_TENANT = _read_query(leases.c.tenant == sa.bindparam("of"))
_DELETE = leases.delete().where(
    leases.c.provider == sa.bindparam("whose"), leases.c.holder == sa.bindparam("named")
)
