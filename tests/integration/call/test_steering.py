"""Orders reach a call in every stage that waits, on the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import CallCancelledError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.replays import replay
from tests.support.stage import Stage, edited_integrations, set_up

PATIENCE = timedelta(seconds=30)
FOR_LONG = 1000
"""Failures of the provider before it would do better: more than any test waits for."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The sandbox's integration with patience: it sends again and again, a minute apart at last."""
    folder = tmp_path_factory.mktemp("stage")

    def patient(operations: dict[str, Any]) -> None:
        operations["create_order"]["receipt"] |= {"attempts": 50, "within": "1h"}

    integrations = edited_integrations(folder, patient)
    async with set_up(engine, folder, integrations) as everything:
        yield everything


async def send_in_vain(stage: Stage, request: CallRequest, times: int = 3) -> None:
    """Start a call, and wait until its request was sent so often."""
    await stage.calls.start(request)
    while len(await stage.seen(request.call_id, "request")) < times:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


async def replays(stage: Stage, request: CallRequest) -> None:
    """The history of the call replays."""
    await replay(await stage.handle(request).fetch_history())


async def test_cancel_between_two_attempts(stage: Stage) -> None:
    """The next attempt is not made, and what the provider may have got is owed a word."""
    request = stage.request(receipt_failures=FOR_LONG, retry_after=3600)
    await send_in_vain(stage, request)
    await stage.calls.call(request.call_id).cancel(by="ann", reason="the customer left")
    with pytest.raises(CallCancelledError) as cancelled:
        await stage.calls.call(request.call_id).outcome(PATIENCE)
    sent = len(await stage.seen(request.call_id, "request"))
    assert cancelled.value.outcome.notice is not None
    assert cancelled.value.outcome.reason == "cancelled by ann: the customer left"
    # Nobody knows under which reference the provider may have it.
    status = await stage.calls.call(request.call_id).status()
    assert (status.stage, status.acknowledgements_owed) == (CallStage.ACKNOWLEDGING, 1)
    found = [row async for row in stage.calls.list(owed=True)]
    assert request.call_id in [row.call_id for row in found]
    await stage.skipper.fast_forward(stage.handle(request), timedelta(hours=25))
    with pytest.raises(CallCancelledError) as over:
        await stage.calls.call(request.call_id).outcome(PATIENCE, settled=True)
    assert over.value.outcome.acknowledgement_owed is True
    assert len(await stage.seen(request.call_id, "request")) == sent
    await replays(stage, request)


async def test_force_ack_between_two_attempts(stage: Stage) -> None:
    """An operator who has seen the order in the provider's console need not wait for a receipt."""
    request = stage.request(lost_receipts=FOR_LONG, silent=True)
    await send_in_vain(stage, request)
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert outcome.forced is not None
    assert (outcome.forced.by, outcome.response) == ("bo", {"id": 9})
    assert await stage.effects(request.call_id) == 1


async def test_response_ends_the_retries_of_its_request(stage: Stage) -> None:
    """A provider that answers has the request, whatever became of its receipts."""
    request = stage.request(lost_receipts=FOR_LONG, delay_ms=1000)
    await stage.calls.start(request)
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE, settled=True)
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.reference == outcome.response["id"]
    assert await stage.effects(request.call_id) == 1
    assert await stage.acknowledged(request.call_id) == ["success"]
    await replays(stage, request)


async def test_reference_that_a_late_message_tells_pays_the_debt(stage: Stage) -> None:
    """A failed acknowledgement without an address is sent as soon as a callback gives it one."""
    request = stage.request(lost_receipts=FOR_LONG, delay_ms=5000)
    await send_in_vain(stage, request, times=2)
    await stage.calls.call(request.call_id).cancel(by="ann", reason="the customer left")
    with pytest.raises(CallCancelledError) as over:
        await stage.calls.call(request.call_id).outcome(PATIENCE, settled=True)
    assert over.value.outcome.acknowledgement_owed is False
    assert await stage.acknowledged(request.call_id) == ["failed"]
    await replays(stage, request)


async def test_native_cancellation_between_two_attempts(stage: Stage) -> None:
    """Temporal's own cancellation interrupts the retries as well, and closes as cancelled."""
    request = stage.request(resets=FOR_LONG)
    await send_in_vain(stage, request)
    await stage.handle(request).cancel()
    await stage.until(request, CallStage.ACKNOWLEDGING)
    await stage.skipper.fast_forward(stage.handle(request), timedelta(hours=25))
    with pytest.raises(WorkflowFailureError) as closed:
        await stage.handle(request).result()
    assert isinstance(closed.value.cause, CancelledError)
    await replays(stage, request)


async def test_second_force_is_answered(stage: Stage) -> None:
    """A call is forced once; whoever comes second reads who was first, or that it is too late."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    call = stage.calls.call(request.call_id)
    await asyncio.gather(
        call.force_ack(by="bo", reason="seen"), call.force_ack(by="cy", reason="seen too")
    )
    outcome = await call.outcome(PATIENCE)
    assert outcome.status is OutcomeStatus.COMPLETED
    status = await call.status()
    assert status.last_error is not None
    assert "has forced it already" in status.last_error or "too late" in status.last_error


async def test_force_ack_of_a_call_with_the_longest_key(stage: Stage) -> None:
    """However long the caller's key is, an operator's word is an event with a key of its own."""
    short = stage.request(stuck=True)
    request = short.model_copy(update={"key": short.key + "k" * (512 - len(short.key))})
    await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert outcome.response == {"id": 9}
