"""Samples of the ledger's tests: requests, responses, inbox entries, a clock, a database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Timings
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.ledger.database.engines import open_database
from ackbridge.ledger.inbox import InboxEntry

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


R = TypeVar("R")


class BeforeCommit:
    """A database that calls a function just before it commits."""

    def __init__(self, url: str, act: Callable[[], None]) -> None:
        self._database = open_database(url, timedelta(seconds=10))
        self._act = act

    async def write(self, work: Callable[[sa.Connection], R], *, shares: bool = False) -> R:
        """Act before the commit."""

        def work_and_act(connection: sa.Connection) -> R:
            result = work(connection)
            self._act()
            return result

        return await self._database.write(work_and_act, shares=shares)

    async def read(self, work: Callable[[sa.Connection], R]) -> R:
        """Nothing to commit."""
        return await self._database.read(work)

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()


class MovableClock:
    """A clock that only moves by `advance`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        """Move the clock."""
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
    """An inbox entry without a match, with changes."""
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
