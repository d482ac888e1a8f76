"""What a provider's delivery contains: its events, and the inbox rows that store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import uuid4

from ackbridge.catalog.callbacks import CallbackSpec, HandshakeRule
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.kept_fields import event_expressions
from ackbridge.catalog.matching import (
    Match,
    classify,
    find_event_key,
    find_matches,
    object_of,
)
from ackbridge.catalog.model import Integration
from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH, MAX_KEY_LENGTH
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.inbox import InboxEntry
from ackbridge.security.redaction import Redactor

EventDocument: TypeAlias = dict[str, Any]
"""What expressions see of one event: the fields of its body and, beside them, `body`, `headers`,
`query` and, where a delivery has several events, `delivery`."""


def split_delivery(
    each: Expression, delivery: EventDocument, *, has_whole: bool = True
) -> list[EventDocument]:
    """The documents of the events in a delivery.

    Args:
        has_whole: whether they have the whole body as `delivery`. Each may be stored with it.

    Raises:
        InvalidInputError: where they should be, there is neither a list nor an object.
    """
    found = each.search(delivery)
    if not isinstance(found, list | dict):
        raise InvalidInputError("each: the callback has neither a list nor an object there")
    whole = {"headers": delivery["headers"], "query": delivery["query"]}
    if has_whole:
        whole["delivery"] = delivery["body"]
    bodies = found if isinstance(found, list) else [found]
    return [{**make_document(body, {}, {}), **whole} for body in bodies]


def reads_delivery(integration: Integration) -> bool:
    """Whether any expression over an event reads the whole body that it arrived in."""
    expressions = event_expressions(integration)
    return any(name[0] == "delivery" for one in expressions for name in one.referenced_names())


def find_handshake(callbacks: CallbackSpec, delivery: EventDocument) -> HandshakeRule | None:
    """The first rule by which a delivery is a handshake."""
    return next((rule for rule in callbacks.handshakes if rule.when.holds(delivery)), None)


@dataclass(frozen=True)
class Interpretation:
    """What an event means to one operation: the call it addresses, and the message for it."""

    match: Match
    message: ProviderMessage


@dataclass(frozen=True)
class InboundEvent:
    provider: str
    event_key: str
    received_at: datetime
    document: Any
    matches: tuple[Match, ...]  # the operations whose call or reference the event names
    # The matches for which it is a response, a failure or an extension. Several when operations
    # share their references: then the call that is found decides.
    interpretations: tuple[Interpretation, ...]
    # Its name and object, where the file forwards it: if it is for no call, or for one that ended.
    rule: str | None = None
    about: str | None = None
    size: int = 0  # bytes of the body; 0 for an event from the inbox
    traceparent: str | None = None  # the trace context that the provider echoed, if it did

    @property
    def call_id(self) -> str | None:
        return next((match.call_id for match in self.matches if match.call_id), None)

    @property
    def reference(self) -> str | None:
        return next((match.reference for match in self.matches if match.reference), None)


def event_key_of(integration: Integration, document: EventDocument) -> str:
    """The key of an event; a new one for each doorbell where they have none.

    Raises:
        InvalidInputError: it has none.
    """
    key = find_event_key(integration, document)
    if key is not None:
        return key
    if integration.callbacks is not None and integration.callbacks.event_key is None:
        return uuid4().hex
    raise InvalidInputError("event_key: the callback has none")


def read_event(
    integration: Integration,
    event_key: str,
    document: Any,
    received_at: datetime,
    redactor: Redactor,
    size: int = 0,
) -> InboundEvent:
    """Match a document to operations, and classify it for each; reasons are redacted.

    Args:
        size: in bytes, of the event as it arrived.

    Raises:
        InvalidInputError: the event key, the call id or the reference is too long.
        ValueError: the message does not validate.
    """
    _check_length("event_key", event_key, MAX_KEY_LENGTH)
    matches = find_matches(integration, document)
    # An event that names a call is for that call alone, whatever reference it names besides.
    matches = [match for match in matches if match.call_id is not None] or matches
    interpretations = []
    for match in matches:
        _check_length("match.call_id", match.call_id, MAX_CALL_ID_LENGTH)
        _check_length("match.reference", match.reference, MAX_KEY_LENGTH)
        operation = integration.operations[match.operation]
        message = classify(
            operation, document, event_key, MessageSource.CALLBACK, received_at, redactor
        )
        if message is not None:
            interpretations.append(Interpretation(match, message))
    rule, about = _forwarding(integration, document)
    return InboundEvent(
        provider=integration.provider,
        event_key=event_key,
        received_at=received_at,
        document=document,
        matches=tuple(matches),
        interpretations=tuple(interpretations),
        size=size,
        traceparent=_traceparent(document),
        rule=rule,
        about=about,
    )


def to_inbox_entry(event: InboundEvent) -> InboxEntry:
    """Store the message where there is exactly one interpretation, else the whole document."""
    only = event.interpretations[0] if len(event.interpretations) == 1 else None
    return InboxEntry(
        provider=event.provider,
        event_key=event.event_key,
        operation=only.match.operation if only else None,
        call_id=event.call_id,
        reference=event.reference,
        message=only.message if only else None,
        document=None if only and event.rule is None else event.document,
        received_at=event.received_at,
        event=None if event.interpretations else event.rule,
        object=None if event.interpretations else event.about,
    )


def from_inbox_entry(
    integration: Integration, entry: InboxEntry, redactor: Redactor
) -> InboundEvent:
    """Read an event from the inbox, documents by today's catalog; raises as `read_event`."""
    if entry.message is None or entry.operation is None:
        return read_event(integration, entry.event_key, entry.document, entry.received_at, redactor)
    rule, about = _forwarding(integration, entry.document or {})
    match = Match(operation=entry.operation, call_id=entry.call_id, reference=entry.reference)
    return InboundEvent(
        provider=entry.provider,
        event_key=entry.event_key,
        received_at=entry.received_at,
        document=entry.document,
        matches=(match,),
        interpretations=(Interpretation(match, entry.message),),
        rule=rule,
        about=about,
    )


def _forwarding(integration: Integration, document: EventDocument) -> tuple[str | None, str | None]:
    """`rule` and `about` of an event: by the first of `callbacks.events` that holds."""
    callbacks = integration.callbacks
    if callbacks is not None and callbacks.events:
        for name, rule in callbacks.events.items():
            if rule.when.holds(document):
                return name, object_of(rule, document)
    return None, None


def make_document(body: Any, headers: Mapping[str, str], query: Mapping[str, str]) -> EventDocument:
    """What expressions see of a delivery."""
    return {**_fields(body), "body": body, "headers": headers, "query": query}


def _fields(body: Any) -> dict[str, Any]:
    return body if isinstance(body, dict) else {}


def _traceparent(document: Any) -> str | None:
    headers = document.get("headers") if isinstance(document, dict) else None
    return headers.get("traceparent") if isinstance(headers, dict) else None


def _check_length(field: str, value: str | None, longest: int) -> None:
    if value is not None and len(value) > longest:
        raise InvalidInputError(f"{field}: longer than {longest} characters")
