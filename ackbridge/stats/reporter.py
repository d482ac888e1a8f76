"""Carrying what a process observes into the ledger, every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from ackbridge.clock import Clock
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.ledger import Ledger

from .counters import Observations

REPORT_EVERY: Final = timedelta(seconds=3)
"""What a process that is killed loses at the most."""

FORGET_EVERY: Final = timedelta(minutes=5)

log = logging.getLogger(__name__)


class Reporter:
    """Reports one process's observations; the only one who does."""

    def __init__(self, observations: Observations, ledger: Ledger, clock: Clock) -> None:
        self._observations = observations
        self._ledger = ledger
        self._clock = clock
        self._is_away = False
        self._forget_at = clock()

    async def report(self) -> None:
        """Report what has been observed; keep it for the next time if the ledger is away."""
        now = self._clock()
        buckets = self._observations.gather(now)
        try:
            if buckets:
                await self._ledger.report(self._observations.worker, buckets)
                self._observations.reported(buckets)
            if now >= self._forget_at:
                await self._ledger.forget_observations()
                self._forget_at = now + FORGET_EVERY
        except LedgerUnavailableError as error:
            if not self._is_away:
                log.warning("observations wait for the ledger: %s", error)
            self._is_away = True
        else:
            self._is_away = False

    async def run(self, every: timedelta) -> None:
        """Report for ever."""
        while True:
            await asyncio.sleep(every.total_seconds())
            await self.try_to_report()

    async def try_to_report(self) -> None:
        """As `report`; statistics are worth less than what else this process does."""
        try:
            await self.report()
        except Exception:
            log.exception("observations could not be reported")


@asynccontextmanager
async def reporting(
    observations: Observations, ledger: Ledger, clock: Clock, every: timedelta = REPORT_EVERY
) -> AsyncIterator[None]:
    """Report regularly while inside, and once more at the end."""
    reporter = Reporter(observations, ledger, clock)
    running = asyncio.create_task(reporter.run(every))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await reporter.try_to_report()
