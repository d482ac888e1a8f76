"""Deliver an event once: to its call through the engine, or to the ledger's inbox."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from pydantic_core import to_json

from ackbridge.contracts.bulk import HostedMessage
from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.contracts.limits import LARGE_BODY_BYTES, MAX_REASON_LENGTH
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.errors import EngineUnavailableError, LedgerUnavailableError
from ackbridge.ledger.bodies import store_if_large
from ackbridge.ledger.calls import CallStore
from ackbridge.ledger.inbox import InboxEntry, InboxState
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import Count, Counters

from .event import EventDocument, InboundEvent, Interpretation, to_inbox_entry
from .forwarding import EventForwarder
from .signal_batching import SignalBatcher, SignalResult

log = logging.getLogger(__name__)

REPEATED = "repeated by the provider"
RECORDED = "already recorded as a response"
NOT_AWAITED = "not awaited: no response, failure or extension"

MEASURED_FROM = LARGE_BODY_BYTES // 16
"""Bytes of an event from which its message is measured: JSON grows when it is written again."""

MAX_TOGETHER = 200
"""Events of one delivery that are in progress at once."""


class DeliveryResult(StrEnum):
    """What became of an event. The values are the `status` of replies."""

    SIGNALLED = "signalled"
    KEPT = "kept"
    UNMATCHED = "unmatched"
    DUPLICATE = "duplicate"
    NOT_AWAITED = "not awaited"
    IGNORED = "ignored"
    FORWARDED = "forwarded"


class EventDelivery:
    """Delivers events. When `deliver` returns, the event is durable or needs no delivery."""

    def __init__(
        self,
        batcher: SignalBatcher,
        forwarder: EventForwarder,
        ledger: Ledger,
        counters: Counters,
        recent_keys: int,
    ) -> None:
        """Count duplicates in `counters`, and keep the last `recent_keys` event keys."""
        self._batcher = batcher
        self._forwarder = forwarder
        self._ledger = ledger
        self._counters = counters
        self._recent = RecentKeys(recent_keys)
        self._hosts = HostDirectory(ledger.calls, recent_keys)

    async def deliver(self, event: InboundEvent) -> DeliveryResult:
        """Signal the call, or store the event in the inbox.

        Concurrent deliveries of the same event wait for the first one.

        Raises:
            LedgerUnavailableError: neither the engine nor the inbox could store the event.
        """
        if event.matches and not event.interpretations and event.rule is None:
            return await self._store_unclassified(event)
        key = (event.provider, event.event_key)
        if not await self._recent.claim(key):
            await self._suppress(event, REPEATED)
            return DeliveryResult.DUPLICATE
        try:
            result = await self._signal_or_store(event)
        except BaseException:
            self._recent.release(key)
            raise
        self._recent.complete(key)
        return result

    async def deliver_all(self, events: Sequence[InboundEvent]) -> list[DeliveryResult]:
        """Deliver the events of one delivery, with one signal for each call that they touch.

        Raises:
            LedgerUnavailableError: some could be stored by neither engine nor inbox.
        """
        results: list[DeliveryResult] = []
        for begin in range(0, len(events), MAX_TOGETHER):
            results += await self._deliver_together(events[begin : begin + MAX_TOGETHER])
        return results

    def count_ignored(self, provider: str, number: int) -> None:
        """Count events that the provider's file ignores."""
        self._counters.count(provider, WHOLE_PROVIDER, Count.IGNORED, number)

    async def keep_unreadable(
        self,
        provider: str,
        documents: Sequence[EventDocument],
        reason: str,
        received_at: datetime,
    ) -> None:
        """Keep genuine deliveries or events that cannot be read, each once, for operators.

        Raises:
            LedgerUnavailableError: they could not be stored.
        """
        for document in documents:
            entry = InboxEntry(
                provider=provider,
                event_key=f"unreadable:{sha256(to_json(document['body'])).hexdigest()}",
                operation=None,
                call_id=None,
                reference=None,
                message=None,
                document=document,
                received_at=received_at,
            )
            await self._ledger.inbox.store_unclassified(entry, reason[:MAX_REASON_LENGTH])

    async def find_call(self, event: InboundEvent) -> tuple[str, Interpretation] | None:
        """The call that an event is for, and its meaning; raises `LedgerUnavailableError`."""
        for interpretation in event.interpretations:
            match = interpretation.match
            call_id = match.call_id
            if call_id is None and match.reference is not None:
                call_id = await self._ledger.calls.find_by_reference(
                    event.provider, match.reference
                )
            # A reference may belong to a call of another operation.
            prefix = f"{event.provider}.{match.operation}."
            if call_id is not None and call_id.startswith(prefix):
                return call_id, interpretation
        return None

    async def _deliver_together(self, events: Sequence[InboundEvent]) -> list[DeliveryResult]:
        first: dict[str, InboundEvent] = {}
        for event in events:
            first.setdefault(event.event_key, event)
        results: dict[str, DeliveryResult] = {}
        claimed: list[str] = []
        try:
            # In one order, so that no two deliveries can wait for each other.
            for key in sorted(first):
                if await self._recent.claim((first[key].provider, key)):
                    claimed.append(key)
                else:
                    await self._suppress(first[key], REPEATED)
                    results[key] = DeliveryResult.DUPLICATE
            fresh = [event for key, event in first.items() if key not in results]
            await self._signal_or_store_all(fresh, results)
        finally:
            for key in claimed:
                settle = self._recent.complete if key in results else self._recent.release
                settle((first[key].provider, key))
        replies = []
        for event in events:
            is_first = first[event.event_key] is event
            replies.append(results[event.event_key] if is_first else DeliveryResult.DUPLICATE)
        return replies

    async def _signal_or_store_all(
        self, events: Sequence[InboundEvent], results: dict[str, DeliveryResult]
    ) -> None:
        """Deliver events side by side, those for one call together; fills `results`."""
        of_targets: dict[str, list[tuple[InboundEvent, str, Interpretation]]] = {}
        others: list[InboundEvent] = []
        for event in events:
            found = await self.find_call(event)
            if found is None:
                others.append(event)
            else:
                target = await self._hosts.find(found[0]) or found[0]
                of_targets.setdefault(target, []).append((event, *found))
        ended = await asyncio.gather(
            *(self._signal_together(one, parts, results) for one, parts in of_targets.items()),
            return_exceptions=True,
        )
        for event in others:
            results[event.event_key] = await self._deliver_uncalled(event)
        for error in ended:
            if error is not None:
                raise error

    async def _signal_together(
        self,
        target: str,
        parts: Sequence[tuple[InboundEvent, str, Interpretation]],
        results: dict[str, DeliveryResult],
    ) -> None:
        """Signal a call, or the host of several calls."""
        messages: list[tuple[ProviderMessage, int, str | None]] = []
        for event, call_id, one in parts:
            message = await self._bounded(call_id, event, one)
            if target != call_id:
                message = HostedMessage.of(message, call_id)
            messages.append((message, event.size, event.traceparent))
        signalled = await self._batcher.send_all(target, parts[0][0].provider, messages)
        for (event, _, _), result in zip(parts, signalled, strict=True):
            if result is SignalResult.DELIVERED:
                results[event.event_key] = DeliveryResult.SIGNALLED
            else:
                can_signal = result is not SignalResult.UNANSWERED
                results[event.event_key] = await self._store_and_look(event, can_signal=can_signal)

    async def _deliver_uncalled(self, event: InboundEvent) -> DeliveryResult:
        if event.interpretations:
            return await self._store_and_look(event, can_signal=True)
        if event.matches and event.rule is None:
            return await self._store_unclassified(event)
        return await self._forward_or_store(event)

    async def _forward_or_store(self, event: InboundEvent) -> DeliveryResult:
        """Deliver an event that no operation classifies: it is the file's, or an operator's."""
        result = await self._store(event)
        if event.rule is None or result is DeliveryResult.DUPLICATE:
            return result
        try:
            await self._forwarder.forward(event)
        except (EngineUnavailableError, LedgerUnavailableError) as error:
            log.warning("the sweeper will forward a stored event: %s", error)
            return DeliveryResult.KEPT
        return DeliveryResult.FORWARDED

    async def _store_and_look(self, event: InboundEvent, *, can_signal: bool) -> DeliveryResult:
        result = await self._store(event)
        is_kept = result is DeliveryResult.KEPT
        return await self._signal_stored(event) if is_kept and can_signal else result

    async def _store_unclassified(self, event: InboundEvent) -> DeliveryResult:
        # A typo in a rule, or an event type that is new: an operator can have it read again.
        await self._ledger.inbox.store_unclassified(to_inbox_entry(event), NOT_AWAITED)
        await self._suppress(event, NOT_AWAITED)
        return DeliveryResult.NOT_AWAITED

    async def _signal_or_store(self, event: InboundEvent) -> DeliveryResult:
        if not event.interpretations:
            return await self._forward_or_store(event)
        try:
            if await self._signal(event):
                return DeliveryResult.SIGNALLED
        except EngineUnavailableError:
            return await self._store(event)
        return await self._store_and_look(event, can_signal=True)

    async def _signal(self, event: InboundEvent) -> bool:
        found = await self.find_call(event)
        if found is None:
            return False
        call_id, interpretation = found
        message = await self._bounded(call_id, event, interpretation)
        result = await self.signal_call(
            call_id, event.provider, message, event.size, event.traceparent
        )
        return result is SignalResult.DELIVERED

    async def signal_call(
        self,
        call_id: str,
        provider: str,
        message: ProviderMessage,
        size: int = 0,
        traceparent: str | None = None,
    ) -> SignalResult:
        """Signal a call in its own workflow, or in the host that has it; as `SignalBatcher.send`.

        Args:
            size: of the body of the message, in bytes.
        """
        host = await self._hosts.find(call_id)
        if host is not None:
            hosted = HostedMessage.of(message, call_id)
            result = await self._batcher.send(host, provider, hosted, size, traceparent)
            if result is not SignalResult.NO_OPEN_CALL:
                return result
            # The host has ended. The call may have moved into a workflow of its own before.
            self._hosts.forget(call_id)
        return await self._batcher.send(call_id, provider, message, size, traceparent)

    async def _bounded(
        self, call_id: str, event: InboundEvent, interpretation: Interpretation
    ) -> ProviderMessage:
        """The message, with a reference in place of data that is large as JSON."""
        message = interpretation.message
        if event.size <= MEASURED_FROM:
            return message
        data = await store_if_large(self._ledger.bodies, call_id, message.event_key, message.data)
        return message if data is message.data else message.model_copy(update={"data": data})

    async def _store(self, event: InboundEvent) -> DeliveryResult:
        if await self._ledger.calls.is_event_recorded(event.provider, event.event_key):
            await self._suppress(event, RECORDED)
            return DeliveryResult.DUPLICATE
        if not await self._ledger.inbox.store(to_inbox_entry(event)):
            await self._suppress(event, REPEATED)
            return DeliveryResult.DUPLICATE
        return DeliveryResult.KEPT if event.matches else DeliveryResult.UNMATCHED

    async def _signal_stored(self, event: InboundEvent) -> DeliveryResult:
        """Signal again, in case the call appeared after the first try and before the row.

        The call commits its reference first and reads the inbox then, so one side sees the other.
        The event is durable by now: what fails here is left to the sweeper.
        """
        try:
            if not await self._signal(event):
                return DeliveryResult.KEPT
            stored = await self._ledger.inbox.look(
                event.call_id or "", event.provider, [event.reference] if event.reference else []
            )
            ids = [row.id for row in stored if row.entry.event_key == event.event_key]
            await self._ledger.inbox.settle(ids, InboxState.DELIVERED)
        except (EngineUnavailableError, LedgerUnavailableError) as error:
            log.warning("the sweeper will deliver a stored callback: %s", error)
            return DeliveryResult.KEPT
        return DeliveryResult.SIGNALLED

    async def _suppress(self, event: InboundEvent, reason: str) -> None:
        extra = {"provider": event.provider, "event_key": event.event_key, "reason": reason}
        log.info("callback suppressed: %s", reason, extra=extra)
        if reason != NOT_AWAITED:
            operations = {match.operation for match in event.matches}
            operation = operations.pop() if len(operations) == 1 else WHOLE_PROVIDER
            self._counters.count(event.provider, operation, Count.DUPLICATES)
        try:
            await self._ledger.inbox.log_suppressed(
                event.provider, event.event_key, event.call_id, reason
            )
        except LedgerUnavailableError:
            log.warning("could not record a suppressed callback in the ledger", extra=extra)


class HostDirectory:
    """The workflows that host calls with others; the ledger knows them from the claims.

    Lookups that come while the ledger is being read share the next read.
    """

    def __init__(self, calls: CallStore, capacity: int) -> None:
        """Remember the hosts of `capacity` calls; a call's host never changes."""
        self._calls = calls
        self._capacity = capacity
        self._known: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, asyncio.Future[str | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, call_id: str) -> str | None:
        """The workflow id of the call's host; None: its own, or it is not known."""
        if (known := self._known.get(call_id)) is not None:
            return known
        found = self._asked.get(call_id)
        if found is None:
            found = self._asked[call_id] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="hosts of calls")
        # Several may wait for it, and one of them may be cancelled.
        return await asyncio.shield(found)

    def forget(self, call_id: str) -> None:
        """The host has ended."""
        self._known.pop(call_id, None)

    async def _read(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    hosts = await self._calls.hosts(list(asked))
                except LedgerUnavailableError:
                    # A call that has its own workflow is found without the ledger.
                    hosts = {}
                except BaseException:
                    for found in asked.values():
                        found.cancel()
                    raise
                for call_id, found in asked.items():
                    self._remember(call_id, hosts.get(call_id))
                    found.set_result(hosts.get(call_id))
        finally:
            self._reading = None

    def _remember(self, call_id: str, host: str | None) -> None:
        if host is not None:
            self._known[call_id] = host
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)


EventId = tuple[str, str]
"""Provider and event key."""


class RecentKeys:
    """The events that this process delivered last, and those in progress.

    For one event loop. Duplicates that reach several gateways are stopped by engine and ledger.
    """

    def __init__(self, capacity: int) -> None:
        """Remember `capacity` events, the least recently seen go first; some 200 bytes each."""
        self._capacity = capacity
        self._completed: OrderedDict[EventId, None] = OrderedDict()
        # The value is set only when a duplicate waits, which is rare.
        self._in_progress: dict[EventId, asyncio.Event | None] = {}

    async def claim(self, key: EventId) -> bool:
        """Claim an event; wait while another delivery of it is in progress.

        False if it was delivered; if True, the caller has to, and to call `complete` or `release`.
        """
        while key in self._in_progress:
            ended = self._in_progress[key]
            if ended is None:
                ended = self._in_progress[key] = asyncio.Event()
            await ended.wait()
        if key in self._completed:
            self._completed.move_to_end(key)
            return False
        self._in_progress[key] = None
        return True

    def complete(self, key: EventId) -> None:
        self._completed[key] = None
        if len(self._completed) > self._capacity:
            self._completed.popitem(last=False)
        self.release(key)

    def release(self, key: EventId) -> None:
        """Give up a claim: the next caller has to deliver the event."""
        ended = self._in_progress.pop(key)
        if ended is not None:
            ended.set()
