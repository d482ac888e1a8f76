"""Retry the events in the inbox until each is delivered, or held for an operator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from ackbridge.catalog.catalog import Catalog
from ackbridge.clock import Clock
from ackbridge.errors import EngineUnavailableError, LedgerUnavailableError, UnavailableError
from ackbridge.ledger.inbox import InboxState, StoredEntry
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.redaction import Redactor

from .delivery import RECORDED, EventDelivery
from .event import InboundEvent, from_inbox_entry
from .forwarding import EventForwarder
from .signal_batching import EngineClient, SignalResult

log = logging.getLogger(__name__)

BATCH = 100
"""Events per sweep."""


@dataclass
class Sweeper:
    """Retries due events; several gateways may sweep the same inbox."""

    catalog: Catalog
    ledger: Ledger
    engine: EngineClient
    delivery: EventDelivery
    forwarder: EventForwarder
    redactors: Mapping[str, Redactor]
    clock: Clock
    every: timedelta
    older_than: timedelta  # the age from which events are due
    give_up_after: timedelta  # the age from which they are held

    async def run(self) -> None:
        while True:
            count = 0
            try:
                count = await self._sweep()
            except UnavailableError as error:
                log.warning("inbox not swept: %s", error)
            except Exception:
                # The sweeper runs as long as the process does.
                log.exception("sweeping the inbox failed")
            if count < BATCH:
                await asyncio.sleep(self.every.total_seconds())

    async def _sweep(self) -> int:
        """Retry one batch, and return its size; after an `UnavailableError` its events stay due."""
        due = await self.ledger.inbox.due(self.older_than, BATCH)
        # One after the other: the events of a call are ordered.
        for stored in due:
            try:
                await self._retry(stored)
            except LedgerUnavailableError:
                raise
            except EngineUnavailableError:
                # This event may be the cause: others go first next time.
                await self.ledger.inbox.postpone([stored.id])
                raise
            except Exception as error:
                log.exception("a stored callback cannot be retried", extra=_fields(stored))
                await self._postpone(stored, f"cannot be read any more: {type(error).__name__}")
        return len(due)

    async def _retry(self, stored: StoredEntry) -> None:
        entry = stored.entry
        integration = self.catalog.integration(entry.provider)
        event = from_inbox_entry(integration, entry, self.redactors[entry.provider])
        if event.rule is not None and not event.interpretations:
            await self.forwarder.forward(event)
            return
        found = await self.delivery.find_call(event)
        if found is None:
            await self._postpone(stored, "no call has appeared")
            return
        call_id, interpretation = found
        match await self.delivery.signal_call(call_id, entry.provider, interpretation.message):
            case SignalResult.DELIVERED:
                await self._settle(stored, InboxState.DELIVERED)
            case SignalResult.REFUSED:
                await self._settle(stored, InboxState.HELD, "the engine refuses it as a signal")
            case SignalResult.NO_OPEN_CALL if not await self._has_ended(call_id):
                await self._postpone(stored, "no call has appeared")
            case SignalResult.NO_OPEN_CALL:
                await self._settle_late(stored, event)

    async def _has_ended(self, call_id: str) -> bool:
        """Whether the call is known and closed: a host that it ended in may go on."""
        if await self.engine.has_ended(call_id):
            return True
        known = await self.ledger.calls.get(call_id)
        return known is not None and known.outcome is not None

    async def _postpone(self, stored: StoredEntry, reason: str) -> None:
        """Try again later, or hold it for `reason` once it is too old."""
        if self.clock() - stored.entry.received_at < self.give_up_after:
            await self.ledger.inbox.postpone([stored.id])
        else:
            await self._settle(stored, InboxState.HELD, reason)

    async def _settle_late(self, stored: StoredEntry, event: InboundEvent) -> None:
        entry = stored.entry
        if await self.ledger.calls.is_event_recorded(entry.provider, entry.event_key):
            await self._settle(stored, InboxState.DUPLICATE, RECORDED)
        elif event.rule is not None:
            await self.forwarder.forward(event)
        else:
            await self._settle(stored, InboxState.HELD, "the call had ended")

    async def _settle(
        self, stored: StoredEntry, state: InboxState, reason: str | None = None
    ) -> None:
        await self.ledger.inbox.settle([stored.id], state, reason)
        log.info("stored callback: %s", state.value, extra={**_fields(stored), "reason": reason})


def _fields(stored: StoredEntry) -> dict[str, str]:
    return {"provider": stored.entry.provider, "event_key": stored.entry.event_key}
