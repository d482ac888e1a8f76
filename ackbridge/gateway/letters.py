"""What a verified callback says, to which calls: a letter that can be delivered or kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ackbridge.catalog import Integration, Match, candidates, classify
from ackbridge.contracts import MessageSource, ProviderMessage
from ackbridge.ledger import InboxEntry


@dataclass(frozen=True)
class Reading:
    """One way to understand a callback: to whom it speaks, and what it says there."""

    match: Match
    message: ProviderMessage


@dataclass(frozen=True)
class Letter:
    """A callback, understood.

    Attributes:
        matched: it names a call or a reference of at least one operation.
        readings: the matches at which it says something we wait for. Several when operations
            share their references: then the call that is found decides.
    """

    provider: str
    event_key: str
    received_at: datetime
    document: Any
    matched: bool
    readings: tuple[Reading, ...]

    @property
    def call_id(self) -> str | None:
        """The call it names itself, if it does."""
        return next((r.match.call_id for r in self.readings if r.match.call_id), None)

    @property
    def reference(self) -> str | None:
        """The provider's reference it names, if it does."""
        return next((r.match.reference for r in self.readings if r.match.reference), None)


def read_letter(
    integration: Integration, event_key: str, document: Any, received_at: datetime
) -> Letter:
    """Match a message document to operations, and classify it for each.

    Raises:
        ValueError: what it says does not validate as a message for any of them.
    """
    matches = candidates(integration, document)
    # Whoever names a call speaks to that call only, whatever reference comes with it.
    matches = [match for match in matches if match.call_id is not None] or matches
    readings = []
    misfit: ValueError | None = None
    for match in matches:
        operation = integration.operations[match.operation]
        try:
            message = classify(operation, document, event_key, MessageSource.CALLBACK, received_at)
        except ValueError as error:
            # Another operation's expressions need not fit what is not about its calls.
            misfit = error
            continue
        if message is not None:
            readings.append(Reading(match, message))
    if misfit is not None and not readings:
        raise misfit
    return Letter(
        provider=integration.provider,
        event_key=event_key,
        received_at=received_at,
        document=document,
        matched=bool(matches),
        readings=tuple(readings),
    )


def to_entry(letter: Letter) -> InboxEntry:
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


def from_entry(integration: Integration, entry: InboxEntry) -> Letter:
    """The letter of an inbox row; a document is matched again, by the catalog as it is now.

    Raises:
        ValueError: as `read_letter`.
    """
    if entry.message is None or entry.operation is None:
        return read_letter(integration, entry.event_key, entry.document, entry.received_at)
    match = Match(operation=entry.operation, call_id=entry.call_id, reference=entry.reference)
    return Letter(
        provider=entry.provider,
        event_key=entry.event_key,
        received_at=entry.received_at,
        document=None,
        matched=True,
        readings=(Reading(match, entry.message),),
    )
