"""Statistics of providers: one row for each worker, operation and bucket of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from ackbridge.contracts.calls import Stage
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.quotas import QuotaReport, QuotaStatus
from ackbridge.stats.counters import (
    COARSE,
    FINE,
    RESOLUTIONS,
    Count,
    OperationStats,
    Resolution,
    StatsBucket,
    resolution_for,
)
from ackbridge.stats.scorecard import Scorecard, scorecard

from .database.engines import Store, reads, upsert, writes
from .database.tables import acknowledgements, calls, leases, observations, quota_reports, quotas

RecentCounts: TypeAlias = tuple[datetime, str, dict[Count, int]]
"""The start of a report's bucket, its operation, and its counts."""


@dataclass(frozen=True)
class OperationBacklog:
    """How many calls of an operation are parked, and how many acknowledgements are pending."""

    parked: int = 0
    owed: int = 0


class StatsStore(Store):
    """Statistics, as all workers report them."""

    async def store(self, worker: str, buckets: Sequence[StatsBucket]) -> None:
        """Store the buckets of a worker; each replaces its earlier reports."""
        now = self.clock()
        # Made here, because the worker's event loop goes on counting.
        rows = [
            {
                "provider": bucket.provider,
                "operation": bucket.operation,
                "width": int(bucket.width.total_seconds()),
                "begun_at": bucket.begin,
                "worker": worker,
                "observed": bucket.stats.to_json(),
                "reported_at": now,
            }
            for bucket in buckets
        ]
        if rows:
            await self._store(rows)

    @writes
    def _store(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.execute(_store_rows(connection.dialect.name), rows)

    @reads
    def totals(
        self, connection: sa.Connection, provider: str, since: datetime
    ) -> dict[str, OperationStats]:
        """By operation, the statistics of all workers together.

        Args:
            since: its bucket counts as a whole: 10 s up to a quarter of an hour back, 5 minutes up
                to a day back, which is as long as they are kept.

        Returns:
            Statistics of the provider as a whole, such as its health, are under "".
        """
        totals: dict[str, OperationStats] = {}
        for bucket in _timeline(connection, provider, since, self.clock()).values():
            for operation, stats in bucket.items():
                totals.setdefault(operation, OperationStats()).merge(stats)
        return totals

    @reads
    def recent_counts(
        self, connection: sa.Connection, provider: str, since: datetime
    ) -> list[RecentCounts]:
        """The counts of each report of the last minutes, without timings.

        Args:
            since: at most a quarter of an hour ago; its bucket of 10 s counts as a whole.
        """
        key = {"whose": provider, "since": FINE.begin(since)}
        return [
            (begin, operation, {Count(name): n for name, n in counts.items() if name in _KNOWN})
            for begin, operation, counts in connection.execute(_READ_COUNTS, key)
            if counts
        ]

    @reads
    def scorecard(
        self,
        connection: sa.Connection,
        provider: str,
        since: datetime,
        snapshot: ControlSnapshot | None = None,
    ) -> Scorecard:
        """The scorecard of a provider.

        Args:
            since: as of `totals`.
            snapshot: of the provider's control, for the breaker and the deadlines.
        """
        now = self.clock()
        begin = resolution_for(since, now).begin(since)
        timeline = _timeline(connection, provider, begin, now)
        backlog = {
            operation: (pending.parked, pending.owed)
            for operation, pending in _backlog(connection, provider).items()
        }
        return scorecard(provider, timeline, backlog, begin, now, snapshot)

    @reads
    def backlog(self, connection: sa.Connection, provider: str) -> dict[str, OperationBacklog]:
        """By operation, what is pending now; operations without anything are left out."""
        return _backlog(connection, provider)

    @reads
    def providers(self, connection: sa.Connection, since: datetime) -> list[str]:
        """The providers that have statistics, sorted."""
        query = sa.select(observations.c.provider).distinct()
        recent = (observations.c.width == _seconds(COARSE)) & (observations.c.begun_at >= since)
        return list(connection.execute(query.where(recent).order_by("provider")).scalars())

    # Quotas

    async def store_quotas(self, worker: str, reports: Sequence[QuotaReport]) -> None:
        """Store what a worker knows of quotas; each replaces its earlier report."""
        now = self.clock()
        rows = [
            {
                "provider": one.provider,
                "tenant": one.tenant,
                "worker": worker,
                "report": one.model_dump(mode="json"),
                "reported_at": now,
            }
            for one in reports
        ]
        if rows:
            await self._store_quotas(rows)

    @writes
    def _store_quotas(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        connection.execute(_store_quota_reports(connection.dialect.name), rows)

    @reads
    def quota_reports(
        self, connection: sa.Connection, provider: str, since: datetime
    ) -> list[QuotaReport]:
        """What the workers that reported since then know of a provider's quotas."""
        query = sa.select(quota_reports.c.report).where(
            quota_reports.c.provider == provider, quota_reports.c.reported_at >= since
        )
        return [QuotaReport.model_validate(one) for one in connection.execute(query).scalars()]

    @writes
    def save_quotas(
        self, connection: sa.Connection, provider: str, statuses: Mapping[str, QuotaStatus]
    ) -> None:
        """Replace the limits of a provider's quotas, which are by tenant."""
        connection.execute(quotas.delete().where(quotas.c.provider == provider))
        now = self.clock()
        rows = [
            {
                "provider": provider,
                "tenant": tenant,
                "status": status.model_dump(mode="json"),
                "updated_at": now,
            }
            for tenant, status in statuses.items()
        ]
        if rows:
            connection.execute(quotas.insert(), rows)

    @reads
    def quotas(self, connection: sa.Connection, provider: str) -> dict[str, QuotaStatus]:
        """The limits of a provider's quotas as they are now, by tenant."""
        query = sa.select(quotas.c.tenant, quotas.c.status).where(quotas.c.provider == provider)
        return {
            tenant: QuotaStatus.model_validate(status)
            for tenant, status in connection.execute(query)
        }

    @writes
    def delete_expired(self, connection: sa.Connection) -> None:
        """Delete the buckets, reports and leases that are older than they are kept."""
        for resolution in RESOLUTIONS:
            old = {"of": _seconds(resolution), "before": self.clock() - resolution.kept}
            connection.execute(_DELETE_OLD, old)
        connection.execute(_DELETE_OLD_REPORTS, {"before": self.clock() - _QUOTA_REPORTS_KEPT})
        connection.execute(_DELETE_OLD_LEASES, {"before": self.clock()})


def _timeline(
    connection: sa.Connection, provider: str, since: datetime, now: datetime
) -> dict[datetime, dict[str, OperationStats]]:
    resolution = resolution_for(since, now)
    key = {"whose": provider, "of": _seconds(resolution), "since": resolution.begin(since)}
    timeline: dict[datetime, dict[str, OperationStats]] = {}
    for begin, operation, plain in connection.execute(_READ, key):
        bucket = timeline.setdefault(begin, {})
        bucket.setdefault(operation, OperationStats()).merge(OperationStats.from_json(plain))
    return timeline


def _backlog(connection: sa.Connection, provider: str) -> dict[str, OperationBacklog]:
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
    parked_counts, owed_counts = _counted(connection, parked), _counted(connection, owed)
    return {
        operation: OperationBacklog(parked_counts.get(operation, 0), owed_counts.get(operation, 0))
        for operation in parked_counts.keys() | owed_counts.keys()
    }


def _counted(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {operation: int(count) for operation, count in connection.execute(query)}


def _seconds(resolution: Resolution) -> int:
    return int(resolution.width.total_seconds())


@cache
def _store_rows(dialect: str) -> sa.Insert:
    statement = upsert(dialect, observations)
    return statement.on_conflict_do_update(
        index_elements=observations.primary_key.columns,
        set_={name: statement.excluded[name] for name in ("observed", "reported_at")},
    )


@cache
def _store_quota_reports(dialect: str) -> sa.Insert:
    statement = upsert(dialect, quota_reports)
    return statement.on_conflict_do_update(
        index_elements=quota_reports.primary_key.columns,
        set_={name: statement.excluded[name] for name in ("report", "reported_at")},
    )


_QUOTA_REPORTS_KEPT: Final = timedelta(minutes=15)

_DELETE_OLD_REPORTS = quota_reports.delete().where(
    quota_reports.c.reported_at < sa.bindparam("before")
)

_DELETE_OLD_LEASES = leases.delete().where(leases.c.expires_at < sa.bindparam("before"))

_KNOWN: Final = frozenset(str(what) for what in Count)

_READ = sa.select(observations.c.begun_at, observations.c.operation, observations.c.observed).where(
    observations.c.provider == sa.bindparam("whose"),
    observations.c.width == sa.bindparam("of"),
    observations.c.begun_at >= sa.bindparam("since"),
)
# The timings of a row are many times longer than its counts.
_READ_COUNTS = sa.select(
    observations.c.begun_at, observations.c.operation, observations.c.observed["counts"]
).where(
    observations.c.provider == sa.bindparam("whose"),
    observations.c.width == _seconds(FINE),
    observations.c.begun_at >= sa.bindparam("since"),
)
_DELETE_OLD = observations.delete().where(
    observations.c.width == sa.bindparam("of"), observations.c.begun_at < sa.bindparam("before")
)
