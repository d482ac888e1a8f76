"""What a callback goes through, step by step; nothing unsigned gets past the third."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.matching import find_event_key
from ackbridge.clock import Clock
from ackbridge.contracts.wire import InvalidInputError, read_json
from ackbridge.errors import SecretError, SignatureError, UnavailableError
from ackbridge.security.inbound import Verifier
from ackbridge.security.redaction import Redactor

from .body import BodyTooLargeError, ClientDisconnectedError, read_body
from .delivery import NOT_AWAITED, REPEATED, DeliveryResult, EventDelivery
from .exchange import CallbackReply, Exchange, document_of
from .inbound_event import InboundEvent, read_letter
from .recent_keys import RecentKeys

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 2 * 1024 * 1024 - 64 * 1024
"""Bytes of a message as the engine takes it: its own limit is 2 MiB."""

UNROUTED_LIMIT = 1024 * 1024
"""Bytes of a body whose provider does not exist."""

Check = Callable[[Exchange], CallbackReply | None]


class CallbackPipeline:
    """The steps in their order; the first one that has a reply ends the exchange."""

    def __init__(
        self,
        catalog: Catalog,
        verifiers: Mapping[str, Verifier],
        redactors: Mapping[str, Redactor],
        handover: EventDelivery,
        recent: RecentKeys,
        clock: Clock,
        *,
        read_within: timedelta,
        retry_after: timedelta,
    ) -> None:
        """Take the parts, how long a body may take to come, and when to come again on 503."""
        self._integrations = catalog.integrations
        self._verifiers = verifiers
        self._redactors = redactors
        self._handover = handover
        self._recent = recent
        self._clock = clock
        self._read_within = read_within.total_seconds()
        self._retry_after = max(1, round(retry_after.total_seconds()))
        self._checks: tuple[tuple[str, Check], ...] = (
            ("route", self._route),
            ("signature and replay window", self._signature),
            ("parse", self._parse),
            ("match", self._match),
        )

    async def receive(self, exchange: Exchange) -> CallbackReply:
        """Take one callback through the steps. A 2xx code means that it is durable."""
        try:
            return await self._walk(exchange)
        except UnavailableError as error:
            log.warning("callback put off: %s", error, extra=self._facts(exchange))
            return self._later("neither the engine nor the ledger can take it")
        except SecretError as error:
            log.error("callbacks cannot be verified: %s", error, extra=self._facts(exchange))  # noqa: TRY400 -- a trace could show what the reference stands for
            return self._later("verification is not set up")
        except ClientDisconnectedError:
            return CallbackReply(400, "incomplete")

    async def _walk(self, exchange: Exchange) -> CallbackReply:
        """Size, the checks, duplicate, hand over; the first step with a reply ends the exchange."""
        reply = await self._size(exchange)
        if reply is not None:
            return self._tell(exchange, "size", reply)
        for name, check in self._checks:
            reply = check(exchange)
            if reply is not None:
                return self._tell(exchange, name, reply)
        if exchange.letter is None:
            raise AssertionError("the last check reads the letter")
        return await self._deliver(exchange, exchange.letter)

    async def _deliver(self, exchange: Exchange, letter: InboundEvent) -> CallbackReply:
        replies = exchange.callbacks.replies
        if letter.matched and not letter.readings:
            await self._handover.suppress(letter, NOT_AWAITED)
            return self._tell(exchange, "match", CallbackReply(replies.accepted, "not awaited"))
        key = (letter.provider, letter.event_key)
        if not await self._recent.claim(key):
            await self._handover.suppress(letter, REPEATED)
            return self._tell(exchange, "duplicate", CallbackReply(replies.duplicate, "duplicate"))
        try:
            reply = await self._hand_over(exchange, letter)
        except BaseException:
            self._recent.release(key)
            raise
        self._recent.keep(key)
        return self._tell(exchange, "hand over", reply)

    def _tell(self, exchange: Exchange, step: str, reply: CallbackReply) -> CallbackReply:
        # What goes its ordinary way is told by the call's history.
        level = logging.DEBUG if reply.status == DeliveryResult.SIGNALLED else logging.INFO
        if log.isEnabledFor(level):
            reason = f": {reply.reason}" if reply.reason else ""
            extra = {**self._facts(exchange), "step": step, "status": reply.status}
            log.log(level, "callback %s at step %s%s", reply.status, step, reason, extra=extra)
        return reply

    def _facts(self, exchange: Exchange) -> dict[str, Any]:
        letter = exchange.letter
        return {
            "provider": exchange.provider if exchange.provider in self._integrations else None,
            **({"event_key": letter.event_key, "call_id": letter.call_id} if letter else {}),
        }

    async def _size(self, exchange: Exchange) -> CallbackReply | None:
        integration = self._integrations.get(exchange.provider)
        callbacks = integration.callbacks if integration else None
        limit = callbacks.max_bytes if callbacks else UNROUTED_LIMIT
        try:
            async with asyncio.timeout(self._read_within):
                exchange.body = await read_body(exchange.receive, exchange.headers, limit)
        except BodyTooLargeError:
            return CallbackReply(413, "too large", f"the limit is {limit} bytes")
        except TimeoutError:
            return CallbackReply(
                408, "too slow", f"the body has to come within {self._read_within:g} s"
            )
        return None

    def _route(self, exchange: Exchange) -> CallbackReply | None:
        integration = self._integrations.get(exchange.provider)
        if integration is None or integration.callbacks is None:
            return CallbackReply(404, "unknown", "no provider of that name sends callbacks here")
        exchange.integration = integration
        exchange.callbacks = integration.callbacks
        return None

    def _signature(self, exchange: Exchange) -> CallbackReply | None:
        try:
            self._verifiers[exchange.provider].verify(exchange.headers, exchange.body)
        except SignatureError as error:
            return CallbackReply(exchange.callbacks.replies.forged, "forged", str(error))
        return None

    def _parse(self, exchange: Exchange) -> CallbackReply | None:
        try:
            exchange.parsed = read_json(exchange.body)
        except InvalidInputError as error:
            return CallbackReply(exchange.callbacks.replies.unreadable, "unreadable", str(error))
        return None

    def _match(self, exchange: Exchange) -> CallbackReply | None:
        document = document_of(exchange)
        unreadable = exchange.callbacks.replies.unreadable
        try:
            event_key = find_event_key(exchange.integration, document)
            if event_key is None:
                return CallbackReply(unreadable, "unreadable", "event_key: the callback has none")
            letter = read_letter(
                exchange.integration,
                event_key,
                document,
                self._clock(),
                self._redactors[exchange.provider],
                len(exchange.body),
            )
        except ValueError as error:
            reason = (
                str(error) if isinstance(error, InvalidInputError) else "it makes no valid message"
            )
            return CallbackReply(unreadable, "unreadable", reason)
        exchange.letter = letter
        if _is_too_large(letter):
            return CallbackReply(413, "too large", f"a message may have {LARGEST_MESSAGE} bytes")
        return None

    async def _hand_over(self, exchange: Exchange, letter: InboundEvent) -> CallbackReply:
        replies = exchange.callbacks.replies
        delivery = await self._handover.hand_over(letter)
        if delivery is DeliveryResult.SIGNALLED or delivery is DeliveryResult.KEPT:
            return CallbackReply(replies.accepted, delivery.value)
        code = replies.duplicate if delivery is DeliveryResult.DUPLICATE else replies.unmatched
        return CallbackReply(code, delivery.value)

    def _later(self, reason: str) -> CallbackReply:
        return CallbackReply(503, "try again", reason, retry_after=self._retry_after)


def _is_too_large(letter: InboundEvent) -> bool:
    # What is picked from a body is hardly ever larger than the body.
    return letter.size > LARGEST_MESSAGE // 2 and any(
        len(reading.message.model_dump_json().encode()) > LARGEST_MESSAGE
        for reading in letter.readings
    )
