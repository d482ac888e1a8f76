"""Notices on the real engine, to subscribers over real sockets that verify every signature."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from ackbridge.client import AckbridgeClient
from ackbridge.contracts import (
    Answer,
    CallRequest,
    Delivery,
    NoticeBody,
    NoticeData,
    OutcomeStatus,
    names,
)
from ackbridge.contracts import Stage as CallStage
from ackbridge.embedded import EmbeddedEngine
from ackbridge.errors import CallCancelledError, CallFailedError, InvalidRequestError
from ackbridge.ledger import NoticeRow, NoticeState
from ackbridge.replaying import replay
from tests.integration.stage import Stage, edited_integrations, set_up
from tests.integration.subscribers import Subscriber, configure, subscribing
from tests.integration.test_cli import run
from tests.replay.test_replay import replayer

PATIENCE = timedelta(seconds=30)


@pytest.fixture(scope="module")
def shop() -> Iterator[Subscriber]:
    """The subscriber most calls here name."""
    with subscribing() as one:
        yield one


@pytest.fixture(scope="module")
def sick() -> Iterator[Subscriber]:
    """A subscriber that is not well."""
    with subscribing() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(
    engine: EmbeddedEngine,
    tmp_path_factory: pytest.TempPathFactory,
    shop: Subscriber,
    sick: Subscriber,
) -> AsyncIterator[Stage]:
    """The sandbox's integration with two subscribers, on an engine that skips time."""
    folder = tmp_path_factory.mktemp("told")

    def briefly(operations: dict[str, Any]) -> None:
        german = {
            "title": "Buchung {payload.room}",
            "message": "Nicht bestätigt.",
            "alternative": "Rufen Sie an.",
        }
        notices = operations["create_booking"]["notices"]
        notices["failed"] = {"en": notices["failed"], "de": german}

    integrations = edited_integrations(folder, briefly)
    configure(integrations, "shop", shop.url, response=True)
    configure(integrations, "sick", sick.url, timeout="1s", within="5d", concurrent=2)
    configure(integrations, "hasty", sick.url, within="1h")
    async with set_up(engine.address, folder, integrations) as everything:
        yield everything


def named(request: CallRequest, subscriber: str = "shop", **more: Any) -> CallRequest:
    """The request with a subscriber."""
    return request.model_copy(update={"reply_to": subscriber, **more})


def booking(stage: Stage, subscriber: str = "shop", **behaviour: Any) -> CallRequest:
    """A booking, which is parked."""
    payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
    return named(stage.request(), subscriber, operation="create_booking", payload=payload)


async def park(stage: Stage, request: CallRequest) -> None:
    """Let both deadlines of a booking pass."""
    await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=70))
    await stage.until(request, CallStage.PARKED)


async def row_of(stage: Stage, event_id: str, state: NoticeState) -> NoticeRow:
    """What the ledger has of a notice, once it stands there."""
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


async def test_delayed_and_then_completed_late(told: Stage, shop: Subscriber) -> None:
    """Both in order, both signed, with stable ids, the texts of the operation, and the response."""
    request = booking(told, stuck=True).model_copy(update={"metadata": {"tenant": "t-1"}})
    await park(told, request)
    status = await told.calls.start_and_wait(request, PATIENCE)
    assert status.answer is Answer.DELAYED
    await told.handle(request).signal(
        names.PROVIDER_MESSAGE, {"kind": "response", "event_key": "late-1", "data": {"ok": True}}
    )
    outcome = await told.calls.call(request.call_id).outcome(PATIENCE)

    delayed, late = await shop.until(request.call_id, 2)

    assert [delayed.story, late.story] == [(1, "call.delayed"), (2, "call.completed_late")]
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
    await replayer().replay_workflow(await told.handle(request).fetch_history())
    delivery = told.client.get_workflow_handle(names.notice_id(late.id))
    await replayer().replay_workflow(await delivery.fetch_history())


async def test_confirmation_after_a_reprocess_is_late(told: Stage, shop: Subscriber) -> None:
    """Who was told of a delay is told that the confirmation is late, though the cycle is new."""
    request = booking(told, resets=5)
    await told.calls.start(request)
    await told.until(request, CallStage.PARKED)
    await told.calls.call(request.call_id).reprocess(by="ops")
    outcome = await told.calls.call(request.call_id).outcome(PATIENCE)

    assert outcome.late
    stories = [letter.story for letter in await shop.until(request.call_id, 2)]
    assert stories == [(1, "call.delayed"), (2, "call.completed_late")]


async def test_completed_in_time_is_told_to_who_wants_it(told: Stage, shop: Subscriber) -> None:
    """One notice, which says that nothing is late."""
    request = named(told.request("quote"))
    status = await told.calls.start_and_wait(request, PATIENCE)

    assert status.answer is Answer.COMPLETED
    (letter,) = await shop.until(request.call_id, 1)
    assert letter.story == (1, "call.completed")
    assert letter.body["data"]["late"] is False
    assert letter.body["data"]["response"]["total"] == 10


async def test_failed_says_the_alternative_in_the_users_language(
    told: Stage, shop: Subscriber
) -> None:
    """The caller's status and the notice say the same, and neither repeats the provider."""
    request = booking(told, fail=9, reason="no room for sk_live_0123456789abcdef")
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
    assert status.answer is Answer.FAILED


async def test_cancelled_is_told(told: Stage, shop: Subscriber) -> None:
    """By signal or by the engine's own cancellation."""
    requests = [named(told.request(stuck=True)) for _ in range(2)]
    for request in requests:
        await told.calls.start(request)
        await told.until(request, CallStage.AWAITING_RESPONSE)
    await told.calls.call(requests[0].call_id).cancel(by="ann", reason="a mistake")
    await told.handle(requests[1]).cancel()
    for request in requests:
        with pytest.raises(CallCancelledError):
            await told.calls.call(request.call_id).outcome(PATIENCE)
        (letter,) = await shop.until(request.call_id, 1)
        assert letter.story == (1, "call.cancelled")


async def test_unknown_subscriber_is_refused(told: Stage) -> None:
    """Before anything is sent, naming the field; a URL is no subscriber either."""
    for name in ("nobody", "https://evil.example/"):
        request = named(told.request(), name)
        with pytest.raises((InvalidRequestError, WorkflowFailureError), match="reply_to"):
            await (await told.calls.start(request)).outcome(PATIENCE)
        assert await told.seen(request.call_id, "request") == []


async def test_without_a_subscriber_nothing_is_added(told: Stage) -> None:
    """No child, no event more: the history is that of the time before."""
    request = told.request("quote")
    await (await told.calls.start(request)).outcome(PATIENCE)
    history = await told.handle(request).fetch_history()
    assert "child" not in history.to_json().lower()


async def test_subscriber_that_comes_back_after_days(told: Stage, sick: Subscriber) -> None:
    """It is tried again and again, under one id, and nobody has waited for it."""
    sick.replies[:] = [503] * 11
    request, event_id = await refused(told, "sick")
    delivery = told.client.get_workflow_handle(names.notice_id(event_id))
    pending = await row_of(told, event_id, NoticeState.PENDING)
    assert pending.body.data.call_id == request.call_id

    await told.skipper.fast_forward(delivery, timedelta(days=3))

    (letter,) = await sick.until(request.call_id, 1)
    assert letter.id == event_id
    tries = [one.id for one in sick.letters if one.id == event_id]
    assert len(tries) == 12
    row = await row_of(told, event_id, NoticeState.DELIVERED)
    assert row.attempts == 12
    assert "sk_live" not in str(letter.body)


async def test_subscriber_that_never_comes_back(
    told: Stage, sick: Subscriber, engine: EmbeddedEngine
) -> None:
    """When its days are over the notice is dead, says why, and can be replayed."""
    sick.replies[:] = [500] * 20
    request, event_id = await refused(told, "hasty")
    delivery = told.client.get_workflow_handle(names.notice_id(event_id))
    await row_of(told, event_id, NoticeState.PENDING)

    await told.skipper.fast_forward(delivery, timedelta(hours=2))

    with pytest.raises(WorkflowFailureError) as failed:
        await delivery.result()
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == names.NOT_DELIVERED
    dead = await row_of(told, event_id, NoticeState.DEAD)
    assert dead.reason == "not accepted within 1:00:00: the subscriber answered 500"
    await replayer().replay_workflow(await delivery.fetch_history())
    sick.replies.clear()

    environ = {**engine.environment, "ACKBRIDGE_LEDGER_URL": told.settings.ledger_url}
    listed = await asyncio.to_thread(run, environ, "notices", "--dead", "--json")
    assert [one["event_id"] for one in json.loads(listed.stdout)] == [event_id]
    shown = await asyncio.to_thread(run, environ, "notices", "--subscriber", "hasty")
    assert "the subscriber answered 500" in " ".join(shown.stdout.split())
    replayed = await asyncio.to_thread(
        run, environ, "notices", "replay", "--subscriber", "hasty", "--within", "1h"
    )
    assert replayed.stdout == f"{event_id}: on its way\n"

    (letter,) = await sick.until(request.call_id, 1)
    assert letter.id == event_id
    await row_of(told, event_id, NoticeState.DELIVERED)


async def test_replay_of_what_is_not_there(told: Stage, engine: EmbeddedEngine) -> None:
    """Bad input: exit status 2, and it is named."""
    environ = {**engine.environment, "ACKBRIDGE_LEDGER_URL": told.settings.ledger_url}
    for arguments, why in ((("nothing:1.failed",), "there is no notice"), ((), "either")):
        done = await asyncio.to_thread(run, environ, "notices", "replay", *arguments)
        assert done.returncode == 2
        assert why in done.stderr


async def test_one_notice_is_sent_again(told: Stage, shop: Subscriber) -> None:
    """Even one that was delivered, if somebody asks for it; not while it is on its way."""
    request, event_id = await refused(told, "shop")
    await shop.until(request.call_id, 1)
    await told.client.get_workflow_handle(names.notice_id(event_id)).result()
    (before,) = await told.ledger.notices.find(event_id=event_id)
    shop.replies[:] = [503]

    assert await replay(told.client, before)
    await row_of(told, event_id, NoticeState.PENDING)
    assert not await replay(told.client, before)

    delivery = told.client.get_workflow_handle(names.notice_id(event_id))
    await told.skipper.fast_forward(delivery, timedelta(minutes=1))
    await row_of(told, event_id, NoticeState.DELIVERED)
    assert [one.id for one in shop.letters].count(event_id) == 3


async def test_gone_ends_a_notice(told: Stage, sick: Subscriber) -> None:
    """After a 410 there is no second attempt."""
    sick.replies[:] = [410]
    _, event_id = await refused(told, "sick")
    dead = await row_of(told, event_id, NoticeState.DEAD)
    assert "410" in str(dead.reason)
    assert [one.id for one in sick.letters].count(event_id) == 1


async def test_subscriber_that_hangs_holds_nobody_up(
    told: Stage, shop: Subscriber, sick: Subscriber
) -> None:
    """While all its places are taken, others are told at once."""
    sick.replies[:] = [20.0] * 20
    for _ in range(3):
        await refused(told, "sick")
    request, event_id = await refused(told, "shop")
    (letter,) = await shop.until(request.call_id, 1)
    assert letter.id == event_id
    assert sick.replies
    sick.replies.clear()


async def test_notice_is_delivered_once(told: Stage, shop: Subscriber) -> None:
    """A second delivery of the same event is no second notice, whoever starts it."""
    request, event_id = await refused(told, "shop")
    (letter,) = await shop.until(request.call_id, 1)
    await told.client.get_workflow_handle(names.notice_id(event_id)).result()

    again = await told.client.start_workflow(
        names.DELIVER_NOTICE,
        Delivery(subscriber="shop", body=NoticeBody.model_validate(letter.body)),
        id=names.notice_id(event_id),
        task_queue=names.TASK_QUEUE,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )

    await again.result()
    assert [one.id for one in shop.letters].count(event_id) == 1


async def test_bad_delivery_is_refused(told: Stage) -> None:
    """Whoever starts the workflow by hand is told what is wrong, and nothing hangs."""
    body = NoticeBody(
        id="evt-1",
        type="call.failed",
        timestamp="2026-01-01T00:00:00Z",
        data=NoticeData(
            call_id="a.b.c", provider="a", operation="b", key="c", sequence=1, status="failed"
        ),
    )
    good = Delivery(subscriber="shop", body=body).model_dump(mode="json")
    for argument, why in ((good, "body.id"), ({**good, "subscriber": "Not One"}, "subscriber")):
        handle = await told.client.start_workflow(
            names.DELIVER_NOTICE, argument, id=f"wrong-{why}", task_queue=names.TASK_QUEUE
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == names.INVALID_REQUEST
        assert why in failed.value.cause.message


async def test_cancelled_delivery_is_dead(told: Stage, sick: Subscriber) -> None:
    """An operator may stop a delivery in the Temporal UI; the ledger knows, and can replay it."""
    sick.replies[:] = [500] * 50
    _, event_id = await refused(told, "sick")
    await row_of(told, event_id, NoticeState.PENDING)
    await told.client.get_workflow_handle(names.notice_id(event_id)).cancel()
    assert (await row_of(told, event_id, NoticeState.DEAD)).reason == "its delivery was cancelled"
    sick.replies.clear()


async def test_outcome_of_a_late_answer_is_told_to_callers_too(told: Stage) -> None:
    """`await_outcome` says the same as the notices: accepted, delayed, completed, late."""
    request = booking(told, stuck=True)
    calls: AckbridgeClient = told.calls
    accepted = await calls.start_and_wait(request, timedelta(milliseconds=50))
    assert accepted.answer in (Answer.ACCEPTED, Answer.DELAYED)
    await told.until(request, CallStage.AWAITING_RESPONSE)
    await told.skipper.fast_forward(told.handle(request), timedelta(seconds=70))
    await told.until(request, CallStage.PARKED)
    await told.handle(request).signal(
        names.PROVIDER_MESSAGE, {"kind": "response", "event_key": "late-1", "data": {"ok": True}}
    )
    await calls.call(request.call_id).outcome(PATIENCE)
    status = await calls.call(request.call_id).status()
    assert status.answer is Answer.COMPLETED
    assert status.outcome is not None
    assert (status.outcome.status, status.outcome.late) == (OutcomeStatus.COMPLETED, True)
