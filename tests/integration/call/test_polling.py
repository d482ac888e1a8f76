"""Providers without callbacks are asked until they answer, on the real engine."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType, PendingActivityState

from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import CallCancelledError, CallFailedError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.replays import replay
from tests.support.stage import Stage, edited_integrations, set_up

PATIENCE = timedelta(seconds=30)


def report(**behaviour: Any) -> CallRequest:
    """A request for a report, with a key of its own."""
    return CallRequest(
        provider="sandbox",
        operation="create_report",
        key=uuid.uuid4().hex,
        payload={"subject": "tides", "behaviour": behaviour},
    )


async def test_asked_until_it_answers(stage: Stage) -> None:
    """The report is asked for in one activity, recorded once, and acknowledged."""
    request = report(delay_ms=1200, status_failures=1)
    outcome = await (await stage.calls.start(request)).outcome(PATIENCE, settled=True)
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.response["subject"] == "tides"
    assert len(await stage.ledger.calls.responses(request.call_id)) == 1
    assert await stage.acknowledged(request.call_id) == ["success"]
    assert len(await stage.seen(request.call_id, "status")) > 2
    history = await stage.handle(request).fetch_history()
    scheduled = [
        e for e in history.events if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert [e.activity_task_scheduled_event_attributes.activity_type.name for e in scheduled] == [
        "poll",
        "record",
    ]
    await replay(history)


async def test_failure_that_is_told_when_asked(stage: Stage) -> None:
    """A provider that says that it has failed ends the call with its reason."""
    request = report(delay_ms=300, fail=1)
    with pytest.raises(CallFailedError, match="out of stock"):
        await (await stage.calls.start(request)).outcome(PATIENCE)


async def test_cancel_stops_the_asking(stage: Stage) -> None:
    """Nobody asks on behalf of a call that is over."""
    request = report(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await call.cancel(by="ann", reason="no longer wanted")
    with pytest.raises(CallCancelledError):
        await call.outcome(PATIENCE, settled=True)
    await asyncio.sleep(4)
    asked = len(await stage.seen(request.call_id, "status"))
    await asyncio.sleep(1)
    assert len(await stage.seen(request.call_id, "status")) == asked
    assert await stage.acknowledged(request.call_id) == ["failed"]


async def test_operator_ends_the_asking(stage: Stage) -> None:
    """A forced answer wins over a report that is still being made."""
    request = report(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await call.force_ack(by="bo", reason="came by post", response={"pages": 3})
    outcome = await call.outcome(PATIENCE, settled=True)
    assert outcome.response == {"pages": 3}
    assert await stage.acknowledged(request.call_id) == ["success"]


async def test_long_pause_is_a_retry(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """Between two questions no worker has the poll, the history does not grow, and a cancel ends
    it at once."""

    def edit(operations: dict[str, Any]) -> None:
        operations["create_report"]["response"]["poll"] = {"every": "2s"}

    async with set_up(engine, tmp_path, edited_integrations(tmp_path, edit)) as stage:
        request = report(stuck=True)
        call = await stage.calls.start(request)
        await stage.until(request, CallStage.AWAITING_RESPONSE)
        events = (await stage.handle(request).describe()).history_length
        while len(await stage.seen(request.call_id, "status")) < 2:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)

        described = await stage.handle(request).describe()
        (pending,) = described.raw_description.pending_activities
        assert pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        assert pending.attempt > 1
        assert described.history_length == events
        before = time.monotonic()
        await call.cancel(by="ann", reason="no longer wanted")
        with pytest.raises(CallCancelledError):
            await call.outcome(PATIENCE, settled=True)
        assert time.monotonic() - before < 1.5
        await asyncio.sleep(2.5)
        assert len(await stage.seen(request.call_id, "status")) == 2
