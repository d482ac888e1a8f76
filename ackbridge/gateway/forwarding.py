"""Forward events that no call waits for: to a subscriber, or to the URL that they contain."""

from __future__ import annotations

from ackbridge.catalog.callbacks import EventRule
from ackbridge.catalog.catalog import Catalog
from ackbridge.contracts.deliveries import (
    Delivery,
    EventData,
    EventStream,
    ForwardedEvent,
    NoticeBody,
    VisitStep,
    provider_event_id,
)
from ackbridge.ledger.inbox import InboxEntry, InboxState
from ackbridge.ledger.ledger import Ledger

from .event import InboundEvent
from .signal_batching import EngineClient

NO_RULE = "the provider's file has no such event any more"


class EventForwarder:
    """Hands events in the inbox over to workflows, those of one object in their order."""

    def __init__(self, engine: EngineClient, ledger: Ledger, catalog: Catalog) -> None:
        self._engine = engine
        self._ledger = ledger
        self._catalog = catalog

    async def forward(self, event: InboundEvent) -> None:
        """Forward an event that is in the inbox, after those of its object that are there, too.

        Raises:
            EngineUnavailableError, LedgerUnavailableError: it stays in the inbox.
        """
        if event.rule is None:
            return
        provider, key, about = event.provider, event.event_key, event.about
        inbox = self._ledger.inbox
        await inbox.mark_event(provider, key, event.rule, about)
        stream = EventStream(provider=provider, subject=about or key)
        while waiting := await inbox.pending_events(provider, key, about):
            ruled = [(stored, self._rule(stored.entry)) for stored in waiting]
            events = [await self._forwarded(one.entry, rule) for one, rule in ruled if rule]
            if events:
                await self._engine.forward(stream, events)
                ids = [stored.id for stored, rule in ruled if rule]
                await inbox.settle(ids, InboxState.DELIVERED)
            unruled = [stored.id for stored, rule in ruled if rule is None]
            await inbox.settle(unruled, InboxState.HELD, NO_RULE)

    def _rule(self, entry: InboxEntry) -> EventRule | None:
        callbacks = self._catalog.integration(entry.provider).callbacks
        return callbacks.events.get(entry.event or "") if callbacks is not None else None

    async def _forwarded(self, entry: InboxEntry, rule: EventRule) -> ForwardedEvent:
        provider, key, name = entry.provider, entry.event_key, entry.event or ""
        if rule.notify is None:
            visit = VisitStep(provider=provider, event=name, event_key=key)
            return ForwardedEvent(event_key=key, visit=visit)
        subscriber = self._catalog.subscriber(rule.notify)
        data = EventData(
            provider=provider,
            event=name,
            event_key=key,
            object=entry.object,
            call_id=await self._call_of(entry),
        )
        body = NoticeBody(
            id=provider_event_id(provider, key),
            type=f"event.{name}",
            timestamp=entry.received_at,
            data=data,
        )
        notice = Delivery(
            subscriber=rule.notify, body=body, timeout=subscriber.timeout, within=subscriber.within
        )
        return ForwardedEvent(event_key=key, notice=notice)

    async def _call_of(self, entry: InboxEntry) -> str | None:
        if entry.call_id is not None or entry.reference is None:
            return entry.call_id
        return await self._ledger.calls.find_by_reference(entry.provider, entry.reference)
