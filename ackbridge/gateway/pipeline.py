"""The stages of a callback: size, route, signature, parse, match, delivery.

Nothing of a callback is parsed, stored or logged before its signature is verified.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive

from ackbridge.catalog.callbacks import CallbackSpec, ReplyCodes
from ackbridge.catalog.matching import find_event_key
from ackbridge.catalog.model import Integration
from ackbridge.clock import Clock
from ackbridge.contracts.wire import InvalidInputError, read_json
from ackbridge.errors import SecretError, SignatureError, UnavailableError
from ackbridge.security.inbound import Verifier
from ackbridge.security.redaction import Redactor
from ackbridge.security.specs import HeaderVerify

from .delivery import DeliveryResult, EventDelivery
from .event import InboundEvent, read_event

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 2 * 1024 * 1024 - 64 * 1024
"""Bytes of a message: the engine's own limit is 2 MiB."""

UNROUTED_LIMIT = 1024 * 1024
"""Bytes of a body for a provider that does not exist."""

_CREDENTIALS = {"authorization", "proxy-authorization", "cookie"}


@dataclass(frozen=True)
class CallbackSource:
    integration: Integration
    callbacks: CallbackSpec
    verifier: Verifier
    redactor: Redactor


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """A request whose body has not been read; headers by lower-case name, the query raw."""

    provider: str
    headers: Mapping[str, str]
    query: bytes
    receive: Receive


@dataclass(frozen=True, slots=True)
class ReceivedCallback:
    """A callback of a known provider, within its size limit; not verified."""

    source: CallbackSource
    headers: Mapping[str, str]
    query: bytes
    body: bytes


class VerifiedCallback(ReceivedCallback):
    """A callback whose signature and timestamp are valid."""

    __slots__ = ()


@dataclass(frozen=True)
class CallbackReply:
    """The reply; `reason` is safe for unauthenticated senders, `retry_after` in seconds."""

    code: int
    status: str
    reason: str | None = None
    retry_after: int | None = None


class CallbackRejectedError(Exception):
    """A stage rejected the callback; `reply` says why."""

    def __init__(self, reply: CallbackReply) -> None:
        self.reply = reply
        super().__init__(reply.status)


@dataclass
class CallbackPipeline:
    sources: Mapping[str, CallbackSource]  # by provider
    delivery: EventDelivery
    clock: Clock
    body_timeout: timedelta
    retry_after: timedelta  # of a 503

    async def handle(self, request: CallbackRequest) -> CallbackReply:
        """Handle one callback. With a 2xx reply, its event is durable."""
        try:
            received = await self._receive(request)
            event = self._interpret(self._verify(received))
        except CallbackRejectedError as rejection:
            provider = request.provider if request.provider in self.sources else None
            return _logged(rejection.reply, provider)
        return await self._deliver(event, received.source.callbacks.replies)

    async def _receive(self, request: CallbackRequest) -> ReceivedCallback:
        source = self.sources.get(request.provider)
        limit = source.callbacks.max_bytes if source else UNROUTED_LIMIT
        try:
            async with asyncio.timeout(self.body_timeout.total_seconds()):
                body = await _read_body(request, limit)
        except TimeoutError:
            seconds = self.body_timeout.total_seconds()
            reason = f"the body did not arrive within {seconds:g} s"
            raise _rejected(408, "too slow", reason) from None
        if source is None:
            raise _rejected(404, "unknown", "no provider of that name sends callbacks here")
        return ReceivedCallback(source, request.headers, request.query, body)

    def _verify(self, received: ReceivedCallback) -> VerifiedCallback:
        source = received.source
        try:
            source.verifier.verify(received.headers, received.body)
        except SignatureError as error:
            raise _rejected(source.callbacks.replies.forged, "forged", str(error)) from None
        except SecretError as error:
            extra = {"provider": source.integration.provider}
            log.error("callbacks cannot be verified: %s", error, extra=extra)  # noqa: TRY400 -- a traceback could show the secret
            raise CallbackRejectedError(self._try_again("verification is not set up")) from None
        return VerifiedCallback(source, received.headers, received.query, received.body)

    def _interpret(self, verified: VerifiedCallback) -> InboundEvent:
        source = verified.source
        try:
            document = _document(verified)
            event_key = find_event_key(source.integration, document)
            if event_key is None:
                raise InvalidInputError("event_key: the callback has none")
            event = read_event(
                source.integration,
                event_key,
                document,
                self.clock(),
                source.redactor,
                len(verified.body),
            )
        except ValueError as error:
            is_ours = isinstance(error, InvalidInputError)
            reason = str(error) if is_ours else "it is not a valid message"
            code = source.callbacks.replies.unreadable
            raise _rejected(code, "unreadable", reason) from None
        if _is_too_large(event):
            raise _rejected(413, "too large", f"a message may have {LARGEST_MESSAGE} bytes")
        return event

    async def _deliver(self, event: InboundEvent, replies: ReplyCodes) -> CallbackReply:
        try:
            result = await self.delivery.deliver(event)
        except UnavailableError as error:
            log.warning("callback could not be stored: %s", error, extra=_fields(event))
            return self._try_again("neither the engine nor the ledger is available")
        return _logged(CallbackReply(_code(result, replies), result.value), event.provider, event)

    def _try_again(self, reason: str) -> CallbackReply:
        seconds = max(1, round(self.retry_after.total_seconds()))
        return CallbackReply(503, "try again", reason, retry_after=seconds)


async def _read_body(request: CallbackRequest, limit: int) -> bytes:
    """Read the raw body; stop as soon as it is known to be longer than `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _body_too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise _rejected(400, "incomplete", "the connection was closed within the body")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _body_too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _document(verified: VerifiedCallback) -> dict[str, Any]:
    """What expressions see, without credentials: documents are stored in the ledger."""
    excluded = _CREDENTIALS
    verify = verified.source.callbacks.verify
    if isinstance(verify, HeaderVerify):
        excluded = excluded | {verify.name.lower()}
    body = read_json(verified.body)
    return {
        **(body if isinstance(body, dict) else {}),
        "body": body,
        "headers": {name: text for name, text in verified.headers.items() if name not in excluded},
        "query": dict(parse_qsl(verified.query.decode("latin-1"), keep_blank_values=True)),
    }


def _is_too_large(event: InboundEvent) -> bool:
    # A message is rarely larger than the body it was taken from: only large bodies are measured.
    return event.size > LARGEST_MESSAGE // 2 and any(
        len(interpretation.message.model_dump_json().encode()) > LARGEST_MESSAGE
        for interpretation in event.interpretations
    )


def _code(result: DeliveryResult, replies: ReplyCodes) -> int:
    codes = {
        DeliveryResult.DUPLICATE: replies.duplicate,
        DeliveryResult.UNMATCHED: replies.unmatched,
    }
    return codes.get(result, replies.accepted)


def _rejected(code: int, status: str, reason: str) -> CallbackRejectedError:
    return CallbackRejectedError(CallbackReply(code, status, reason))


def _body_too_large(limit: int) -> CallbackRejectedError:
    return _rejected(413, "too large", f"the limit is {limit} bytes")


def _fields(event: InboundEvent) -> dict[str, str | None]:
    return {"provider": event.provider, "event_key": event.event_key, "call_id": event.call_id}


def _logged(
    reply: CallbackReply, provider: str | None, event: InboundEvent | None = None
) -> CallbackReply:
    # A signalled callback is in the history of its call.
    level = logging.DEBUG if reply.status == DeliveryResult.SIGNALLED else logging.INFO
    if log.isEnabledFor(level):
        reason = f": {reply.reason}" if reply.reason else ""
        fields = _fields(event) if event else {"provider": provider}
        extra = {**fields, "status": reply.status}
        log.log(level, "callback %s%s", reply.status, reason, extra=extra)
    return reply
