"""What the ledger's tests are made of: requests, responses, inbox entries, a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Timings
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.ledger.rows import InboxEntry

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


class MovableClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, by: timedelta) -> None:
        """Let time pass."""
        self.now += by


def request_for(key: str, payload: Any = None) -> CallRequest:
    """A request of the call `acme.order.<key>`."""
    return CallRequest(provider="acme", operation="order", key=key, payload=payload)


def outcome_of(request: CallRequest, **changes: Any) -> CallOutcome:
    """A completed outcome, with changes."""
    fields: dict[str, Any] = {
        "call_id": request.call_id,
        "status": OutcomeStatus.COMPLETED,
        "timings": Timings(started_at=START),
    }
    return CallOutcome(**fields | changes)


def response(event_key: str, data: Any = None) -> ProviderMessage:
    """A provider's response."""
    return ProviderMessage(
        kind=MessageKind.RESPONSE, event_key=event_key, data=data, received_at=START
    )


def entry(event_key: str, **changes: Any) -> InboxEntry:
    """An inbox entry that matches nothing, with changes."""
    fields: dict[str, Any] = {
        "provider": "acme",
        "event_key": event_key,
        "operation": "order",
        "call_id": None,
        "reference": None,
        "message": None,
        "document": {"body": {"id": event_key}},
        "received_at": START,
    }
    return InboxEntry(**fields | changes)
