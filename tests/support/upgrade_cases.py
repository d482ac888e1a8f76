"""Calls that one version of the workers begins and another one ends."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ackbridge.contracts.calls import CallOutcome, CallRequest, CallStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import CallCancelledError, CallFailedError

from .stage import SECRETS, Stage

PROVIDERS = ("sandbox", "limited")
PATIENCE = timedelta(minutes=2)

Act = Callable[[Stage, CallRequest], Awaitable[None]]


async def wait(_stage: Stage, _request: CallRequest) -> None:
    """Leave the call alone."""


async def answer(
    stage: Stage, request: CallRequest, unsigned: Mapping[str, str] | None = None
) -> None:
    """The provider's response comes to the gateway, signed.

    Args:
        unsigned: headers that come with it.
    """
    (order, *_) = [event["work"] for event in await stage.seen(request.call_id, "receipt")]
    event = {
        "event_id": f"evt_{order}_completed",
        "type": "order.completed",
        "call_id": request.call_id,
        "order": {"id": order, "status": "completed"},
    }
    body = json.dumps(event).encode()
    timestamp = str(int(time.time()))
    key = SECRETS["SANDBOX_WEBHOOK_SECRET"].encode()
    signature = hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    proof = {"X-Sandbox-Timestamp": timestamp, "X-Sandbox-Signature": signature}
    headers = {**(unsigned or {}), **proof}
    url = f"{stage.gateway_url}/callbacks/{request.provider}"
    reply = await stage.http.post(url, content=body, headers=headers)
    assert reply.status_code == 200, reply.text


async def force(stage: Stage, request: CallRequest) -> None:
    """An operator's word is the response."""
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})


async def cancel(stage: Stage, request: CallRequest) -> None:
    """An operator cancels."""
    await stage.calls.call(request.call_id).cancel(by="ann", reason="ordered twice")


async def reprocess(stage: Stage, request: CallRequest) -> None:
    """An operator lets a parked call try again."""
    await stage.calls.call(request.call_id).reprocess(by="cy")


def is_awaiting(status: CallStatus) -> bool:
    """Its response is awaited."""
    return status.stage is CallStage.AWAITING_RESPONSE


def is_parked(status: CallStatus) -> bool:
    """It is parked, and owes nothing."""
    return status.stage is CallStage.PARKED and not status.acknowledgements_owed


def is_parked_in_debt(status: CallStatus) -> bool:
    """It is parked, and owes an acknowledgement."""
    return status.stage is CallStage.PARKED and status.acknowledgements_owed > 0


def is_answered_in_debt(status: CallStatus) -> bool:
    """Its outcome stands, and the acknowledgement is owed."""
    return status.outcome is not None and status.acknowledgements_owed > 0


def is_sending(status: CallStatus) -> bool:
    """It is being sent."""
    return status.stage is CallStage.SENDING


@dataclass(frozen=True)
class Crossing:
    """One kind of call, and how it has to end.

    Attributes:
        operation: of the integrations in `versions.py`.
        behaviour: the faults it meets.
        reached: where it has to be before the upgrade.
        act: what happens to it after that.
        ends: with which status.
        told: which acknowledgements the provider has taken in the end.
        effects: how often the provider does the work.
        is_late, is_forced: what else the outcome says.
    """

    operation: str
    behaviour: Mapping[str, Any]
    reached: Callable[[CallStatus], bool]
    act: Act
    ends: str = "completed"
    told: tuple[str, ...] = ("success",)
    effects: int = 1
    is_late: bool = False
    is_forced: bool = False

    def request(self, provider: str) -> CallRequest:
        """A request with a key of its own."""
        payload = {"amount": 5, "currency": "EUR", "behaviour": dict(self.behaviour)}
        key = uuid.uuid4().hex
        return CallRequest(provider=provider, operation=self.operation, key=key, payload=payload)

    async def check(self, stage: Stage, request: CallRequest) -> None:
        """Wait for its end, and see that it is the right one everywhere."""
        outcome = await ended(stage, request)
        call_id = request.call_id
        assert outcome.status == self.ends, (call_id, outcome)
        assert outcome.late is self.is_late, call_id
        assert (outcome.forced is not None) is self.is_forced, call_id
        assert not outcome.acknowledgement_owed, call_id
        assert await stage.effects(call_id) == self.effects, call_id
        assert tuple(await stage.acknowledged(call_id)) == self.told, call_id
        rows = 1 if self.ends == "completed" else 0
        assert len(await stage.ledger.calls.responses(call_id)) == rows, call_id
        if self.ends != "completed":
            assert outcome.notice is not None, call_id


STUCK = {"stuck": True}
GIVEN_UP = ("failed", "success")
"""What the provider is told of a response that came after we had given up on it."""

PARKED = {
    "late": Crossing("hasty_order", STUCK, is_parked, answer, told=GIVEN_UP, is_late=True),
    "forced": Crossing("hasty_order", STUCK, is_parked, force, told=GIVEN_UP, is_forced=True),
    "cancelled": Crossing(
        "hasty_order", STUCK, is_parked, cancel, ends="cancelled", told=("failed",)
    ),
    "reprocessed": Crossing(
        "create_order", {"fail": 1}, is_parked, reprocess, told=GIVEN_UP, effects=2, is_late=True
    ),
}
"""Calls that are parked, for all the ways out."""

CROSSINGS = PARKED | {
    "expired": Crossing("brief_order", STUCK, is_parked, wait, ends="failed", told=("failed",)),
    "parked in debt": Crossing(
        "hasty_order",
        {"stuck": True, "acknowledgement_failures": 5},
        is_parked_in_debt,
        cancel,
        ends="cancelled",
        told=("failed",),
    ),
    "awaiting": Crossing("create_order", {"delay_ms": 9000}, is_awaiting, wait),
    "polled": Crossing("polled_order", {"silent": True, "delay_ms": 9000}, is_awaiting, wait),
    "answered": Crossing("create_order", STUCK, is_awaiting, answer),
    "forced early": Crossing("create_order", STUCK, is_awaiting, force, is_forced=True),
    "cancelled early": Crossing(
        "create_order", STUCK, is_awaiting, cancel, ends="cancelled", told=("failed",)
    ),
    "sending": Crossing("create_order", {"receipt_failures": 5}, is_sending, wait),
    "in debt": Crossing("create_order", {"acknowledgement_failures": 5}, is_answered_in_debt, wait),
}
"""Every stage in which an upgrade can meet a call."""


async def ended(stage: Stage, request: CallRequest) -> CallOutcome:
    """The outcome of a call that is over and owes nothing it still tries to pay."""
    try:
        return await stage.calls.call(request.call_id).outcome(PATIENCE, settled=True)
    except (CallFailedError, CallCancelledError) as error:
        return error.outcome
