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
TIMEOUT = timedelta(minutes=2)

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
    """An operator gives the response."""
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})


async def cancel(stage: Stage, request: CallRequest) -> None:
    """An operator cancels."""
    await stage.calls.call(request.call_id).cancel(by="ann", reason="ordered twice")


async def reprocess(stage: Stage, request: CallRequest) -> None:
    """An operator sends a parked call again."""
    await stage.calls.call(request.call_id).reprocess(by="cy")


def is_awaiting(status: CallStatus) -> bool:
    """Its response is awaited."""
    return status.stage is CallStage.AWAITING_RESPONSE


def is_parked(status: CallStatus) -> bool:
    """It is parked, and no acknowledgement is pending."""
    return status.stage is CallStage.PARKED and not status.acknowledgements_owed


def is_parked_with_pending(status: CallStatus) -> bool:
    """It is parked, and an acknowledgement is pending."""
    return status.stage is CallStage.PARKED and status.acknowledgements_owed > 0


def is_answered_with_pending(status: CallStatus) -> bool:
    """It has its outcome, and the acknowledgement is pending."""
    return status.outcome is not None and status.acknowledgements_owed > 0


def is_sending(status: CallStatus) -> bool:
    """It is being sent."""
    return status.stage is CallStage.SENDING


@dataclass(frozen=True)
class UpgradeCase:
    """What an upgrade meets a call in, and how the call has to end.

    Attributes:
        operation: of the integrations in `versions.py`.
        behaviour: the faults it meets.
        reached: where it has to be before the upgrade.
        act: what happens to it after that.
        status: of the outcome.
        acknowledged: the acknowledgements that the provider has accepted in the end.
        effects: how often the provider does the work.
        is_late, is_forced: what else the outcome says.
    """

    operation: str
    behaviour: Mapping[str, Any]
    reached: Callable[[CallStatus], bool]
    act: Act
    status: str = "completed"
    acknowledged: tuple[str, ...] = ("success",)
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
        assert outcome.status == self.status, (call_id, outcome)
        assert outcome.late is self.is_late, call_id
        assert (outcome.forced is not None) is self.is_forced, call_id
        assert not outcome.acknowledgement_owed, call_id
        assert await stage.effects(call_id) == self.effects, call_id
        assert tuple(await stage.acknowledged(call_id)) == self.acknowledged, call_id
        rows = 1 if self.status == "completed" else 0
        assert len(await stage.ledger.calls.responses(call_id)) == rows, call_id
        if self.status != "completed":
            assert outcome.notice is not None, call_id


STUCK = {"stuck": True}
BOTH = ("failed", "success")
"""The acknowledgements of a response that came after we had given up on it."""

PARKED = {
    "late": UpgradeCase("hasty_order", STUCK, is_parked, answer, acknowledged=BOTH, is_late=True),
    "forced": UpgradeCase(
        "hasty_order", STUCK, is_parked, force, acknowledged=BOTH, is_forced=True
    ),
    "cancelled": UpgradeCase(
        "hasty_order", STUCK, is_parked, cancel, status="cancelled", acknowledged=("failed",)
    ),
    "reprocessed": UpgradeCase(
        "create_order",
        {"fail": 1, "retryable": True},
        is_parked,
        reprocess,
        acknowledged=BOTH,
        effects=2,
        is_late=True,
    ),
}
"""Parked calls, and every way out."""

UPGRADE_CASES = PARKED | {
    "expired": UpgradeCase(
        "brief_order", STUCK, is_parked, wait, status="failed", acknowledged=("failed",)
    ),
    "parked, acknowledgement pending": UpgradeCase(
        "hasty_order",
        {"stuck": True, "acknowledgement_failures": 5},
        is_parked_with_pending,
        cancel,
        status="cancelled",
        acknowledged=("failed",),
    ),
    "awaiting": UpgradeCase("create_order", {"delay_ms": 9000}, is_awaiting, wait),
    "polled": UpgradeCase("polled_order", {"silent": True, "delay_ms": 9000}, is_awaiting, wait),
    "answered": UpgradeCase("create_order", STUCK, is_awaiting, answer),
    "forced early": UpgradeCase("create_order", STUCK, is_awaiting, force, is_forced=True),
    "cancelled early": UpgradeCase(
        "create_order", STUCK, is_awaiting, cancel, status="cancelled", acknowledged=("failed",)
    ),
    "sending": UpgradeCase("create_order", {"receipt_failures": 5}, is_sending, wait),
    "acknowledgement pending": UpgradeCase(
        "create_order", {"acknowledgement_failures": 5}, is_answered_with_pending, wait
    ),
}
"""Every stage in which an upgrade can meet a call."""


async def ended(stage: Stage, request: CallRequest) -> CallOutcome:
    """The outcome of a call that is over, with nothing left to acknowledge."""
    try:
        return await stage.calls.call(request.call_id).outcome(TIMEOUT, settled=True)
    except (CallFailedError, CallCancelledError) as error:
        return error.outcome
