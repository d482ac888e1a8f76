"""Calls with a subscriber, and their notices in the ledger."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import CallFailedError
from ackbridge.ledger.notices import NoticeRow, NoticeState
from tests.support.stage import Stage

PATIENCE = timedelta(seconds=30)


def named(request: CallRequest, subscriber: str = "shop", **more: Any) -> CallRequest:
    """The request with a subscriber."""
    return request.model_copy(update={"reply_to": subscriber, **more})


def booking(stage: Stage, subscriber: str = "shop", **behaviour: Any) -> CallRequest:
    """A booking, which is parked."""
    payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
    return named(stage.request(), subscriber, operation="create_booking", payload=payload)


def unanswered(stage: Stage) -> CallRequest:
    """A booking whose receipts are lost: it is parked, and its work is not called off."""
    return booking(stage, stuck=True, lost_receipts=1000)


async def answer_late(stage: Stage, request: CallRequest) -> None:
    """The response to a booking that is parked."""
    await stage.until(request, CallStage.PARKED)
    works = await stage.http.get(
        f"{stage.provider_url}/_works", params={"call_id": request.call_id}
    )
    response = {"kind": "response", "event_key": request.key, "data": {"ok": True}}
    response["reference"] = works.raise_for_status().json()[0]["id"]
    await stage.handle(request).signal(names.PROVIDER_MESSAGE, response)


async def row_of(stage: Stage, event_id: str, state: NoticeState) -> NoticeRow:
    """A notice in the ledger, once it has a state."""
    async with asyncio.timeout(60):
        while not (found := await stage.ledger.notices.find(event_id=event_id, state=state)):  # noqa: ASYNC110 -- it changes elsewhere
            await asyncio.sleep(0.02)
    return found[0]


async def refused(stage: Stage, subscriber: str) -> tuple[CallRequest, str]:
    """A call that the provider refuses, and the id of its notice."""
    request = named(stage.request(refuse=422, reason="sk_live_0123456789abcdef"), subscriber)
    with pytest.raises(CallFailedError):
        await (await stage.calls.start(request)).outcome(PATIENCE)
    return request, f"{request.call_id}:1.failed"
