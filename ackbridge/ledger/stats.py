"""Observations of workers: one row for each worker, operation and bucket of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from ackbridge.contracts.calls import Stage
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.ledger.database.tables import acknowledgements, calls, observations
from ackbridge.ledger.database.upserts import upsert
from ackbridge.stats.counters import GRAINS, Bucket, Grain, grain_for
from ackbridge.stats.scorecard import Scorecard, scorecard
from ackbridge.stats.totals import Observed

from .rows import Unsettled


def rows_of(worker: str, buckets: Sequence[Bucket], now: datetime) -> list[dict[str, Any]]:
    """What stands for buckets in the table; a copy, because a worker goes on counting."""
    return [
        {
            "provider": one.provider,
            "operation": one.operation,
            "width": int(one.width.total_seconds()),
            "begun_at": one.begin,
            "worker": worker,
            "observed": one.observed.plain(),
            "reported_at": now,
        }
        for one in buckets
    ]


def report(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, each as a whole; see `Ledger.report`."""
    if rows:
        connection.execute(_report(connection.dialect.name), rows)


def observed(
    connection: sa.Connection, provider: str, since: datetime, now: datetime
) -> dict[str, Observed]:
    """Add up what every worker has observed; see `Ledger.observed`."""
    found: dict[str, Observed] = {}
    for bucket in timeline(connection, provider, since, now).values():
        for operation, part in bucket.items():
            found.setdefault(operation, Observed()).merge(part)
    return found


def timeline(
    connection: sa.Connection, provider: str, since: datetime, now: datetime
) -> dict[datetime, dict[str, Observed]]:
    """What every worker has observed, bucket by bucket; see `Ledger.observed`."""
    grain = grain_for(since, now)
    key = {"whose": provider, "of": _seconds(grain), "since": grain.begin(since)}
    found: dict[datetime, dict[str, Observed]] = {}
    for begin, operation, plain in connection.execute(_READ, key):
        bucket = found.setdefault(begin, {})
        bucket.setdefault(operation, Observed()).merge(Observed.read(plain))
    return found


def score(
    connection: sa.Connection,
    provider: str,
    since: datetime,
    snapshot: ControlSnapshot | None,
    now: datetime,
) -> Scorecard:
    """How a provider has done; see `Ledger.scorecard`."""
    waiting = {
        operation: (one.parked, one.owed)
        for operation, one in unsettled(connection, provider).items()
    }
    begin = grain_for(since, now).begin(since)
    seen = timeline(connection, provider, begin, now)
    return scorecard(provider, seen, waiting, begin, now, snapshot)


def observed_providers(connection: sa.Connection, since: datetime) -> list[str]:
    """Who has been observed; see `Ledger.observed_providers`."""
    query = sa.select(observations.c.provider).distinct()
    coarse = (observations.c.width == _seconds(GRAINS[-1])) & (observations.c.begun_at >= since)
    return list(connection.execute(query.where(coarse).order_by("provider")).scalars())


def forget(connection: sa.Connection, now: datetime) -> None:
    """Delete what is older than it is kept."""
    for grain in GRAINS:
        old = {"of": _seconds(grain), "before": now - grain.kept}
        connection.execute(_FORGET, old)


def unsettled(connection: sa.Connection, provider: str) -> dict[str, Unsettled]:
    """What waits; see `Ledger.unsettled`."""
    every = sa.func.count()
    parked = (
        sa.select(calls.c.operation, every)
        .where(calls.c.stage == Stage.PARKED.value, calls.c.provider == provider)
        .group_by(calls.c.operation)
    )
    owed = (
        sa.select(calls.c.operation, every)
        .join_from(acknowledgements, calls, acknowledgements.c.call_id == calls.c.call_id)
        .where(acknowledgements.c.is_owed, calls.c.provider == provider)
        .group_by(calls.c.operation)
    )
    waiting = _counted(connection, parked)
    owing = _counted(connection, owed)
    return {
        operation: Unsettled(waiting.get(operation, 0), owing.get(operation, 0))
        for operation in waiting.keys() | owing.keys()
    }


def _counted(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {operation: int(count) for operation, count in connection.execute(query)}


def _seconds(grain: Grain) -> int:
    return int(grain.width.total_seconds())


@cache
def _report(dialect: str) -> sa.Insert:
    statement = upsert(dialect, observations)
    return statement.on_conflict_do_update(
        index_elements=observations.primary_key.columns,
        set_={name: statement.excluded[name] for name in ("observed", "reported_at")},
    )


_READ = sa.select(observations.c.begun_at, observations.c.operation, observations.c.observed).where(
    observations.c.provider == sa.bindparam("whose"),
    observations.c.width == sa.bindparam("of"),
    observations.c.begun_at >= sa.bindparam("since"),
)
_FORGET = observations.delete().where(
    observations.c.width == sa.bindparam("of"), observations.c.begun_at < sa.bindparam("before")
)
