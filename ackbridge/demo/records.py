"""What the provider, the ledger and the engine have on one call, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts import names
from ackbridge.errors import UnavailableError
from ackbridge.ledger.calls import ResponseRow
from ackbridge.ledger.inbox import InboxEntry
from ackbridge.ledger.ledger import Ledger

PROVIDER = "sandbox"
"""Whose calls these are."""

_ORDERS = (names.CANCEL, names.FORCE_ACK, names.REPROCESS)
EVERY_ROW = 1_000_000
"""How many of a list, where all are meant."""


@dataclass(frozen=True)
class Order:
    """What somebody has told a call to do, as its history has it."""

    at: datetime
    name: str
    by: str
    reason: str | None


@dataclass(frozen=True)
class DemoRecords:
    """Three independent records of one call.

    Attributes:
        events: the provider's journal, in order.
        works: the provider's works, one for each idempotency key it took.
        responses: the ledger's rows.
        kept: answers that the ledger keeps for people.
        orders: the signals of people in the engine's history.
    """

    events: Sequence[dict[str, Any]]
    works: Sequence[dict[str, Any]]
    responses: Sequence[ResponseRow]
    kept: Sequence[InboxEntry]
    orders: Sequence[Order]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The provider's events of one kind."""
        return [event for event in self.events if event["kind"] == kind]


@dataclass(frozen=True)
class Archive:
    """Where the records are, and the client that makes calls.

    Its methods raise `UnavailableError` when the provider does not answer.

    Attributes:
        engine: for histories.
        http: reaches the provider.
        provider_url: of the simulated provider.
    """

    calls: AckbridgeClient
    engine: Client
    ledger: Ledger
    http: httpx.AsyncClient
    provider_url: str

    async def of(self, call_id: str) -> DemoRecords:
        """Everything there is on a call."""
        held = [row.entry for row in await self.ledger.inbox.held(PROVIDER, EVERY_ROW)]
        waiting = [row.entry for row in await self.ledger.inbox.pending(PROVIDER, call_id, None)]
        return DemoRecords(
            events=await self.events(call_id),
            works=await self.works(call_id),
            responses=await self.ledger.calls.responses(call_id),
            kept=[entry for entry in held + waiting if entry.call_id == call_id],
            orders=await self._orders(call_id),
        )

    async def events(self, call_id: str) -> list[dict[str, Any]]:
        """The provider's journal of a call."""
        told: list[dict[str, Any]] = await self._remembered("_events", call_id=call_id)
        return told

    async def works(self, call_id: str | None = None) -> list[dict[str, Any]]:
        """The provider's works, of one call or of all."""
        wanted = {} if call_id is None else {"call_id": call_id}
        told: list[dict[str, Any]] = await self._remembered("_works", **wanted)
        return told

    async def summary(self) -> dict[str, Any]:
        """The provider's own numbers."""
        told: dict[str, Any] = await self._remembered("_summary")
        return told

    async def _remembered(self, what: str, **wanted: str) -> Any:
        try:
            reply = await self.http.get(f"{self.provider_url}/{what}", params=wanted)
        except httpx.HTTPError as error:
            raise UnavailableError(f"the simulated provider: {type(error).__name__}") from None
        return reply.json()

    async def _orders(self, call_id: str) -> list[Order]:
        handle = self.engine.get_workflow_handle(call_id)
        orders = []
        async for event in handle.fetch_history_events():
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name in _ORDERS:
                payloads = list[Payload](signal.input.payloads)
                (said,) = await self.engine.data_converter.decode(payloads)
                at = event.event_time.ToDatetime(UTC)
                orders.append(Order(at, signal.signal_name, said["by"], said.get("reason")))
        return orders
