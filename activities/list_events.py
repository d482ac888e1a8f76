"""The activity `list_events`: read a page of a provider's own events, and deliver them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from temporalio import activity

from ackbridge.catalog.callbacks import CallbackSpec, ListSpec
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import render_event_list
from ackbridge.contracts import names
from ackbridge.contracts.catch_up import ListedEvents, ListEventsStep
from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.contracts.steps import StepFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.gateway.delivery import DeliveryResult, EventDelivery
from ackbridge.gateway.event import (
    EventDocument,
    InboundEvent,
    event_key_of,
    make_document,
    read_event,
)
from ackbridge.gateway.forwarding import EventForwarder
from ackbridge.gateway.signal_batching import EngineClient, SignalBatcher
from ackbridge.stats.counters import Count
from activities.support.dependencies import Dependencies
from activities.support.provider_http import fetch_document
from activities.support.retry import classified_errors

log = logging.getLogger(__name__)

SIGNAL_TIMEOUT: Final = timedelta(seconds=10)
RECENT_KEYS: Final = 1000
MAX_PAGE_TOKEN: Final = 4096
"""Characters of what leads to the next page: it is in the history."""

UNREADABLE: Final = "unreadable"
_UNAWAITED: Final = (DeliveryResult.NOT_AWAITED, DeliveryResult.UNMATCHED)


class ListEvents:
    """Runs for `CatchUp`; events go the way of callbacks, without their signature."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.LIST_EVENTS)
    async def list_events(self, step: ListEventsStep) -> ListedEvents:
        """Read one page, and deliver its events; they are durable when it returns.

        Raises:
            ApplicationError: NoReceipt or Unavailable, to be tried again; final where the provider
                has no list of events, refuses the request, or answers what is no list.
        """
        with classified_errors(StepFailure.NO_RECEIPT):
            integration = self._deps.catalog.integration(step.provider)
            callbacks = integration.callbacks
            if callbacks is None or callbacks.list is None:
                raise InvalidInputError(f"{step.provider}: the file has no callbacks.list")
            answer = await self._page(integration, callbacks.list, step)
            listed = callbacks.list.each.search(answer)
            if not isinstance(listed, list):
                raise InvalidInputError("callbacks.list.each: the answer has no list there")
            results, problem = await self._deliver(integration, callbacks, listed)
            return ListedEvents(
                events=dict(results),
                next_page=_next_page(callbacks.list, answer, step) if listed else None,
                max_pages=callbacks.list.pages,
                last_problem=problem,
            )

    async def _page(
        self, integration: Integration, spec: ListSpec, step: ListEventsStep
    ) -> EventDocument:
        times = {"since": step.since.isoformat(), "until": step.until.isoformat()}
        outbound = render_event_list(integration, spec, {**times, "page": step.page})
        return await fetch_document(self._deps, integration, outbound)

    async def _deliver(
        self, integration: Integration, callbacks: CallbackSpec, listed: list[Any]
    ) -> tuple[Counter[str], str | None]:
        results: Counter[str] = Counter()
        problem = None
        events: list[InboundEvent] = []
        delivery = self._delivery()
        for document in _documents(listed):
            if callbacks.ignore is not None and callbacks.ignore.holds(document):
                results[DeliveryResult.IGNORED.value] += 1
                continue
            try:
                event = self._read(integration, document)
            except ValueError as error:
                results[UNREADABLE] += 1
                is_ours = isinstance(error, InvalidInputError)
                problem = str(error) if is_ours else "it is not a valid message"
                continue
            if not event.interpretations and event.rule is None:
                # A list has what nobody subscribed to: it is not kept for operators.
                results[_unawaited(event).value] += 1
                continue
            if await self._deps.ledger.calls.is_event_recorded(event.provider, event.event_key):
                results[DeliveryResult.DUPLICATE.value] += 1
            else:
                events.append(event)
        delivered = await delivery.deliver_all(events)
        # What is delivered may be for nobody, too, and is kept then.
        self._report_dropped(integration.provider, results, problem)
        if ignored := results[DeliveryResult.IGNORED.value]:
            delivery.count_ignored(integration.provider, ignored)
        results.update(result.value for result in delivered)
        return results, problem

    def _report_dropped(self, provider: str, results: Counter[str], problem: str | None) -> None:
        """Count and log the events that are not kept."""
        unreadable = results[UNREADABLE]
        unawaited = sum(results[one.value] for one in _UNAWAITED)
        counters = self._deps.counters
        counters.count(provider, WHOLE_PROVIDER, Count.LISTED_UNREADABLE, unreadable)
        counters.count(provider, WHOLE_PROVIDER, Count.LISTED_UNAWAITED, unawaited)
        if unreadable:
            log.warning("%s: %d listed events cannot be read: %s", provider, unreadable, problem)
        if unawaited:
            log.info("%s: %d listed events are for nobody, and not kept", provider, unawaited)

    def _read(self, integration: Integration, document: EventDocument) -> InboundEvent:
        key = event_key_of(integration, document)
        redactor = self._deps.provider_redactor(integration.provider)
        return read_event(integration, key, document, self._deps.clock(), redactor)

    def _delivery(self) -> EventDelivery:
        deps = self._deps
        engine = EngineClient(activity.client(), SIGNAL_TIMEOUT)
        forwarder = EventForwarder(engine, deps.ledger, deps.catalog)
        batcher = SignalBatcher(engine)
        return EventDelivery(batcher, forwarder, deps.ledger, deps.counters, RECENT_KEYS)


def _unawaited(event: InboundEvent) -> DeliveryResult:
    return DeliveryResult.NOT_AWAITED if event.matches else DeliveryResult.UNMATCHED


def _documents(listed: list[Any]) -> Iterator[EventDocument]:
    return (make_document(body, {}, {}) for body in listed)


def _next_page(spec: ListSpec, answer: EventDocument, step: ListEventsStep) -> Any:
    """What leads to the next page; a page that leads to itself is the last one."""
    found = spec.next.search(answer) if spec.next is not None else None
    if isinstance(found, bool) or not isinstance(found, str | int | float) or found == step.page:
        return None
    if len(str(found)) > MAX_PAGE_TOKEN:
        raise InvalidInputError(f"callbacks.list.next: longer than {MAX_PAGE_TOKEN} characters")
    return found or None
