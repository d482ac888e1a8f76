"""Events that no call waits for: notices to a subscriber, and visits."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ackbridge.client.catch_up import catch_up
from ackbridge.contracts import names
from ackbridge.contracts.catch_up import CatchUpRequest
from ackbridge.contracts.deliveries import provider_event_id
from ackbridge.errors import InvalidRequestError
from ackbridge.ledger.inbox import InboxState
from ackbridge.ledger.notices import NoticeState
from tests.support.stage import SECRETS, Stage
from tests.support.subscribers import ReceivedNotice, Subscriber

from .requests import row_of


def event(kind: str = "refund", **more: Any) -> dict[str, Any]:
    """An event with its own key."""
    return {"id": uuid.uuid4().hex, "type": kind, "amount": {"value": 5}, **more}


async def send(stage: Stage, *events: dict[str, Any]) -> str:
    """Deliver events; what they were answered with."""
    reply = await stage.http.post(
        f"{stage.gateway_url}/callbacks/feed",
        json={"events": events},
        headers={"X-Token": SECRETS["SANDBOX_WEBHOOK_SECRET"]},
    )
    assert reply.status_code == 200
    return str(reply.json()["status"])


def about(notices: list[ReceivedNotice], *events: dict[str, Any]) -> list[ReceivedNotice]:
    """The notices of these events, in the order of arrival."""
    ids = {provider_event_id("feed", one["id"]) for one in events}
    return [notice for notice in notices if notice.id in ids]


async def accepted(shop: Subscriber, *events: dict[str, Any]) -> list[ReceivedNotice]:
    """Wait until the subscriber has accepted these events."""
    async with asyncio.timeout(30):
        while len(about(shop.accepted, *events)) < len(events):  # noqa: ASYNC110 -- it changes in another thread
            await asyncio.sleep(0.02)
    return about(shop.accepted, *events)


async def test_an_event_becomes_one_signed_notice(told: Stage, shop: Subscriber) -> None:
    """With what the file selects of it; a repeated event changes nothing."""
    one, other = event(charge="ch_1"), event("note")
    assert await send(told, one, other) == "forwarded"
    assert await send(told, one) == "duplicate"
    (notice,) = await accepted(shop, one)
    assert (notice.body["type"], notice.body["id"]) == ("event.refund", f"feed:{one['id']}")
    assert notice.body["data"] == {
        "provider": "feed",
        "event": "refund",
        "event_key": one["id"],
        "object": "ch_1",
        "call_id": None,
        "data": {"value": 5},
    }
    (notice,) = await accepted(shop, other)
    assert notice.body["data"]["data"] == other
    row = await row_of(told, f"feed:{one['id']}", NoticeState.DELIVERED)
    assert "value" not in row.body.model_dump_json()


async def test_events_of_one_object_arrive_in_their_order(told: Stage, shop: Subscriber) -> None:
    """A later one waits while an earlier one is retried; those of other objects do not."""
    charge, other = uuid.uuid4().hex, event(charge=uuid.uuid4().hex)
    first, second, third = (event(charge=charge) for _ in range(3))
    shop.replies[:] = [503]
    await send(told, first)
    async with asyncio.timeout(30):
        while not about(shop.received, first):  # noqa: ASYNC110 -- it changes in another thread
            await asyncio.sleep(0.02)
    await send(told, second, third)
    await send(told, other)
    await accepted(shop, other)
    assert about(shop.received, second, third) == []
    delivery = told.client.get_workflow_handle(names.notice_id(f"feed:{first['id']}"))
    await told.skipper.fast_forward(delivery, timedelta(minutes=1))
    in_order = await accepted(shop, first, second, third)
    assert [one.body["data"]["event_key"] for one in in_order] == [
        first["id"],
        second["id"],
        third["id"],
    ]
    stream = told.client.get_workflow_handle(names.events_id("feed", charge))
    assert await stream.result() == 3


async def test_a_url_in_an_event_is_visited(told: Stage, shop: Subscriber) -> None:
    """Without credentials; one that refuses, or is elsewhere, is held for operators."""
    url = shop.url.removesuffix("/notices")
    good = event("confirm", url=f"{url}/confirm/200")
    refused = event("confirm", url=f"{url}/confirm/404")
    elsewhere = event("confirm", url="http://localhost.example/confirm/200")
    assert await send(told, good, refused, elsewhere) == "forwarded"
    for one in (good, refused, elsewhere):
        stream = told.client.get_workflow_handle(names.events_id("feed", one["id"]))
        assert await stream.result() == 1
    assert sorted(shop.visited) == ["200", "404"]
    held = {
        stored.entry.event_key: stored.reason
        for stored in await told.ledger.inbox.entries("feed", InboxState.HELD)
    }
    assert held == {
        refused["id"]: "not visited: the URL answered 404",
        elsewhere["id"]: "not visited: the event has no URL whose host is that of base_url or"
        " in hosts",
    }


async def test_listed_events_are_delivered_once(told: Stage, shop: Subscriber) -> None:
    """Page by page, like callbacks: what was delivered before is a duplicate."""
    first, second = event(charge=uuid.uuid4().hex), event(charge=uuid.uuid4().hex)
    answer = {"id": uuid.uuid4().hex, "type": "done", "call_id": "feed.ask.unknown"}
    await send(told, first)
    shop.pages[:] = [[first, second], [answer, {"type": "note"}], [event("other")]]
    since = datetime(2026, 3, 1, 12, tzinfo=UTC)
    request = CatchUpRequest(provider="feed", since=since, by="ann")
    progress = await catch_up(told.client, request)
    assert (progress.pages, progress.events) == (
        3,
        {"duplicate": 1, "forwarded": 1, "kept": 1, "unreadable": 1, "unmatched": 1},
    )
    assert progress.last_problem == "event_key: the callback has none"
    assert set(shop.listed_after) == {"2026-03-01T12:00:00+00:00"}
    await accepted(shop, first, second)
    again = await catch_up(told.client, request)
    assert again.events == {"duplicate": 3, "unreadable": 1, "unmatched": 1}
    assert len(about(shop.received, first, second)) == 2


async def test_a_list_that_is_none_ends_the_catch_up(told: Stage, shop: Subscriber) -> None:
    """With what is wrong; a provider without a list is refused, too."""
    shop.pages[:] = [None]
    now = datetime.now(UTC)
    with pytest.raises(InvalidRequestError, match="each: the answer has no list there"):
        await catch_up(told.client, CatchUpRequest(provider="feed", since=now, by="ann"))
    with pytest.raises(InvalidRequestError, match="sandbox: the file has no callbacks"):
        await catch_up(told.client, CatchUpRequest(provider="sandbox", since=now, by="ann"))
