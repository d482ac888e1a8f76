"""What a delivery may be: several events, forms, queries, XML, handshakes, and nothing of ours."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.ledger.inbox import InboxState
from ackbridge.ledger.ledger import Ledger
from ackbridge.stats.counters import Count

from .world import CollectingCall, Gateway, World, collected, in_the_end, new_call_id

TOKEN = {"X-Token": "other-token"}


def event(call_id: str | None = None, **more: Any) -> dict[str, Any]:
    """A success of the provider `many`, with its own event key."""
    of_call = {} if call_id is None else {"call_id": call_id}
    return {"id": uuid.uuid4().hex, "type": "done", **of_call, **more}


async def deliver(gateway: Gateway, *events: Any, **more: Any) -> Any:
    """Send events in one delivery."""
    body = json.dumps({"events": events, **more}).encode()
    return await gateway.send(body, TOKEN, "many")


async def signals(client: Client, call_id: str) -> list[str]:
    """The names of the signals in a call's history."""
    history = await client.get_workflow_handle(call_id).fetch_history()
    return [
        entry.workflow_execution_signaled_event_attributes.signal_name
        for entry in history.events
        if entry.HasField("workflow_execution_signaled_event_attributes")
    ]


async def arrived(call: WorkflowHandle[CollectingCall, list[Any]]) -> Any:
    """The first message of a call, which was started to end with it."""
    return (await call.result())[0]


async def test_events_of_several_calls_cost_one_signal_for_each_call(world: World) -> None:
    """Matched by call id or by reference, in their order; what comes again is a duplicate."""
    first, second, order = new_call_id("ask", "many"), new_call_id("ask", "many"), uuid.uuid4().hex
    calls = [await world.start_call(call_id) for call_id in (first, second)]
    await world.ledger.calls.commit_reference(second, "many", order)
    events = [event(first), event(order=order), event(first), event(order=order, call_id=second)]
    async with world.gateway() as gateway:
        reply = await deliver(gateway, *events, events[0])
        assert (reply.status_code, reply.text) == (299, "[accepted]")
        again = event(first)
        reply = await deliver(gateway, events[0], again)
        assert reply.status_code == 299
        reply = await deliver(gateway, *events)
        assert reply.status_code == 208

    assert await signals(world.client, first) == ["provider_messages", "provider_message"]
    assert await signals(world.client, second) == ["provider_messages"]
    keys = [[message["event_key"] for message in await collected(call)] for call in calls]
    ids = [one["id"] for one in events]
    assert keys == [[ids[0], ids[2], again["id"]], [ids[1], ids[3]]]


async def test_an_event_is_read_as_if_it_were_the_body(world: World) -> None:
    """One object is one event; `delivery` is the whole body; an empty list is accepted."""
    call_id = new_call_id("ask", "many")
    call, batch = await world.start_call(call_id), uuid.uuid4().hex
    one = event(call_id)
    async with world.gateway() as gateway:
        body = json.dumps({"events": one, "batch": batch}).encode()
        reply = await gateway.send(body, TOKEN, "many")
        assert (reply.status_code, reply.text) == (299, "[accepted]")
        assert (await deliver(gateway)).status_code == 299
        reply = await gateway.send(b"{}", TOKEN, "many")
        assert reply.status_code == 400
        assert reply.json()["reason"].startswith("each: the callback has neither a list")

    (message,) = await collected(call)
    assert (message["event_key"], message["data"]) == (f"{batch}/{one['id']}", one)


async def test_an_event_that_cannot_be_read_does_not_lose_the_others(world: World) -> None:
    """It is kept, and the events beside it are delivered; alone it is rejected with its reason."""
    call_id = new_call_id("ask", "many")
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        good = event(call_id)
        reply = await deliver(gateway, good, {"type": "done"}, "text")
        assert (reply.status_code, reply.text) == (299, "[accepted]")
        reply = await deliver(gateway, {"type": "done"})
        assert reply.status_code == 400
        assert reply.json()["reason"] == "event 1: event_key: the callback has none"

    (message,) = await collected(call)
    assert message["event_key"] == good["id"]
    kept = await world.ledger.inbox.entries("many", InboxState.UNCLASSIFIED)
    assert [(row.entry.document or {})["body"] for row in kept] == [{"type": "done"}, "text"]


async def test_an_event_that_cannot_be_stored_does_not_reject_the_others(world: World) -> None:
    """NaN, half a character, too many levels: the delivery is no JSON that could be kept whole."""
    call_id = new_call_id("ask", "many")
    call = await world.start_call(call_id)
    first, last = event(call_id), event(call_id)
    deep = "[" * 150 + "]" * 150
    bad = ('{"id": "nan", "value": NaN}', '{"id": "half", "text": "\\ud800"}', deep)
    texts = (json.dumps(first), *bad, json.dumps(last))
    async with world.gateway() as gateway:
        body = f'{{"events": [{", ".join(texts)}]}}'.encode()
        reply = await gateway.send(body, TOKEN, "many")
    assert (reply.status_code, reply.text) == (299, "[accepted]")

    keys = [message["event_key"] for message in await collected(call)]
    assert keys == [first["id"], last["id"]]
    kept = await world.ledger.inbox.entries("many", InboxState.UNCLASSIFIED)
    assert [(row.entry.document or {})["body"] for row in kept] == list(bad)
    reason = "unreadable: event 2: not JSON in UTF-8 with finite numbers"
    assert {row.reason for row in kept} == {reason}


async def test_what_is_genuine_and_unreadable_is_kept_once(world: World, no_ledger: Ledger) -> None:
    """For operators, with the reason; what is forged is not, and nothing is accepted unkept."""
    async with world.gateway() as gateway:
        for body in (b"{not json", b"{not json", b"\xff\x00"):
            assert (await gateway.send(body, TOKEN, "many")).status_code == 400
        assert (await gateway.send(b"{forged", {}, "many")).status_code == 401
    kept = await world.ledger.inbox.entries("many", InboxState.UNCLASSIFIED)
    assert [(row.entry.document or {})["body"] for row in kept] == ["{not json", "\ufffd\ufffd"]
    assert kept[0].reason == "unreadable: body: not JSON (line 1, column 2)"
    async with world.gateway(ledger=no_ledger) as gateway:
        assert (await gateway.send(b"{", TOKEN, "many")).status_code == 503


@pytest.mark.parametrize("named", [True, False])
async def test_mixed_events_are_durable_or_not_accepted(
    world: World, no_engine: Client, no_ledger: Ledger, named: bool
) -> None:
    """Without the engine they are stored; without both, nothing is accepted."""
    call_id, order = new_call_id("ask", "many"), uuid.uuid4().hex
    events = [event(call_id), event(order=order), event()]
    async with world.gateway(client=no_engine, ledger=no_ledger) as gateway:
        assert (await deliver(gateway, *(events if named else events[1:]))).status_code == 503
    async with world.gateway(client=no_engine) as gateway:
        assert (await deliver(gateway, *events)).status_code == 299
    stored = await world.ledger.inbox.entries("many", InboxState.PENDING)
    assert {row.entry.event_key for row in stored} == {one["id"] for one in events}
    call = await world.start_call(call_id, until=1)
    async with world.gateway():
        message = await in_the_end(arrived(call))
    assert message["event_key"] == events[0]["id"]


async def test_a_part_that_is_delivered_is_not_sent_again(world: World, no_ledger: Ledger) -> None:
    """Without the ledger, named calls are signalled; the rest gets a 503, and comes again."""
    call_id = new_call_id("ask", "many")
    call = await world.start_call(call_id)
    one, unmatched = event(call_id), event()
    async with world.gateway(ledger=no_ledger) as gateway:
        assert (await deliver(gateway, one, unmatched)).status_code == 503
        assert (await deliver(gateway, one, unmatched)).status_code == 503
    async with world.gateway() as gateway:
        assert (await deliver(gateway, one, unmatched)).status_code == 299
    assert len({message["event_key"] for message in await collected(call)}) == 1


async def test_ignored_events_are_counted_and_not_kept(world: World) -> None:
    """They need no event key, and are accepted beside others."""
    call_id = new_call_id("ask", "many")
    call = await world.start_call(call_id)
    foreign = {"shop": "theirs"}
    async with world.gateway() as gateway:
        assert (await deliver(gateway, foreign, foreign)).status_code == 299
        assert (await deliver(gateway, foreign, event(call_id))).status_code == 299
    assert len(await collected(call)) == 1
    assert await world.ledger.inbox.entries("many") == []
    assert (await world.ledger.counts())["suppressed"] == 0
    counted = await world.ledger.stats.totals("many", datetime.now(UTC) - timedelta(minutes=5))
    assert counted[WHOLE_PROVIDER][Count.IGNORED] == 3


async def test_handshakes_are_answered_and_leave_nothing(world: World) -> None:
    """Signed ones only with a signature; unsigned ones as declared, by GET and by POST."""
    signed = json.dumps({"type": "signed_check", "challenge": "abc <b>"}).encode()
    async with world.gateway() as gateway:
        reply = await gateway.send(signed, TOKEN, "many")
        assert (reply.status_code, reply.text) == (201, "abc <b>")
        assert reply.headers["content-type"] == "text/plain"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert (await gateway.send(signed, {}, "many")).status_code == 401

        url = "/callbacks/many?hub.mode=subscribe&hub.challenge=1158201444"
        for method in ("GET", "POST"):
            reply = await gateway.http.request(method, url)
            assert (reply.status_code, reply.text) == (200, "1158201444")
            assert reply.headers["x-echo"] == "subscribe"
        assert (await gateway.http.head(url)).status_code == 200
        reply = await gateway.http.get("/callbacks/many?hub.challenge=1&hub.mode=a%0D%0Ab")
        assert reply.status_code == 400

        reply = await gateway.send(b'{"plainToken": "q"}', {}, "many")
        assert (reply.status_code, reply.json()) == (200, {"token": "q", "seen": True})
        assert reply.headers["content-type"] == "application/json"
        reply = await gateway.send(b'{"plainToken": "\\ud800"}', {}, "many")
        assert reply.status_code == 401

        assert (await gateway.http.get("/callbacks/many")).status_code == 401
        assert (await gateway.http.get("/callbacks/many", headers=TOKEN)).status_code == 405
        assert (await gateway.http.get("/callbacks/other", headers=TOKEN)).status_code == 405
    assert await world.ledger.inbox.entries("many") == []


@pytest.mark.parametrize("provider", ["form", "asking", "xml"])
async def test_callbacks_that_are_not_json(world: World, provider: str) -> None:
    """Forms, query strings with GET and with POST, and XML."""
    call_id, key = new_call_id("ask", provider), uuid.uuid4().hex
    call = await world.start_call(call_id)
    form = f"Id={key}&Status=done&Ref={call_id}&Seat=12"
    xml = f'<n:event xmlns:n="u" id="{key}"><status>done</status><ref>{call_id}</ref></n:event>'
    url = f"/callbacks/{provider}"
    async with world.gateway() as gateway:
        if provider == "asking":
            reply = await gateway.http.get(f"{url}?{form}", headers=TOKEN)
            again = await gateway.http.post(f"{url}?{form}", headers=TOKEN)
        else:
            body = (form if provider == "form" else xml).encode()
            reply = await gateway.send(body, TOKEN, provider)
            again = await gateway.send(body, TOKEN, provider)
        broken = await gateway.http.post(f"{url}?a=%FF", content=b"a=%FF", headers=TOKEN)

    assert (reply.status_code, reply.json()) == (200, {"status": "signalled"})
    assert again.json()["status"] == "duplicate"
    assert (broken.status_code, broken.json()["status"]) == (400, "unreadable")
    (message,) = await collected(call)
    assert message["event_key"] == key
    whole = {"event": {"@id": key, "status": "done", "ref": call_id}}
    fields = {"Id": key, "Status": "done", "Ref": call_id, "Seat": "12"}
    assert message["data"] == (whole if provider == "xml" else fields)


async def test_a_suppressed_event_of_a_list_is_logged(world: World) -> None:
    """As one that came alone."""
    call_id = new_call_id("ask", "many")
    call = await world.start_call(call_id)
    one = event(call_id)
    async with world.gateway() as gateway:
        await deliver(gateway, one, event(call_id))
        await deliver(gateway, one, event(call_id))
    await collected(call)
    assert (await world.ledger.counts())["suppressed"] == 1
