"""Handing a letter over: to its call through the engine, or to the ledger's inbox."""

from __future__ import annotations

import logging
from enum import StrEnum

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.errors import EngineUnavailableError, LedgerUnavailableError
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.rows import InboxState
from ackbridge.stats.counters import Observations
from ackbridge.stats.totals import Count

from .calls import Signalled
from .inbound_event import InboundEvent, Interpretation, to_entry
from .signal_batching import SignalBatcher

log = logging.getLogger(__name__)

REPEATED = "repeated by the provider"
RECORDED = "already recorded as a response"
NOT_AWAITED = "not awaited: it says nothing the operation waits for"


class DeliveryResult(StrEnum):
    """How a letter became durable."""

    SIGNALLED = "signalled"
    KEPT = "kept"
    UNMATCHED = "unmatched"
    DUPLICATE = "duplicate"


class EventDelivery:
    """Engine or inbox. Whoever gets an answer, and no error, has a durable letter."""

    def __init__(self, lanes: SignalBatcher, ledger: Ledger, observations: Observations) -> None:
        """Take the engine's side and the ledger's, and where duplicates are counted."""
        self._lanes = lanes
        self._ledger = ledger
        self._observations = observations

    async def hand_over(self, letter: InboundEvent) -> DeliveryResult:
        """Signal the call, or keep the letter until that works.

        Raises:
            LedgerUnavailableError: the engine did not take it, and neither can the inbox.
        """
        if not letter.matched:
            return await self._keep(letter)
        try:
            if await self._reaches_call(letter):
                return DeliveryResult.SIGNALLED
        except EngineUnavailableError:
            return await self._keep(letter)
        delivery = await self._keep(letter)
        return await self._look_again(letter) if delivery is DeliveryResult.KEPT else delivery

    async def find(self, letter: InboundEvent) -> tuple[str, Interpretation] | None:
        """The call a letter is for, and what it says there; nothing when that is not known (yet).

        Raises:
            LedgerUnavailableError: only when a reference has to be looked up.
        """
        for reading in letter.readings:
            call_id = reading.match.call_id
            if call_id is None and reading.match.reference is not None:
                call_id = await self._ledger.find_call(letter.provider, reading.match.reference)
            # A provider speaks about its own calls only, and an operation about its own.
            owner = f"{letter.provider}.{reading.match.operation}."
            if call_id is not None and call_id.startswith(owner):
                return call_id, reading
        return None

    async def suppress(self, letter: InboundEvent, reason: str) -> None:
        """Log a letter that changes nothing. Its reply does not depend on that."""
        extra = {"provider": letter.provider, "event_key": letter.event_key, "reason": reason}
        log.info("callback suppressed: %s", reason, extra=extra)
        if reason != NOT_AWAITED:
            # What several operations might have said is the provider's as a whole.
            named = {match.operation for match in letter.matches}
            operation = named.pop() if len(named) == 1 else WHOLE_PROVIDER
            self._observations.count(letter.provider, operation, Count.DUPLICATES)
        try:
            await self._ledger.suppress(letter.provider, letter.event_key, letter.call_id, reason)
        except LedgerUnavailableError:
            log.warning("the ledger could not log a suppressed callback", extra=extra)

    async def _reaches_call(self, letter: InboundEvent) -> bool:
        found = await self.find(letter)
        if found is None:
            return False
        call_id, reading = found
        signalled = await self._lanes.signal(
            call_id, letter.provider, reading.message, letter.size, letter.traceparent
        )
        return signalled is Signalled.DELIVERED

    async def _keep(self, letter: InboundEvent) -> DeliveryResult:
        if await self._ledger.is_recorded(letter.provider, letter.event_key):
            # The call has ended, and the provider repeats itself.
            await self.suppress(letter, RECORDED)
            return DeliveryResult.DUPLICATE
        if not await self._ledger.keep(to_entry(letter)):
            await self.suppress(letter, REPEATED)
            return DeliveryResult.DUPLICATE
        return DeliveryResult.KEPT if letter.matched else DeliveryResult.UNMATCHED

    async def _look_again(self, letter: InboundEvent) -> DeliveryResult:
        """Close the race with a call that appeared between our look and our row.

        The call's side writes first and reads then, too; so one of the two sees the other. From
        here on the letter is durable, and what fails is left to the sweeper.
        """
        try:
            if not await self._reaches_call(letter):
                return DeliveryResult.KEPT
            await self._settle(letter)
        except (EngineUnavailableError, LedgerUnavailableError) as error:
            log.warning("the sweeper will deliver a kept callback: %s", error)
            return DeliveryResult.KEPT
        return DeliveryResult.SIGNALLED

    async def _settle(self, letter: InboundEvent) -> None:
        call_id = letter.call_id or ""
        waiting = await self._ledger.waiting(letter.provider, call_id, letter.reference)
        ours = [stored.id for stored in waiting if stored.entry.event_key == letter.event_key]
        await self._ledger.settle(ours, InboxState.DELIVERED)
