"""Streams of events over sockets: who may read them, what is in them, and where they go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ackbridge.api import event_hub
from ackbridge.api.event_streams import number_of
from ackbridge.api.event_tokens import EventTokens
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    Effect,
    Notice,
    OutcomeCode,
    OutcomeStatus,
    Stage,
    Timings,
)
from ackbridge.contracts.identity import Role
from ackbridge.contracts.steps import Parking
from ackbridge.errors import ConfigurationError
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.http_auth import AuthenticationError
from tests.support.api import ServedApi

SHOP = "https://shop.example"
DELAYED = Notice(kind="delayed", title="Later", message="We keep working on it.")


def path_of(call_id: str) -> str:
    return f"/calls/{quote(call_id, safe='')}"


async def token_for(api: ServedApi, call_id: str, **body: str) -> str:
    """An event token, as a backend gets it for its page."""
    answer = await api.request("POST", f"{path_of(call_id)}/event-tokens", Role.READ, json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["url"] == f"{path_of(call_id)}/events"
    return str(made["token"])


async def claim(ledger: Ledger, key: str) -> CallRequest:
    """A call that has begun."""
    request = CallRequest(provider="sandbox", operation="create_order", key=key)
    await ledger.calls.claim(request, "chain-1")
    return request


async def park(ledger: Ledger, call_id: str, notice: Notice = DELAYED) -> None:
    """Park a call, as `conclude` does."""
    await ledger.calls.record_stage(
        call_id,
        Stage.PARKED,
        "silence",
        None,
        parking=Parking(reason="no_response", times=1),
        effect=Effect.UNKNOWN,
        notice=notice,
    )


async def end(ledger: Ledger, call_id: str, status: OutcomeStatus, **fields: Any) -> None:
    """End a call, as `conclude` does."""
    outcome = CallOutcome(
        call_id=call_id, status=status, timings=Timings(started_at=utc_now()), **fields
    )
    await ledger.calls.record_stage(call_id, Stage(status), None, outcome)


@asynccontextmanager
async def following(
    api: ServedApi, call_id: str, token: str, last: str | None = None
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of a call, as a page reads them; `id` and `data` are those of the stream."""
    headers = {"Authorization": f"Bearer {token}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    async with (
        api.client() as client,
        client.stream("GET", f"{path_of(call_id)}/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line == "" and "data" in fields:
            yield {"id": fields["id"], "data": json.loads(fields["data"])}
            fields = {}
        elif line.startswith(":"):
            yield {"id": None, "data": None}
        else:
            fields[name] = value


async def test_a_page_follows_a_call_to_its_end(api: ServedApi, ledger: Ledger) -> None:
    """Delayed, then completed late; a page that comes back gets what it has not had."""
    request = await claim(ledger, "a/1")
    token = await token_for(api, request.call_id)
    async with following(api, request.call_id, token) as events:
        await park(ledger, request.call_id)
        delayed = await anext(events)
        assert delayed["id"] == "sandbox.create_order.a/1:1.delayed"
        assert delayed["data"]["type"] == "call.delayed"
        assert delayed["data"]["data"]["notice"]["title"] == "Later"
        hidden = {"metadata", "reference", "response"}
        assert not hidden & delayed["data"]["data"].keys()

    async with following(api, request.call_id, token, delayed["id"]) as events:
        await end(ledger, request.call_id, OutcomeStatus.COMPLETED, effect=Effect.DONE)
        completed = await anext(events)
        assert completed["id"] == "sandbox.create_order.a/1:2.completed_late"
        assert completed["data"]["data"]["notice"]["title"] == "Done, later than usual"
        assert [one async for one in events] == [], "nothing comes after the last event"

    headers = {"Authorization": f"Bearer {token}"}
    path = f"{path_of(request.call_id)}/events"
    again = await api.request("GET", path, None, headers=headers | {"Last-Event-ID": "x"})
    assert "completed_late" in again.text, "an id that is none of ours"
    seen = headers | {"Last-Event-ID": completed["id"]}
    assert (await api.request("GET", path, None, headers=seen)).status_code == 204


async def test_what_the_four_ends_look_like(api: ServedApi, ledger: Ledger) -> None:
    """Only a failure without effect has an alternative; our texts are in the page's language."""
    unknown = await claim(ledger, "unknown")
    await end(ledger, unknown.call_id, OutcomeStatus.FAILED, code=OutcomeCode.NO_RESPONSE)
    token = await token_for(api, unknown.call_id, language="de-AT")
    async with following(api, unknown.call_id, token) as events:
        first = (await anext(events))["data"]["data"]
        assert (first["effect"], first["notice"]["kind"]) == ("unknown", "unknown")
        assert first["notice"]["alternative"] is None
        assert first["notice"]["title"].startswith("Wir wissen noch nicht")

        none = {"effect": Effect.NONE, "code": OutcomeCode.NO_RESPONSE}
        await end(ledger, unknown.call_id, OutcomeStatus.FAILED, **none)
        second = (await anext(events))["data"]["data"]
        assert (second["sequence"], second["notice"]["kind"]) == (2, "failed")
        assert second["notice"]["alternative"]


async def test_who_may_follow(api: ServedApi, ledger: Ledger) -> None:
    """An event token is for one call; the role `read` is for all of a provider."""
    request = await claim(ledger, "who")
    await end(ledger, request.call_id, OutcomeStatus.COMPLETED, effect=Effect.DONE)
    path = f"{path_of(request.call_id)}/events"
    other = await token_for(api, "sandbox.create_order.other")
    mine = await token_for(api, request.call_id)
    for query in ({}, {"token": other}, {"token": "x"}, {"token": mine[:-3]}):
        answer = await api.request("GET", path, None, params=query)
        assert answer.status_code == 401, query
    headers = {"Authorization": f"Bearer {other}"}
    assert (await api.request("GET", path, None, headers=headers)).status_code == 401
    assert (await api.request("GET", path, "read:other")).status_code == 403
    assert "call.completed" in (await api.request("GET", path, Role.READ)).text
    assert "call.completed" in (await api.request("GET", path, None, params={"token": mine})).text
    refused = await api.request("POST", f"{path_of(request.call_id)}/event-tokens", "read:other")
    assert refused.status_code == 403


async def test_pages_of_known_origins_only(api: ServedApi, ledger: Ledger) -> None:
    """And streams only: no other route answers a page of another origin."""
    request = await claim(ledger, "cors")
    await end(ledger, request.call_id, OutcomeStatus.COMPLETED, effect=Effect.DONE)
    path = f"{path_of(request.call_id)}/events"
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,last-event-id",
    }
    allowed = await api.request("OPTIONS", path, None, headers={"Origin": SHOP, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SHOP
    evil = {"Origin": "https://evil.example", **asked}
    refused = await api.request("OPTIONS", path, None, headers=evil)
    assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (400, None)
    read = await api.request("GET", path, Role.READ, headers={"Origin": SHOP})
    assert read.headers["access-control-allow-origin"] == SHOP
    unauthenticated = await api.request("GET", path, None, headers={"Origin": SHOP})
    assert unauthenticated.headers["access-control-allow-origin"] == SHOP
    elsewhere = await api.request(
        "GET", path_of(request.call_id), Role.READ, headers={"Origin": SHOP}
    )
    assert "access-control-allow-origin" not in elsewhere.headers


async def test_a_stream_says_that_it_is_there(
    api: ServedApi, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment after each pause, so that a page notices a dead connection."""
    monkeypatch.setattr(event_hub, "HEARTBEAT", timedelta(milliseconds=100))
    request = await claim(ledger, "quiet")
    token = await token_for(api, request.call_id)
    async with following(api, request.call_id, token) as events:
        assert await anext(events) == {"id": None, "data": None}


async def test_as_many_streams_as_there_may_be(api: ServedApi, ledger: Ledger) -> None:
    """The next one is told to come back; one that ends makes room."""
    token = await token_for(api, "sandbox.create_order.many")
    path = f"{path_of('sandbox.create_order.many')}/events"
    headers = {"Authorization": f"Bearer {token}"}
    async with api.client() as client:
        open_now = [
            await client.send(client.build_request("GET", path, headers=headers), stream=True)
            for _ in range(20)
        ]
        refused = await client.get(path, headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        for one in open_now:
            await one.aclose()
        for _ in range(100):
            answer = await client.send(
                client.build_request("GET", path, headers=headers), stream=True
            )
            await answer.aclose()
            if answer.status_code == 200:
                return
            await asyncio.sleep(0.02)
    pytest.fail("the streams that have ended still count")


def test_tokens_expire_and_secrets_rotate() -> None:
    """The new secret signs, both verify; a short one is refused."""
    before, both, after = (
        EventTokens(secrets, timedelta(minutes=1), utc_now)
        for secrets in (["a" * 32], ["b" * 32, "a" * 32], ["b" * 32])
    )
    token, _ = before.mint("p.o.1", "de")
    access = both.verify(token, "p.o.1")
    assert (access.call_id, access.language) == ("p.o.1", "de")
    with pytest.raises(AuthenticationError, match="not valid"):
        after.verify(token, "p.o.1")
    with pytest.raises(AuthenticationError, match="another call"):
        both.verify(token, "p.o.2")
    late = EventTokens(["a" * 32], timedelta(minutes=1), lambda: utc_now() + timedelta(hours=1))
    with pytest.raises(AuthenticationError, match="expired"):
        late.verify(token, "p.o.1")
    with pytest.raises(ConfigurationError, match="32 characters"):
        EventTokens(["a" * 31], timedelta(minutes=1), utc_now)


def test_the_number_of_an_id() -> None:
    """Keys may look like the end of an id; what is none of ours begins anew."""
    assert number_of("p.o.k:1.delayed:12.completed_late") == 12
    assert [number_of(one) for one in (None, "", "7", "x:y.z", "a:1.b c")] == [0] * 5
