"""The records of one call: the provider's, the ledger's, and the workflow's history."""

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
CALLER = "the customer"
OPERATOR = "Ada, on call"
COLLEAGUE = "Grace, on call"

FORGERIES = ("forged_signature", "forged_stale")
"""What the provider's events call a forged callback."""

EVERY_ROW = 1_000_000
"""A limit that lists every row."""

_OPERATOR_SIGNALS = (names.CANCEL, names.FORCE_ACK, names.REPROCESS)


@dataclass(frozen=True)
class OperatorSignal:
    at: datetime
    name: str
    by: str
    reason: str | None


@dataclass(frozen=True)
class CallRecords:
    events: Sequence[dict[str, Any]]
    works: Sequence[dict[str, Any]]  # the provider's jobs, one per idempotency key
    responses: Sequence[ResponseRow]
    held: Sequence[InboxEntry]  # messages in the ledger that no call has accepted
    signals: Sequence[OperatorSignal]  # of people, in the history

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]


@dataclass(frozen=True)
class RecordSources:
    """Makes calls and reads their records; raises `UnavailableError` without the provider."""

    calls: AckbridgeClient
    temporal: Client
    ledger: Ledger
    http: httpx.AsyncClient
    provider_url: str

    async def read(self, call_id: str) -> CallRecords:
        held = [row.entry for row in await self.ledger.inbox.held(PROVIDER, EVERY_ROW)]
        pending = [row.entry for row in await self.ledger.inbox.look(call_id, PROVIDER, [])]
        return CallRecords(
            events=await self.events(call_id),
            works=await self.works(call_id),
            responses=await self.ledger.calls.responses(call_id),
            held=[entry for entry in held + pending if entry.call_id == call_id],
            signals=await self._signals(call_id),
        )

    async def events(self, call_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = await self._inspect("_events", call_id=call_id)
        return events

    async def works(self, call_id: str | None = None) -> list[dict[str, Any]]:
        """The provider's jobs, of one call or of all."""
        parameters = {} if call_id is None else {"call_id": call_id}
        works: list[dict[str, Any]] = await self._inspect("_works", **parameters)
        return works

    async def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = await self._inspect("_summary")
        return summary

    async def _inspect(self, route: str, **parameters: str) -> Any:
        try:
            reply = await self.http.get(f"{self.provider_url}/{route}", params=parameters)
        except httpx.HTTPError as error:
            raise UnavailableError(f"the simulated provider: {type(error).__name__}") from None
        return reply.json()

    async def _signals(self, call_id: str) -> list[OperatorSignal]:
        signals = []
        async for event in self.temporal.get_workflow_handle(call_id).fetch_history_events():
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name in _OPERATOR_SIGNALS:
                payloads = list[Payload](signal.input.payloads)
                (argument,) = await self.temporal.data_converter.decode(payloads)
                at = event.event_time.ToDatetime(UTC)
                by, reason = argument["by"], argument.get("reason")
                signals.append(OperatorSignal(at, signal.signal_name, by, reason))
        return signals


def is_accepted(event: dict[str, Any], news: str) -> bool:
    """Whether an event is a callback of this kind that the gateway accepted."""
    is_reply = event["kind"] == "callback_reply" and event["news"] == news
    return is_reply and event.get("status") in range(200, 300)
