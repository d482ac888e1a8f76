"""The sweeper: tries the inbox again, until every letter is delivered, or held for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta

from ackbridge.catalog.catalog import Catalog
from ackbridge.clock import Clock
from ackbridge.errors import (
    EngineUnavailableError,
    LedgerUnavailableError,
    UnavailableError,
)
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.rows import InboxState, StoredEntry
from ackbridge.security.redaction import Redactor

from .calls import Calls, DeliveryTarget, Signalled
from .delivery import EventDelivery
from .inbound_event import from_entry

log = logging.getLogger(__name__)

BATCH = 100
"""Letters per look into the inbox."""


class Sweeper:
    """Works through the letters that are due; several gateways may sweep the same inbox."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        calls: Calls,
        handover: EventDelivery,
        redactors: Mapping[str, Redactor],
        clock: Clock,
        *,
        every: timedelta,
        older_than: timedelta,
        give_up_after: timedelta,
    ) -> None:
        """Take what it works with, how often it looks, and the ages between which it tries."""
        self._catalog = catalog
        self._ledger = ledger
        self._calls = calls
        self._handover = handover
        self._redactors = redactors
        self._every = every.total_seconds()
        self._clock = clock
        self._older_than = older_than
        self._give_up_after = give_up_after

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                swept = await self.sweep()
            except UnavailableError as error:
                log.warning("the inbox waits: %s", error)
                swept = 0
            except Exception:
                # Nothing may end the sweeping but the end of the process.
                log.exception("sweeping the inbox failed")
                swept = 0
            if swept < BATCH:
                await asyncio.sleep(self._every)

    async def sweep(self) -> int:
        """Try one batch, and say how many letters were tried.

        Raises:
            UnavailableError: engine or ledger; the letters stay due.
        """
        due = await self._ledger.due(self._older_than, BATCH)
        # One after the other: what a provider says about a call has an order.
        for stored in due:
            try:
                await self._try(stored)
            except LedgerUnavailableError:
                raise
            except EngineUnavailableError:
                # Should it be this letter that the engine does not answer, others go first.
                await self._ledger.postpone([stored.id])
                raise
            except Exception as error:
                log.exception("a kept callback cannot be tried", extra=_extra(stored))
                await self._wait_on(stored, f"it cannot be read any more: {type(error).__name__}")
        return len(due)

    async def _try(self, stored: StoredEntry) -> None:
        entry = stored.entry
        integration = self._catalog.integration(entry.provider)
        letter = from_entry(integration, entry, self._redactors[entry.provider])
        found = await self._handover.find(letter)
        if found is None:
            await self._wait_on(stored)
            return
        call_id, reading = found
        signalled = await self._calls.signal(call_id, entry.provider, [reading.message])
        if signalled is Signalled.DELIVERED:
            await self._settle(stored, InboxState.DELIVERED)
        elif signalled is Signalled.REFUSED:
            await self._settle(stored, InboxState.HELD, "the engine refuses it as a signal")
        elif await self._calls.state(call_id) is DeliveryTarget.CLOSED:
            await self._too_late(stored)
        else:
            await self._wait_on(stored)

    async def _wait_on(self, stored: StoredEntry, otherwise: str = "no call has appeared") -> None:
        if self._clock() - stored.entry.received_at < self._give_up_after:
            await self._ledger.postpone([stored.id])
        else:
            await self._settle(stored, InboxState.HELD, otherwise)

    async def _too_late(self, stored: StoredEntry) -> None:
        entry = stored.entry
        if await self._ledger.is_recorded(entry.provider, entry.event_key):
            await self._settle(stored, InboxState.DUPLICATE, "already recorded as a response")
        else:
            await self._settle(stored, InboxState.HELD, "the call had ended")

    async def _settle(
        self, stored: StoredEntry, state: InboxState, reason: str | None = None
    ) -> None:
        await self._ledger.settle([stored.id], state, reason)
        log.info("kept callback: %s", state.value, extra={**_extra(stored), "reason": reason})


def _extra(stored: StoredEntry) -> dict[str, str]:
    return {"provider": stored.entry.provider, "event_key": stored.entry.event_key}
