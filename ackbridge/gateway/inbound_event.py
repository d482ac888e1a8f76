"""What a verified callback says, to which calls: a letter that can be delivered or kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ackbridge.catalog.matching import Match, classify, find_matches
from ackbridge.catalog.model import Integration
from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH, MAX_KEY_LENGTH
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.rows import InboxEntry
from ackbridge.security.redaction import Redactor


@dataclass(frozen=True)
class Interpretation:
    """One way to understand a callback: to whom it speaks, and what it says there."""

    match: Match
    message: ProviderMessage


@dataclass(frozen=True)
class InboundEvent:
    """A callback, understood.

    Attributes:
        matches: the operations of which it names a call or a reference.
        readings: the matches at which it says something we wait for. Several when operations
            share their references: then the call that is found decides.
        size: bytes of the body it came in, where it has just come.
        traceparent: what the provider has echoed of our request's, where it does.
    """

    provider: str
    event_key: str
    received_at: datetime
    document: Any
    matches: tuple[Match, ...]
    readings: tuple[Interpretation, ...]
    size: int = 0
    traceparent: str | None = None

    @property
    def matched(self) -> bool:
        """Whether it names a call or a reference of at least one operation."""
        return bool(self.matches)

    @property
    def call_id(self) -> str | None:
        """The call it names itself, if it does."""
        return next((match.call_id for match in self.matches if match.call_id), None)

    @property
    def reference(self) -> str | None:
        """The provider's reference it names, if it does."""
        return next((match.reference for match in self.matches if match.reference), None)


def read_letter(
    integration: Integration,
    event_key: str,
    document: Any,
    received_at: datetime,
    redactor: Redactor,
    size: int = 0,
) -> InboundEvent:
    """Match a message document to operations, and classify it for each.

    Args:
        redactor: keeps secrets out of what people read of it.
        size: bytes of the body it came in.

    Raises:
        InvalidInputError: a name in it is too long to be one.
        ValueError: what it says does not validate as a message.
    """
    _check_length("event_key", event_key, MAX_KEY_LENGTH)
    matches = find_matches(integration, document)
    # Whoever names a call speaks to that call only, whatever reference comes with it.
    matches = [match for match in matches if match.call_id is not None] or matches
    readings = []
    for match in matches:
        _check_length("match.call_id", match.call_id, MAX_CALL_ID_LENGTH)
        _check_length("match.reference", match.reference, MAX_KEY_LENGTH)
        operation = integration.operations[match.operation]
        message = classify(
            operation, document, event_key, MessageSource.CALLBACK, received_at, redactor
        )
        if message is not None:
            readings.append(Interpretation(match, message))
    return InboundEvent(
        provider=integration.provider,
        event_key=event_key,
        received_at=received_at,
        document=document,
        matches=tuple(matches),
        readings=tuple(readings),
        size=size,
        traceparent=_traceparent(document),
    )


def _traceparent(document: Any) -> str | None:
    headers = document.get("headers") if isinstance(document, dict) else None
    return headers.get("traceparent") if isinstance(headers, dict) else None


def to_entry(letter: InboundEvent) -> InboxEntry:
    """The inbox row of a letter: the message where it is certain, else the whole document."""
    certain = letter.readings[0] if len(letter.readings) == 1 else None
    return InboxEntry(
        provider=letter.provider,
        event_key=letter.event_key,
        operation=certain.match.operation if certain else None,
        call_id=letter.call_id,
        reference=letter.reference,
        message=certain.message if certain else None,
        document=None if certain else letter.document,
        received_at=letter.received_at,
    )


def from_entry(integration: Integration, entry: InboxEntry, redactor: Redactor) -> InboundEvent:
    """The letter of an inbox row; a document is matched again, by the catalog as it is now.

    Raises:
        ValueError: as `read_letter`.
    """
    if entry.message is None or entry.operation is None:
        return read_letter(
            integration, entry.event_key, entry.document, entry.received_at, redactor
        )
    match = Match(operation=entry.operation, call_id=entry.call_id, reference=entry.reference)
    return InboundEvent(
        provider=entry.provider,
        event_key=entry.event_key,
        received_at=entry.received_at,
        document=None,
        matches=(match,),
        readings=(Interpretation(match, entry.message),),
    )


def _check_length(field: str, name: str | None, longest: int) -> None:
    if name is not None and len(name) > longest:
        raise InvalidInputError(f"{field}: may have {longest} characters")
