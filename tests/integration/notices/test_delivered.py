"""Delivery to subscribers that fail, hang, are gone, or recover after days."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from ackbridge.client.notices import replay_notice
from ackbridge.contracts import names
from ackbridge.contracts.deliveries import Delivery, NoticeBody, NoticeData
from ackbridge.ledger.notices import NoticeState
from ackbridge.local.dev_server import EmbeddedEngine
from tests.integration.cli.test_cli import run
from tests.support.replays import replay
from tests.support.stage import Stage
from tests.support.subscribers import Subscriber

from .requests import refused, row_of


async def test_subscriber_recovers_after_days(told: Stage, sick: Subscriber) -> None:
    """The notice is retried under one id, and no call has waited for it."""
    sick.replies[:] = [503] * 11
    request, event_id = await refused(told, "sick")
    delivery = told.client.get_workflow_handle(names.notice_id(event_id))
    pending = await row_of(told, event_id, NoticeState.PENDING)
    assert pending.body.data.call_id == request.call_id

    await told.skipper.fast_forward(delivery, timedelta(days=3))

    (notice,) = await sick.until(request.call_id, 1)
    assert notice.id == event_id
    tries = [one.id for one in sick.received if one.id == event_id]
    assert len(tries) == 12
    row = await row_of(told, event_id, NoticeState.DELIVERED)
    assert row.attempts == 12
    assert "sk_live" not in str(notice.body)


async def test_subscriber_never_recovers(
    told: Stage, sick: Subscriber, engine: EmbeddedEngine
) -> None:
    """After its time the notice is dead, has a reason, and can be replayed."""
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
    assert dead.reason == "not accepted within 1 h: the subscriber answered 500"
    await replay(await delivery.fetch_history())
    sick.replies.clear()

    environ = {
        **told.namespace.environment,
        "ACKBRIDGE_LEDGER_URL": told.settings.ledger_url,
        "COLUMNS": "300",
    }
    listed = await asyncio.to_thread(run, environ, "notices", "--dead", "--json")
    assert [one["event_id"] for one in json.loads(listed.stdout)] == [event_id]
    shown = await asyncio.to_thread(run, environ, "notices", "--subscriber", "hasty")
    assert "the subscriber answered 500" in shown.stdout
    replayed = await asyncio.to_thread(
        run, environ, "notices", "replay", "--subscriber", "hasty", "--within", "1h"
    )
    assert replayed.stdout == f"{event_id}: started\n"

    (notice,) = await sick.until(request.call_id, 1)
    assert notice.id == event_id
    await row_of(told, event_id, NoticeState.DELIVERED)


async def test_replay_of_an_unknown_notice(told: Stage, engine: EmbeddedEngine) -> None:
    """Exit code 2, and the error names it."""
    environ = {**told.namespace.environment, "ACKBRIDGE_LEDGER_URL": told.settings.ledger_url}
    for arguments, why in ((("nothing:1.failed",), "there is no notice"), ((), "either")):
        done = await asyncio.to_thread(run, environ, "notices", "replay", *arguments)
        assert done.returncode == 2
        assert why in done.stderr


async def test_delivered_notice_is_replayed(told: Stage, shop: Subscriber) -> None:
    """Replaying sends a delivered notice again, but not one that is being delivered."""
    request, event_id = await refused(told, "shop")
    await shop.until(request.call_id, 1)
    await told.client.get_workflow_handle(names.notice_id(event_id)).result()
    (before,) = await told.ledger.notices.find(event_id=event_id)
    shop.replies[:] = [503]

    assert await replay_notice(told.client, before)
    await row_of(told, event_id, NoticeState.PENDING)
    assert not await replay_notice(told.client, before)

    delivery = told.client.get_workflow_handle(names.notice_id(event_id))
    await told.skipper.fast_forward(delivery, timedelta(minutes=1))
    await row_of(told, event_id, NoticeState.DELIVERED)
    assert [one.id for one in shop.received].count(event_id) == 3


async def test_gone_ends_a_notice(told: Stage, sick: Subscriber) -> None:
    """After a 410 there is no second attempt."""
    sick.replies[:] = [410]
    _, event_id = await refused(told, "sick")
    dead = await row_of(told, event_id, NoticeState.DEAD)
    assert "410" in str(dead.reason)
    assert [one.id for one in sick.received].count(event_id) == 1


async def test_hanging_subscriber_delays_no_other(
    told: Stage, shop: Subscriber, sick: Subscriber
) -> None:
    """All of its slots are in use, and others are notified at once."""
    sick.replies[:] = [20.0] * 20
    for _ in range(3):
        await refused(told, "sick")
    request, event_id = await refused(told, "shop")
    (notice,) = await shop.until(request.call_id, 1)
    assert notice.id == event_id
    assert sick.replies
    sick.replies.clear()


async def test_notice_is_delivered_once(told: Stage, shop: Subscriber) -> None:
    """A second workflow for the same event does not deliver it again."""
    request, event_id = await refused(told, "shop")
    (notice,) = await shop.until(request.call_id, 1)
    await told.client.get_workflow_handle(names.notice_id(event_id)).result()

    again = await told.client.start_workflow(
        names.DELIVER_NOTICE,
        Delivery(subscriber="shop", body=NoticeBody.model_validate(notice.body)),
        id=names.notice_id(event_id),
        task_queue=names.TASK_QUEUE,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )

    await again.result()
    assert [one.id for one in shop.received].count(event_id) == 1


async def test_invalid_start_names_the_field(told: Stage) -> None:
    """The workflow fails at once, and no task hangs."""
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
    """A delivery cancelled in the Temporal UI is dead in the ledger, and can be replayed."""
    sick.replies[:] = [500] * 50
    _, event_id = await refused(told, "sick")
    await row_of(told, event_id, NoticeState.PENDING)
    await told.client.get_workflow_handle(names.notice_id(event_id)).cancel()
    assert (await row_of(told, event_id, NoticeState.DEAD)).reason == "the delivery was cancelled"
    sick.replies.clear()
