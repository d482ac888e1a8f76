"""Reports the statistics of this process to the ledger, every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol

from ackbridge.clock import Clock
from ackbridge.contracts.quotas import QuotaReport
from ackbridge.errors import LedgerUnavailableError

from .counters import Counters, StatsBucket

REPORT_EVERY: Final = timedelta(seconds=3)
"""A process that is killed loses at most the statistics of this time."""

REPORT_QUOTAS_AFTER: Final = timedelta(seconds=1)
"""How soon others know that a provider rejects requests."""

DELETE_EXPIRED_EVERY: Final = timedelta(minutes=5)

log = logging.getLogger(__name__)


class StatsSink(Protocol):
    """Where statistics are stored: `Ledger.stats`."""

    async def store(self, worker: str, buckets: Sequence[StatsBucket]) -> None:
        """Store a worker's buckets; each replaces its earlier reports."""

    async def store_quotas(self, worker: str, reports: Sequence[QuotaReport]) -> None:
        """Store what a worker knows of quotas; each replaces its earlier reports."""

    async def delete_expired(self) -> None:
        """Delete the buckets that are older than they are kept."""


class StatsReporter:
    """Reports the counters of one process; only one reporter may do so."""

    def __init__(self, counters: Counters, store: StatsSink, clock: Clock) -> None:
        self._counters = counters
        self._store = store
        self._clock = clock
        self._is_store_unavailable = False
        self._delete_expired_at = clock()

    async def report(self) -> None:
        """Report what has changed; if the ledger is unavailable, the next report includes it."""
        now = self._clock()
        buckets = self._counters.gather(now)
        try:
            if buckets:
                await self._store.store(self._counters.worker, buckets)
                self._counters.mark_reported(buckets)
            await self._report_quotas()
            if now >= self._delete_expired_at:
                await self._store.delete_expired()
                self._delete_expired_at = now + DELETE_EXPIRED_EVERY
        except LedgerUnavailableError as error:
            if not self._is_store_unavailable:
                log.warning("statistics are kept until the ledger is available: %s", error)
            self._is_store_unavailable = True
        else:
            self._is_store_unavailable = False

    async def report_or_log(self) -> None:
        """As `report`, but no error stops the process: it is logged."""
        try:
            await self.report()
        except Exception:
            log.exception("statistics could not be reported")

    async def run(self, every: timedelta) -> None:
        """Report regularly, and what was rejected within a second."""
        report_at = self._clock() + every
        while True:
            left = (report_at - self._clock()).total_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._counters.quotas.is_urgent.wait()
                    await asyncio.sleep(REPORT_QUOTAS_AFTER.total_seconds())
            if self._clock() >= report_at:
                await self.report_or_log()
                report_at = self._clock() + every
            else:
                with contextlib.suppress(LedgerUnavailableError):
                    await self._report_quotas()

    async def _report_quotas(self) -> None:
        reports = self._counters.quotas.take_reports(self._clock())
        if not reports:
            return
        try:
            await self._store.store_quotas(self._counters.worker, reports)
        except LedgerUnavailableError:
            self._counters.quotas.restore(reports)
            raise


@asynccontextmanager
async def report_stats(
    counters: Counters, store: StatsSink, clock: Clock, every: timedelta = REPORT_EVERY
) -> AsyncIterator[None]:
    """Report regularly inside the context, and once more at its end."""
    reporter = StatsReporter(counters, store, clock)
    running = asyncio.create_task(reporter.run(every))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await reporter.report_or_log()
