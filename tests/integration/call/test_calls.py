"""Calls on the real engine, against the simulated provider over real sockets."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import (
    CallCancelledError,
    CallFailedError,
    CallNotFoundError,
    InvalidRequestError,
    KeyReusedError,
)
from tests.support.engine import temporal_command
from tests.support.stage import Stage

PATIENCE = timedelta(seconds=30)


async def test_four_steps(stage: Stage) -> None:
    """Request, receipt, signed callback, acknowledgement: one of each, and one row."""
    request = stage.request()
    call = await stage.calls.start(request)
    outcome = await call.outcome(PATIENCE)
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.response["status"] == "completed"
    assert outcome.response["amount"] == 5
    assert outcome.acknowledgement_owed is False
    assert await stage.effects(request.call_id) == 1
    assert await stage.acknowledged(request.call_id) == ["success"]
    (row,) = await stage.ledger.calls.responses(request.call_id)
    assert row.call_id == request.call_id


async def test_synchronous_answer_in_one_round_trip(stage: Stage) -> None:
    """Update-with-start answers with the outcome when it comes in time."""
    request = stage.request("quote")
    status = await stage.calls.start_and_wait(request, PATIENCE)
    assert status.outcome is not None
    assert status.outcome.response["total"] == 10


async def test_pending_call_answers_where_it_stands(stage: Stage) -> None:
    """A caller whose patience ends learns the stage and the deadline, and the call goes on."""
    request = stage.request(delay_ms=1500)
    status = await stage.calls.start_and_wait(request, timedelta(milliseconds=300))
    assert status.outcome is None
    assert status.stage is CallStage.AWAITING_RESPONSE
    assert status.deadline_reason == "30 s (configured initial value)"
    again = await stage.calls.start_and_wait(request, PATIENCE)
    assert again.outcome is not None
    assert await stage.effects(request.call_id) == 1


async def test_matched_by_the_providers_own_reference(stage: Stage) -> None:
    """Callbacks that know no call id find their call by the reference in the receipt."""
    call = await stage.calls.start(stage.request("create_shipment"))
    outcome = await call.outcome(PATIENCE)
    assert outcome.response["destination"] == "Bergen"
    assert outcome.reference == outcome.response["id"]


@pytest.mark.parametrize("operation", ["create_order", "create_shipment"])
async def test_callback_that_overtakes_its_receipt(stage: Stage, operation: str) -> None:
    """A callback delivered before the receipt is answered is not lost, whatever matches it."""
    call = await stage.calls.start(stage.request(operation, early=True))
    assert (await call.outcome(PATIENCE)).status is OutcomeStatus.COMPLETED


async def test_duplicates_at_the_same_instant(stage: Stage) -> None:
    """Five callbacks at once are one response."""
    request = stage.request(duplicates=4)
    call = await stage.calls.start(request)
    await call.outcome(PATIENCE)
    assert len(await stage.ledger.calls.responses(request.call_id)) == 1
    signals = [
        event
        async for event in stage.handle(request).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]
    assert len(signals) == 1


async def test_provider_that_is_down_at_first(stage: Stage) -> None:
    """A send that is refused for the moment is retried under the same key."""
    request = stage.request(receipt_failures=2)
    outcome = await (await stage.calls.start(request)).outcome(PATIENCE)
    assert outcome.attempts == 3
    keys = {event["idempotency_key"] for event in await stage.seen(request.call_id, "request")}
    assert keys == {f"{request.call_id}:1"}


async def test_lost_receipt_with_the_work_done(stage: Stage) -> None:
    """The provider did the work and its receipt was lost: it is not done twice."""
    request = stage.request(lost_receipts=1)
    await (await stage.calls.start(request)).outcome(PATIENCE)
    assert await stage.effects(request.call_id) == 1


async def test_acknowledgement_api_that_is_down_holds_nobody_up(stage: Stage) -> None:
    """The outcome is there while the acknowledgement is owed, and it is paid in the end."""
    request = stage.request(acknowledgement_failures=2)
    status = await stage.calls.start_and_wait(request, PATIENCE)
    assert status.outcome is not None
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE, settled=True)
    assert outcome.acknowledgement_owed is False
    assert await stage.acknowledged(request.call_id) == ["success"]


async def test_silence_for_the_whole_deadline(stage: Stage) -> None:
    """Two silent cycles end in two failed acknowledgements and a notice, in virtual minutes."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=90))
    with pytest.raises(CallFailedError) as failed:
        await call.outcome(PATIENCE)
    outcome = failed.value.outcome
    assert outcome.cycles == 2
    assert outcome.notice is not None
    assert outcome.notice.alternative == "Try again, or order by telephone."
    assert await stage.acknowledged(request.call_id) == ["failed", "failed"]
    keys = [event["idempotency_key"] for event in await stage.seen(request.call_id, "request")]
    assert keys == [f"{request.call_id}:1", f"{request.call_id}:2"]


async def test_lost_callback_is_found_by_asking(stage: Stage) -> None:
    """A provider that did the work and never called back is asked before we give up on it."""
    request = stage.request(silent=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
    outcome = await call.outcome(PATIENCE)
    assert outcome.cycles == 1
    assert outcome.response["status"] == "completed"
    assert await stage.acknowledged(request.call_id) == ["success"]


async def test_failure_reported_by_the_provider(stage: Stage) -> None:
    """A final failure ends the call with the provider's reason."""
    call = await stage.calls.start(stage.request(fail=9, reason="out of stock"))
    with pytest.raises(CallFailedError, match="out of stock"):
        await call.outcome(PATIENCE)


async def test_cancel_tells_the_provider(stage: Stage) -> None:
    """A cancelled call ends as cancelled, and what was sent is acknowledged as failed."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await call.cancel(by="ann", reason="ordered twice")
    with pytest.raises(CallCancelledError, match="cancelled by ann: ordered twice"):
        await call.outcome(PATIENCE)
    assert await stage.acknowledged(request.call_id) == ["failed"]


async def test_native_cancellation_does_the_same(stage: Stage) -> None:
    """Temporal's own cancellation closes as cancelled and keeps the outcome in the ledger."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.handle(request).cancel()
    with pytest.raises(CallCancelledError):
        await call.outcome(PATIENCE)
    row = await stage.ledger.calls.get(request.call_id)
    assert row is not None
    assert row.stage == "cancelled"
    assert await stage.acknowledged(request.call_id) == ["failed"]


async def test_force_ack_is_recorded_and_signed(stage: Stage) -> None:
    """An operator's word ends the waiting, stands in the ledger, and bears a name."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await call.force_ack(by="bo", reason="seen in their console", response={"id": 9})
    outcome = await call.outcome(PATIENCE)
    assert outcome.forced is not None
    assert outcome.forced.by == "bo"
    assert len(await stage.ledger.calls.responses(request.call_id)) == 1


async def test_same_key_is_the_same_call(stage: Stage) -> None:
    """Starting again finds the call, running or over, and sends nothing."""
    request = stage.request(delay_ms=300)
    first, second = await asyncio.gather(stage.calls.start(request), stage.calls.start(request))
    assert await first.outcome(PATIENCE) == await second.outcome(PATIENCE)
    third = await stage.calls.start(request)
    assert await third.outcome(PATIENCE) == await first.outcome(PATIENCE)
    assert len(await stage.seen(request.call_id, "request")) == 1


@pytest.mark.parametrize("over", [False, True])
async def test_same_key_with_another_payload_is_refused(stage: Stage, over: bool) -> None:
    """A key stands for one payload, while the call runs and after it."""
    request = stage.request(delay_ms=0 if over else 2000)
    call = await stage.calls.start(request)
    if over:
        await call.outcome(PATIENCE)
    other = request.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
    with pytest.raises(KeyReusedError, match="another payload"):
        await stage.calls.start(other)
    with pytest.raises(KeyReusedError, match="another payload"):
        await stage.calls.start_and_wait(other, timedelta(seconds=1))


async def test_claim_holds_for_whoever_starts_and_however(stage: Stage) -> None:
    """A foreign client that may reuse ids gets the recorded outcome; another payload is refused."""
    request = stage.request()
    first = await (await stage.calls.start(request)).outcome(PATIENCE)
    assert (await _start_again(stage, request))["response"] == first.response
    assert len(await stage.seen(request.call_id, "request")) == 1
    other = request.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
    with pytest.raises(WorkflowFailureError) as failed:
        await _start_again(stage, other)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == names.KEY_REUSED


async def test_payload_is_checked_before_anything_is_sent(stage: Stage) -> None:
    """A bad payload is refused with its field, and the provider hears nothing."""
    request = stage.request().model_copy(update={"payload": {"amount": "five"}})
    with pytest.raises(InvalidRequestError, match=r"payload\.amount: is not of type integer"):
        await (await stage.calls.start(request)).outcome(PATIENCE)
    with pytest.raises(InvalidRequestError, match="currency is missing"):
        await stage.calls.start_and_wait(request, PATIENCE)
    assert await stage.seen(request.call_id, "request") == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "expected one JSON object"),
        ([1], "expected a JSON object, got int"),
        ([{"provider": "sandbox"}], "operation: Field required"),
        ([{"provider": "sandbox"}, {}], "expected one JSON object"),
        ([{"provider": "S", "operation": "x", "key": "k"}], "provider: String should match"),
        (
            [{"provider": "sandbox", "operation": "quote", "key": "k", "playload": 1}],
            "playload: Extra inputs are not permitted",
        ),
        ([{"provider": "sandbox", "operation": "quote", "key": "k"}], "workflow id"),
    ],
)
async def test_bad_start_fails_and_names_the_field(
    stage: Stage, arguments: list[Any], complaint: str
) -> None:
    """Whatever a foreign client starts, the workflow ends, and says what was wrong."""
    handle = await stage.client.start_workflow(
        names.INTEGRATION_CALL,
        args=arguments,
        id=f"bad-{uuid.uuid4().hex}",
        task_queue=names.TASK_QUEUE,
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 20)
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == names.INVALID_REQUEST
    assert complaint in cause.message


async def test_run_timeouts_are_refused(stage: Stage) -> None:
    """A timeout of the caller's would end a call unacknowledged, so it is not accepted."""
    request = stage.request()
    handle = await stage.client.start_workflow(
        names.INTEGRATION_CALL,
        request,
        id=request.call_id,
        task_queue=names.TASK_QUEUE,
        run_timeout=timedelta(minutes=1),
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert "workflow timeouts" in str(failed.value.cause)


async def test_bad_signal_and_update_are_named_and_harmless(stage: Stage) -> None:
    """A signal that does not validate is in the status; an update is refused; the call goes on."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    handle = stage.handle(request)
    await handle.signal(names.PROVIDER_MESSAGE, {"kind": "nonsense"})
    await handle.signal(names.CANCEL, args=[1, 2])
    assert "expected one JSON object" in ((await call.status()).last_error or "")
    await handle.signal(names.FORCE_ACK, {"by": "bo"})
    assert "reason: Field required" in ((await call.status()).last_error or "")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(names.AWAIT_OUTCOME, {"timeout": "soon"})
    assert "timeout: 'soon' is not a duration" in str(refused.value.cause)
    await call.cancel(by="test", reason="done")


async def test_messages_that_travel_together_are_heard_one_by_one(stage: Stage) -> None:
    """One that does not read is named and takes no other with it; a duplicate is suppressed."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    answer = {"kind": "response", "event_key": "evt-1", "data": {"ok": True}}
    handle = stage.handle(request)
    await handle.signal(names.PROVIDER_MESSAGES, {"messages": []})
    await handle.signal(
        names.PROVIDER_MESSAGES, {"messages": [answer, {"kind": "nonsense"}, answer]}
    )
    outcome = await call.outcome(PATIENCE, settled=True)

    assert outcome.response == {"ok": True}
    row = await stage.ledger.calls.get(request.call_id)
    assert row is not None
    assert (await stage.ledger.counts())["suppressed"] >= 1


async def test_unknown_call(stage: Stage) -> None:
    """Asking for a call that is not there says so."""
    with pytest.raises(CallNotFoundError, match="no such call"):
        await stage.calls.call("sandbox.quote.never").status()


async def test_unknown_operation_lists_what_there_is(stage: Stage) -> None:
    """A misspelt operation is refused with the names that exist."""
    request = stage.request().model_copy(update={"operation": "create_ordr"})
    with pytest.raises(InvalidRequestError, match="known operations: create_booking, create_order"):
        await (await stage.calls.start(request)).outcome(PATIENCE)


async def test_many_waiters(stage: Stage) -> None:
    """More waiters than the engine allows updates in flight all get the outcome."""
    request = stage.request(delay_ms=1000)
    statuses = await asyncio.gather(
        *(stage.calls.start_and_wait(request, PATIENCE) for _ in range(15))
    )
    assert all(status.outcome is not None for status in statuses)
    assert len(await stage.seen(request.call_id, "request")) == 1


async def test_plain_json_from_the_temporal_command(stage: Stage) -> None:
    """The temporal command starts a call, asks, and reads a plain result, without our models."""
    request = stage.request()
    document = json.dumps(request.model_dump(exclude_none=True))
    where = ("--address", stage.namespace.address, "--namespace", stage.namespace.name)
    await temporal_command(
        *("workflow", "start", "--type", "IntegrationCall", "--task-queue", "ackbridge"),
        *("--workflow-id", request.call_id, "--input", document, *where),
    )
    told = await temporal_command(
        *("workflow", "result", "--workflow-id", request.call_id, "--output", "json", *where),
    )
    assert json.loads(told)["result"]["status"] == "completed"
    described = await stage.handle(request).describe()
    attributes = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert attributes["AckbridgeProvider"] == "sandbox"


async def test_history_reads_like_a_story(stage: Stage) -> None:
    """Every timer and every activity says what it is for, and the call says what it is."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    summaries = []
    async for event in stage.handle(request).fetch_history_events():
        if event.HasField("user_metadata"):
            (text,) = await stage.client.data_converter.decode([event.user_metadata.summary])
            summaries.append(text)
    assert summaries[0] == "create_order at sandbox"
    assert "response deadline 30 s (configured initial value)" in summaries
    metadata = await stage.handle(request).query("__temporal_workflow_metadata")
    details = metadata["currentDetails"] if isinstance(metadata, dict) else str(metadata)
    assert "awaiting its response" in details
    await call.cancel(by="test", reason="done")


async def _start_again(stage: Stage, request: CallRequest) -> Any:
    """Start as the engine allows it once it has forgotten a call, or to whoever asks for it."""
    handle = await stage.client.start_workflow(
        names.INTEGRATION_CALL,
        request,
        id=request.call_id,
        task_queue=names.TASK_QUEUE,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )
    return await handle.result()
