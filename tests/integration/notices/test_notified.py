"""The notices of a call, to subscribers and to callers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts import names
from ackbridge.contracts.calls import Effect, NoticeStatus, OutcomeStatus, WaitingFor
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import CallCancelledError, CallFailedError, InvalidRequestError
from ackbridge.ledger.notices import NoticeState
from tests.support.replays import replay
from tests.support.stage import Stage
from tests.support.subscribers import Subscriber

from .requests import PATIENCE, answer_late, booking, named, row_of, unanswered


async def test_delayed_and_then_completed_late(told: Stage, shop: Subscriber) -> None:
    """Both in order, both signed, with stable ids, the texts of the operation, and the response."""
    request = unanswered(told).model_copy(update={"metadata": {"tenant": "t-1"}})
    status = await told.calls.start_and_wait(request, PATIENCE)
    assert status.answer is NoticeStatus.DELAYED
    await answer_late(told, request)
    outcome = await told.calls.call(request.call_id).outcome(PATIENCE)

    delayed, late = await shop.until(request.call_id, 2)

    assert [delayed.position, late.position] == [(1, "call.delayed"), (2, "call.completed_late")]
    assert [delayed.id, late.id] == [
        f"{request.call_id}:1.delayed",
        f"{request.call_id}:2.completed_late",
    ]
    assert delayed.body["id"] == delayed.id
    assert delayed.body["data"]["notice"]["title"] == "Your booking takes longer"
    assert delayed.body["data"]["response"] is None
    data = late.body["data"]
    assert (data["status"], data["late"], data["response"]) == ("completed", True, {"ok": True})
    assert data["metadata"] == {"tenant": "t-1"}
    assert data["notice"]["title"] == "Done, later than usual"
    assert outcome.late
    assert (await row_of(told, late.id, NoticeState.DELIVERED)).attempts == 1
    (shown,) = await told.ledger.call_events.newest([request.call_id])
    assert (shown.number, shown.status, shown.late) == (2, NoticeStatus.COMPLETED, True)
    assert shown.notice is None, "a page shows the built-in text"
    await replay(await told.handle(request).fetch_history())
    delivery = told.client.get_workflow_handle(names.notice_id(late.id))
    await replay(await delivery.fetch_history())


async def test_confirmation_after_a_reprocess_is_late(told: Stage, shop: Subscriber) -> None:
    """After a notice of delay the confirmation says that it is late, though the cycle is new."""
    request = booking(told, resets=5)
    await told.calls.start(request)
    await told.until(request, CallStage.PARKED)
    await told.calls.call(request.call_id).reprocess(by="ops")
    outcome = await told.calls.call(request.call_id).outcome(PATIENCE)

    assert outcome.late
    positions = [notice.position for notice in await shop.until(request.call_id, 2)]
    assert positions == [(1, "call.delayed"), (2, "call.completed_late")]


async def test_completed_in_time(told: Stage, shop: Subscriber) -> None:
    """One notice, for subscribers of this event, which is not late."""
    request = named(told.request("quote"))
    status = await told.calls.start_and_wait(request, PATIENCE)

    assert status.answer is NoticeStatus.COMPLETED
    (notice,) = await shop.until(request.call_id, 1)
    assert notice.position == (1, "call.completed")
    assert notice.body["data"]["late"] is False
    assert notice.body["data"]["response"]["total"] == 10
    (shown,) = await told.ledger.call_events.newest([request.call_id])
    assert (shown.number, shown.late) == (1, False)
    assert shown.notice is not None
    assert shown.notice.title == notice.body["data"]["notice"]["title"] == "A quote in EUR"


async def test_failed_has_the_alternative_in_the_users_language(
    told: Stage, shop: Subscriber
) -> None:
    """The caller's status has the same notice; neither repeats the provider's text."""
    why = "no room for sk_live_0123456789abcdef"
    request = booking(told, fail=9, retryable=True, reason=why)
    request = request.model_copy(update={"language": "de-AT"})
    await told.calls.start(request)
    await told.until(request, CallStage.PARKED)
    await told.skipper.fast_forward(told.handle(request), timedelta(days=8))
    with pytest.raises(CallFailedError) as failed:
        await told.calls.call(request.call_id).outcome(PATIENCE)

    delayed, last = await shop.until(request.call_id, 2)

    assert delayed.body["data"]["notice"]["title"] == "Your booking takes longer"
    notice = last.body["data"]["notice"]
    assert (notice["title"], notice["alternative"]) == ("Buchung attic", "Rufen Sie an.")
    assert failed.value.outcome.notice is not None
    assert notice == failed.value.outcome.notice.model_dump(mode="json")
    assert "no room" not in str(last.body)
    status = await told.calls.call(request.call_id).status()
    assert status.answer is NoticeStatus.FAILED


async def test_cancelled(told: Stage, shop: Subscriber) -> None:
    """By signal or by Temporal's cancellation."""
    requests = [named(told.request(stuck=True)) for _ in range(2)]
    for request in requests:
        await told.calls.start(request)
        await told.until(request, CallStage.AWAITING_RESPONSE)
    await told.calls.call(requests[0].call_id).cancel(by="ann", reason="a mistake")
    await told.handle(requests[1]).cancel()
    for request in requests:
        with pytest.raises(CallCancelledError):
            await told.calls.call(request.call_id).outcome(PATIENCE)
        (notice,) = await shop.until(request.call_id, 1)
        assert notice.position == (1, "call.cancelled")


async def test_url_is_not_a_subscriber(told: Stage) -> None:
    """It is refused before anything is sent, naming the field."""
    request = named(told.request(), "https://evil.example/")
    with pytest.raises((InvalidRequestError, WorkflowFailureError), match="reply_to"):
        await (await told.calls.start(request)).outcome(PATIENCE)
    assert await told.seen(request.call_id, "request") == []


async def test_call_waits_for_a_worker_that_knows_its_subscriber(told: Stage) -> None:
    """The status names the field; nothing is sent, and it ends as cancelled without effect."""
    request = named(told.request(), "nobody")
    call = await told.calls.start(request)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (waiting := (await call.status()).waiting) is None:  # noqa: ASYNC110 -- it changes in a workflow
            await asyncio.sleep(0.1)
    assert waiting.what is WaitingFor.DEPENDENCY
    assert "reply_to: unknown subscriber 'nobody'" in str(waiting.detail)
    await call.cancel(by="ann", reason="a typing error")
    with pytest.raises(CallCancelledError) as cancelled:
        await call.outcome(PATIENCE)
    assert cancelled.value.outcome.effect is Effect.NONE
    assert await told.seen(request.call_id, "request") == []


async def test_without_a_subscriber(told: Stage) -> None:
    """The history has no child workflow and no further events."""
    request = told.request("quote")
    await (await told.calls.start(request)).outcome(PATIENCE)
    history = await told.handle(request).fetch_history()
    assert "child" not in history.to_json().lower()


async def test_caller_gets_the_notices_of_a_late_response(told: Stage) -> None:
    """`await_outcome` returns the same notices: accepted, delayed, completed, late."""
    request = unanswered(told)
    calls: AckbridgeClient = told.calls
    accepted = await calls.start_and_wait(request, timedelta(milliseconds=50))
    assert accepted.answer in (NoticeStatus.ACCEPTED, NoticeStatus.DELAYED)
    await answer_late(told, request)
    await calls.call(request.call_id).outcome(PATIENCE)
    status = await calls.call(request.call_id).status()
    assert status.answer is NoticeStatus.COMPLETED
    assert status.outcome is not None
    assert (status.outcome.status, status.outcome.late) == (OutcomeStatus.COMPLETED, True)
