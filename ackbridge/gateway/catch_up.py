"""Catch up by itself: notice that no gateway was there, and read what providers list since then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from ackbridge.catalog.catalog import Catalog
from ackbridge.clock import Clock
from ackbridge.contracts.catch_up import CatchUpRequest
from ackbridge.errors import UnavailableError
from ackbridge.ledger.ledger import Ledger

from .signal_batching import EngineClient

log = logging.getLogger(__name__)

ACTOR = "gateway"
"""The `by` of a catch-up that a gateway starts."""


@dataclass
class CatchUpMonitor:
    """Stores how far events are covered by callbacks; several gateways may do so."""

    catalog: Catalog
    ledger: Ledger
    engine: EngineClient
    clock: Clock
    every: timedelta
    away_for: timedelta  # from which gap on events are listed

    async def run(self) -> None:
        overlaps = {
            name: integration.callbacks.list.overlap
            for name, integration in self.catalog.integrations.items()
            if integration.callbacks is not None and integration.callbacks.list is not None
        }
        while overlaps:
            try:
                await self._cover(overlaps)
            except UnavailableError as error:
                # The gap grows until both are back.
                log.warning("events are not covered: %s", error)
            except Exception:
                # The monitor runs as long as the process does.
                log.exception("covering events failed")
            await asyncio.sleep(self.every.total_seconds())

    async def _cover(self, overlaps: Mapping[str, timedelta]) -> None:
        for provider, overlap in overlaps.items():
            now = self.clock()
            covered = await self.ledger.inbox.covered_until(provider)
            if covered is not None and now - covered > self.away_for:
                since = covered - overlap
                request = CatchUpRequest(provider=provider, since=since, until=now, by=ACTOR)
                if not await self.engine.catch_up(request):
                    log.info("%s: the catch-up before this one is still running", provider)
                    continue
                log.info("%s: no gateway since %s, catching up", provider, covered)
            await self.ledger.inbox.cover(provider, now)
