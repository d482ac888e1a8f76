"""The stages of a callback: size, route, signature, parse, match, delivery.

Nothing of a callback is parsed, stored or logged before its signature is verified, but for the
handshakes that a file declares to be unsigned.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from pydantic_core import to_json
from starlette.types import Receive

from ackbridge.catalog.callbacks import CallbackSpec, HandshakeRule, ReplyCodes
from ackbridge.catalog.kept_fields import (
    ALWAYS,
    event_expressions,
    is_credential,
    kept_fields,
)
from ackbridge.catalog.model import Integration
from ackbridge.catalog.wire_formats import READERS, in_utf8, read_form
from ackbridge.clock import Clock
from ackbridge.contracts.wire import (
    MAX_JSON_DEPTH,
    InvalidInputError,
    check_json,
    read_json,
    read_json_unchecked,
)
from ackbridge.errors import SecretError, SignatureError, UnavailableError
from ackbridge.security.callback_urls import CallbackUrls
from ackbridge.security.inbound import Verifier
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import HeaderVerify

from .connections import is_within, source_of
from .delivery import DeliveryResult, EventDelivery
from .event import (
    EventDocument,
    InboundEvent,
    event_key_of,
    find_handshake,
    make_document,
    read_event,
    reads_delivery,
    split_delivery,
)
from .handshake import render_handshake
from .rejections import FORGED, NO_PROVIDER, REFUSED_SOURCE, Rejections, SourceLimiter

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 8 * 1024 * 1024
"""Bytes of a message as JSON; large ones are stored in the ledger and signalled by reference."""

UNROUTED_LIMIT = 1024 * 1024
"""Bytes of a body for a provider that does not exist."""

_CREDENTIALS = {"authorization", "proxy-authorization", "cookie"}


Read: TypeAlias = "Callable[[ReceivedCallback], Any]"


@dataclass(frozen=True)
class CallbackSource:
    """A provider that calls back.

    Attributes:
        urls: verify its callbacks instead of the verifier, where each call has its own URL.
        replies: by what became of an event.
        read: the body of a delivery; raises `InvalidInputError`.
        hidden: headers that not even handshakes see.
        kept_headers, kept_query: the names that documents have, which may be stored; None: all.
        has_whole: whether the file reads the whole body beside an event.
        takes_get: whether its deliveries, or its handshakes, may be GET requests, and others that
            change nothing.
    """

    integration: Integration
    callbacks: CallbackSpec
    verifier: Verifier
    urls: CallbackUrls | None
    redactor: Redactor
    replies: Mapping[DeliveryResult, CallbackReply]
    read: Read
    hidden: frozenset[str]
    kept_headers: frozenset[str] | None
    kept_query: frozenset[str] | None
    has_whole: bool
    takes_get: bool

    @classmethod
    def build(
        cls,
        integration: Integration,
        callbacks: CallbackSpec,
        verifier: Verifier,
        urls: CallbackUrls | None,
        redactor: Redactor,
    ) -> CallbackSource:
        """Build the source of one integration."""
        hidden = _hidden_headers(callbacks)
        return cls(
            integration,
            callbacks,
            verifier,
            urls,
            redactor,
            {result: _accepted(result, callbacks.replies) for result in DeliveryResult},
            _reader(integration, callbacks),
            hidden,
            kept_fields(integration, "headers", hidden=hidden, always=ALWAYS),
            kept_fields(integration, "query"),
            has_whole=reads_delivery(integration),
            takes_get=callbacks.encoding == "query" or bool(callbacks.handshakes),
        )


class CallbackRequest(NamedTuple):
    """A request whose body has not been read; headers by lower-case name, the query raw.

    Attributes:
        client: the address of whoever sent it to us, or to a trusted proxy.
        token: what the URL has behind the provider, "" for nothing.
    """

    provider: str
    method: str
    headers: Mapping[str, str]
    query: bytes
    receive: Receive
    client: str
    token: str = ""


class ReceivedCallback(NamedTuple):
    """A callback of a known provider, within its size limit; not verified.

    Attributes:
        call_id: the call that its URL was made for, once that is verified.
    """

    source: CallbackSource
    method: str
    headers: Mapping[str, str]
    query: bytes
    body: bytes
    token: str
    call_id: str | None = None


class VerifiedCallback(ReceivedCallback):
    """A callback whose signature and timestamp are valid."""

    __slots__ = ()


@dataclass(frozen=True)
class CallbackReply:
    """The reply.

    Attributes:
        reason: safe for unauthenticated senders.
        retry_after: in seconds.
        content: the text of its body; None: JSON with `status` and `reason`.
        headers: besides those of the body.
        closes: whether the connection is closed then, because of what else its client may send.
    """

    code: int
    status: str
    reason: str | None = None
    retry_after: int | None = None
    content: str | None = None
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False


class ReplyDecidedError(Exception):
    """A stage replies, and nothing is delivered: a rejection, or a handshake."""

    def __init__(self, reply: CallbackReply, explanation: str | None = None) -> None:
        """`explanation` is for the log, where the sender must not see the reason."""
        self.reply = reply
        self.explanation = explanation or reply.reason
        super().__init__(reply.status)


class UnreadEvent(NamedTuple):
    """An event that cannot be stored as it is; its document has the body as text."""

    document: EventDocument
    problem: InvalidInputError


class Interpreted(NamedTuple):
    """The events of a delivery.

    Attributes:
        ignored: how many the provider's file ignores.
        rejection: the reply, where not all of its events can be read.
        unreadable: what cannot be read, and is genuine all the same.
        is_refused: whether something of it is not kept.
    """

    events: list[InboundEvent]
    ignored: int = 0
    rejection: CallbackReply | None = None
    unreadable: tuple[EventDocument, ...] = ()
    is_refused: bool = False


@dataclass
class CallbackPipeline:
    sources: Mapping[str, CallbackSource]  # by provider
    delivery: EventDelivery
    clock: Clock
    secrets: Secrets
    rejections: Rejections
    retry_after: timedelta  # of a 503
    forgeries: SourceLimiter = field(default_factory=SourceLimiter)
    genuine: SourceLimiter = field(default_factory=SourceLimiter)

    async def handle(self, request: CallbackRequest) -> CallbackReply:
        """Handle one callback. With a 2xx reply, its events are durable."""
        self.secrets.use_in_task()
        try:
            received = await self._receive(request)
            verified = self._verify(received)
            self._limit(verified, request.client)
            interpreted = self._interpret(verified)
        except ReplyDecidedError as decided:
            return self._decided(decided, request)
        return await self._deliver(interpreted, received.source)

    def _decided(self, decided: ReplyDecidedError, request: CallbackRequest) -> CallbackReply:
        """Anybody can send what is rejected: it is counted, and not everything is logged."""
        reply = decided.reply
        if reply.status == HANDSHAKE:
            return reply
        provider = request.provider if request.provider in self.sources else NO_PROVIDER
        source = source_of(request.client)
        self.rejections.note(provider, source, reply.status, decided.explanation)
        if reply.status == FORGED and not self.forgeries.take(
            provider, source, FORGERIES_PER_SECOND, FORGERIES_AT_ONCE
        ):
            return TOO_MANY_FORGERIES
        return reply

    async def _receive(self, request: CallbackRequest) -> ReceivedCallback:
        source = self.sources.get(request.provider)
        if request.method != "POST" and not (source and source.takes_get):
            raise ReplyDecidedError(WRONG_METHOD)
        if source and not _may_send(source.callbacks, request.client):
            raise ReplyDecidedError(NOT_ALLOWED)
        limit = source.callbacks.max_bytes if source else UNROUTED_LIMIT
        body = await _read_body(request, limit)
        if source is None or (request.token and source.urls is None):
            raise _rejected(404, "unknown", "no provider of that name sends callbacks here")
        return ReceivedCallback(
            source, request.method, request.headers, request.query, body, request.token
        )

    def _verify(self, received: ReceivedCallback) -> VerifiedCallback:
        source = received.source
        call_id = None
        try:
            if source.urls is not None:
                call_id = source.urls.call_of(received.token)
            else:
                source.verifier.verify(received.headers, received.body)
        except SignatureError as error:
            _answer_unsigned_handshake(received)
            raise _rejected(source.callbacks.replies.forged, FORGED, str(error)) from None
        except SecretError as error:
            _answer_unsigned_handshake(received)
            reply = self._try_again("verification is not set up")
            raise ReplyDecidedError(reply, f"cannot be verified: {error}") from None
        return VerifiedCallback(*received[:-1], call_id)

    def _limit(self, verified: VerifiedCallback, client: str) -> None:
        """Only genuine callbacks count, so that forged ones cannot use up the limit."""
        callbacks = verified.source.callbacks
        rate = callbacks.max_per_second
        provider = verified.source.integration.provider
        if rate is not None and not self.genuine.take(
            provider, source_of(client), rate, max(1.0, rate)
        ):
            reason = f"the limit is {rate:g} a second from one source"
            raise ReplyDecidedError(CallbackReply(429, "too many", reason, retry_after=1))

    def _interpret(self, verified: VerifiedCallback) -> Interpreted:
        """Read the events of a delivery; one that cannot be read does not stop the others."""
        source = verified.source
        each = source.callbacks.each
        delivery: EventDocument | None = None
        try:
            # Providers repeat what they were sent, and documents are stored.
            delivery = source.redactor.known.remove(_open(verified))
            if each is None:
                delivery = _proven(delivery, verified.call_id)
                event = self._read(source, delivery, len(verified.body))
                return Interpreted([event] if event is not None else [], ignored=event is None)
            split = split_delivery(each, delivery, has_whole=source.has_whole)
            documents = [_proven(document, verified.call_id) for document in split]
        except ValueError as error:
            if each is not None and delivery is None and (parts := _readable_parts(verified)):
                return self._read_all(source, parts)
            unread = delivery or source.redactor.known.remove(_unread_document(verified))
            return Interpreted([], rejection=_unreadable(source, error), unreadable=(unread,))
        return self._read_all(source, documents)

    def _read_all(
        self, source: CallbackSource, documents: Sequence[EventDocument | UnreadEvent]
    ) -> Interpreted:
        events: list[InboundEvent] = []
        ignored, rejection, refusal = 0, None, None
        unreadable: tuple[EventDocument, ...] = ()
        for number, document in enumerate(documents, 1):
            if isinstance(document, UnreadEvent):
                rejection = rejection or _about_event(_unreadable(source, document.problem), number)
                unreadable += (document.document,)
                continue
            try:
                event = self._read(source, document, len(to_json(document["body"])))
            except ReplyDecidedError as decided:
                refusal = refusal or _about_event(decided.reply, number)
            except ValueError as error:
                rejection = rejection or _about_event(_unreadable(source, error), number)
                unreadable += (document,)
            else:
                ignored += event is None
                events += [event] if event is not None else []
        is_refused = refusal is not None
        return Interpreted(events, ignored, refusal or rejection, unreadable, is_refused)

    def _read(
        self, source: CallbackSource, document: EventDocument, size: int
    ) -> InboundEvent | None:
        """One event; None if the provider's file ignores it."""
        ignore = source.callbacks.ignore
        if ignore is not None and ignore.holds(document):
            return None
        integration = source.integration
        key = event_key_of(integration, document)
        event = read_event(integration, key, document, self.clock(), source.redactor, size)
        if _is_too_large(event):
            raise _rejected(413, "too large", f"a message may have {LARGEST_MESSAGE} bytes")
        return event

    async def _deliver(self, interpreted: Interpreted, source: CallbackSource) -> CallbackReply:
        events, ignored, rejection, unreadable, is_refused = interpreted
        provider = source.integration.provider
        if ignored:
            self.delivery.count_ignored(provider, ignored)
        try:
            if len(events) == 1:
                results = [await self.delivery.deliver(events[0])]
            else:
                results = await self.delivery.deliver_all(events)
            if unreadable and rejection is not None:
                reason = f"unreadable: {rejection.reason}"
                await self.delivery.keep_unreadable(provider, unreadable, reason, self.clock())
        except UnavailableError as error:
            log.warning("callback could not be stored: %s", error, extra={"provider": provider})
            return self._try_again("neither the engine nor the ledger is available")
        results += [DeliveryResult.IGNORED] * ignored
        replies = [source.replies[result] for result in results]
        if rejection is not None and (is_refused or not replies or _rejects_unreadable(source)):
            return _logged(rejection, provider)
        if rejection is not None:
            return _logged(_mixed(replies, rejection, len(unreadable), source), provider)
        if len(results) == 1 and events:
            return _logged(replies[0], provider, events[0])
        return _logged(_summary(replies, source), provider)

    def _try_again(self, reason: str) -> CallbackReply:
        seconds = max(1, round(self.retry_after.total_seconds()))
        return CallbackReply(503, "try again", reason, retry_after=seconds)


WRONG_METHOD: Final = CallbackReply(405, "wrong method", "callbacks are sent with POST")

NOT_ALLOWED: Final = CallbackReply(
    403, REFUSED_SOURCE, "this address is not one of the provider's", closes=True
)

HANDSHAKE: Final = "handshake"

FORGERIES_PER_SECOND: Final = 50.0
FORGERIES_AT_ONCE: Final = 1000.0
"""Of one source and provider; further ones get 429. Genuine callbacks are never counted with them:
every signature is verified, whatever else its source sends."""

TOO_MANY_FORGERIES: Final = CallbackReply(
    429, "too many", "too many callbacks with a wrong signature", retry_after=60, closes=True
)


def _accepted(result: DeliveryResult, replies: ReplyCodes) -> CallbackReply:
    codes = {
        DeliveryResult.DUPLICATE: replies.duplicate,
        DeliveryResult.UNMATCHED: replies.unmatched,
    }
    code = codes.get(result, replies.accepted)
    return CallbackReply(
        code, result.value, content=replies.body, content_type=replies.content_type
    )


def _summary(replies: list[CallbackReply], source: CallbackSource) -> CallbackReply:
    """One reply for all events of a delivery; a code that is no 2xx is not hidden by others."""
    if len(replies) == 1:
        return replies[0]
    counts = Counter(reply.status for reply in replies)
    reason = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no events"
    if len(counts) == 1:
        return replace(replies[0], reason=reason)
    refused = [reply for reply in replies if reply.code >= 300]
    accepted = source.replies[DeliveryResult.SIGNALLED]
    return replace(refused[0] if refused else accepted, status="accepted", reason=reason)


def _mixed(
    replies: list[CallbackReply], rejection: CallbackReply, unreadable: int, source: CallbackSource
) -> CallbackReply:
    """Beside events that are delivered, unreadable ones are kept."""
    kept = replace(source.replies[DeliveryResult.KEPT], status=rejection.status)
    reply = _summary([*replies, *[kept] * unreadable], source)
    return replace(reply, reason=f"{reply.reason} ({rejection.reason})")


def _rejects_unreadable(source: CallbackSource) -> bool:
    """Whether the provider is to send a delivery again of which some events are unreadable.

    They are kept, so it need not, unless its file says so.
    """
    return "unreadable" in source.callbacks.replies.model_fields_set


def _answer_unsigned_handshake(received: ReceivedCallback) -> None:
    """Reply to a handshake that its rule allows to be unsigned."""
    callbacks = received.source.callbacks
    if not any(rule.unsigned for rule in callbacks.handshakes):
        return
    delivery = _handshake_document(received)
    rule = find_handshake(callbacks, delivery)
    if rule is not None and rule.unsigned:
        raise ReplyDecidedError(_handshake_reply(received.source, rule, delivery))


def _open(verified: VerifiedCallback) -> EventDocument:
    """The document of a delivery that is no handshake.

    Raises:
        InvalidInputError: its body cannot be read.
        ReplyDecidedError: it is a handshake, which is answered; or a GET request that is none.
    """
    source = verified.source
    if source.callbacks.handshakes:
        delivery = _handshake_document(verified)
        rule = find_handshake(source.callbacks, delivery)
        if rule is not None:
            raise ReplyDecidedError(_handshake_reply(source, rule, delivery))
    if verified.method != "POST" and source.callbacks.encoding != "query":
        raise ReplyDecidedError(WRONG_METHOD)
    return _document(verified)


def _handshake_reply(
    source: CallbackSource, rule: HandshakeRule, delivery: EventDocument
) -> CallbackReply:
    try:
        content, content_type, headers = render_handshake(rule.reply, delivery)
    except ValueError as error:
        return _unreadable(source, error)
    return CallbackReply(
        rule.reply.status,
        HANDSHAKE,
        content=content,
        content_type=content_type,
        headers=tuple(headers.items()),
    )


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


def _reader(integration: Integration, callbacks: CallbackSpec) -> Read:
    """How the bodies of a provider's deliveries are read."""
    code, encoding = integration.code, callbacks.encoding
    if code.read is not None:
        return lambda received: code.read_body(received.body, received.headers)
    if encoding == "json":
        return _read_json
    if encoding == "query":
        return _query_reader(integration)
    read = READERS[encoding]
    return lambda received: read(received.body, _content_type(received))


def _read_json(received: ReceivedCallback) -> Any:
    return read_json(_utf8(received))


def _utf8(received: ReceivedCallback) -> bytes:
    declared = _content_type(received)
    has_charset = "charset" in declared.lower()
    return in_utf8(received.body, declared) if has_charset else received.body


def _readable_parts(verified: VerifiedCallback) -> list[EventDocument | UnreadEvent]:
    """The events of a JSON delivery of which some have what `read_json` refuses.

    Empty where it is no JSON at all, or where it has no events.
    """
    source = verified.source
    if source.callbacks.each is None or source.read is not _read_json:
        return []
    try:
        body = read_json_unchecked(_utf8(verified))
        delivery = _kept_document(verified, body)
        split = split_delivery(source.callbacks.each, delivery, has_whole=False)
        whole = {"delivery": _storable(body)} if source.has_whole else {}
        return [_part(source, _proven({**one, **whole}, verified.call_id)) for one in split]
    except (ValueError, RecursionError):
        return []


def _part(source: CallbackSource, document: EventDocument) -> EventDocument | UnreadEvent:
    known = source.redactor.known
    try:
        check_json(document["body"])
    except InvalidInputError as problem:
        unread = make_document(None, document["headers"], document["query"])
        return UnreadEvent(
            known.remove({**unread, "body": json.dumps(document["body"])}),
            InvalidInputError(str(problem).removeprefix("body: ")),
        )
    removed: EventDocument = known.remove(document)
    return removed


def _storable(body: Any) -> Any:
    """With texts for what JSON does not have or is too deep, question marks for half characters."""
    text = json.dumps(_flattened(body, MAX_JSON_DEPTH - 1), ensure_ascii=False)
    return read_json(text.encode("utf-8", "replace"), is_lenient=True)


def _flattened(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return json.dumps(value)
    if isinstance(value, list):
        return [_flattened(one, levels - 1) for one in value]
    return {name: _flattened(one, levels - 1) for name, one in value.items()}


def _content_type(received: ReceivedCallback) -> str:
    return received.headers.get("content-type", "")


def _query_reader(integration: Integration) -> Read:
    """The query is the body then: without credentials that no expression names."""
    paths = {path for one in event_expressions(integration) for path in one.referenced_names()}
    named = {path[1] if path[0] == "body" and path[1:] else path[0] for path in paths}

    def read(received: ReceivedCallback) -> dict[str, Any]:
        fields = read_form(received.query)
        return {k: value for k, value in fields.items() if k in named or not is_credential(k)}

    return read


def _document(received: ReceivedCallback) -> EventDocument:
    """What expressions over events see: it may be stored in the ledger."""
    return _kept_document(received, received.source.read(received))


def _kept_document(received: ReceivedCallback, body: Any) -> EventDocument:
    source = received.source
    headers = _kept(received.headers, source.kept_headers, source.hidden)
    query = _kept(_query(received), source.kept_query)
    return make_document(body, headers, query)


def _kept(
    fields: Mapping[str, str], names: frozenset[str] | None, hidden: frozenset[str] = frozenset()
) -> dict[str, str]:
    if names is None:
        shown = fields.keys() - hidden
        return {name: fields[name] for name in shown if not is_credential(name)}
    return {name: fields[name] for name in names if name in fields}


def _handshake_document(received: ReceivedCallback) -> EventDocument:
    """What handshakes see: nothing of it is stored; no body if it cannot be read."""
    try:
        body = received.source.read(received)
    except ValueError:
        body = None
    hidden = received.source.hidden
    headers = {name: text for name, text in received.headers.items() if name not in hidden}
    return make_document(body, headers, _query(received))


def _proven(document: EventDocument, call_id: str | None) -> EventDocument:
    """The document with the call that its URL is for, whatever the body says."""
    return document if call_id is None else {**document, "call": {"id": call_id}}


def _may_send(callbacks: CallbackSpec, client: str) -> bool:
    return not callbacks.sources or is_within(client, callbacks.sources)


def _hidden_headers(callbacks: CallbackSpec) -> frozenset[str]:
    verify = callbacks.verify
    own = {verify.name.lower()} if isinstance(verify, HeaderVerify) else set()
    return frozenset(_CREDENTIALS | own)


def _unread_document(received: ReceivedCallback) -> EventDocument:
    """A body that cannot be read, as text."""
    text = received.body.decode("utf-8", "replace").replace("\0", "\ufffd")
    return {**_kept_document(received, None), "body": text}


def _query(received: ReceivedCallback) -> dict[str, str]:
    if not received.query:
        return {}
    return dict(parse_qsl(received.query.decode("latin-1"), keep_blank_values=True))


def _unreadable(source: CallbackSource, error: ValueError) -> CallbackReply:
    reason = str(error) if isinstance(error, InvalidInputError) else "it is not a valid message"
    return CallbackReply(source.callbacks.replies.unreadable, "unreadable", reason)


def _about_event(reply: CallbackReply, number: int) -> CallbackReply:
    return replace(reply, reason=f"event {number}: {reply.reason}")


def _is_too_large(event: InboundEvent) -> bool:
    # A message is rarely much larger than its body: only large bodies are measured.
    return event.size > LARGEST_MESSAGE // 8 and any(
        len(interpretation.message.model_dump_json().encode()) > LARGEST_MESSAGE
        for interpretation in event.interpretations
    )


def _rejected(code: int, status: str, reason: str) -> ReplyDecidedError:
    return ReplyDecidedError(CallbackReply(code, status, reason))


def _body_too_large(limit: int) -> ReplyDecidedError:
    reason = f"the limit is {limit} bytes"
    return ReplyDecidedError(CallbackReply(413, "too large", reason, closes=True))


def _fields(event: InboundEvent) -> dict[str, str | None]:
    return {"provider": event.provider, "event_key": event.event_key, "call_id": event.call_id}


def _logged(
    reply: CallbackReply, provider: str | None, event: InboundEvent | None = None
) -> CallbackReply:
    # A signalled callback is in the history of its call; those of others may be many.
    is_frequent = reply.status in (DeliveryResult.SIGNALLED, DeliveryResult.IGNORED)
    level = logging.DEBUG if is_frequent else logging.INFO
    if log.isEnabledFor(level):
        reason = f": {reply.reason}" if reply.reason else ""
        fields = _fields(event) if event else {"provider": provider}
        extra = {**fields, "status": reply.status}
        log.log(level, "callback %s%s", reply.status, reason, extra=extra)
    return reply
