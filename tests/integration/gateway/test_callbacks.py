"""Callbacks over a socket: who gets in, what is replied, and what is durable by then."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ackbridge.ledger.database.tables import log
from ackbridge.stats.totals import Count

from .world import (
    OLD_SECRET,
    SECRET,
    World,
    collected,
    done,
    new_call_id,
    signed,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


async def test_a_valid_callback_becomes_one_signal(world: World) -> None:
    """A signed event reaches the call it names, as a plain provider message."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        event = done(call_id, amount=12)
        reply = await gateway.tell(event)

    assert (reply.status_code, reply.json()) == (200, {"status": "signalled"})
    (message,) = await collected(call)
    assert ("response", event["id"], "callback") == (
        message["kind"],
        message["event_key"],
        message["source"],
    )
    assert event == message["data"]
    assert (await world.ledger.counts())["inbox_pending"] == 0


@pytest.mark.parametrize("named", [True, False])
async def test_a_signal_says_which_reference_the_provider_means(world: World, named: bool) -> None:
    """The call tells its cycles apart by it, whether or not the callback names the call as well."""
    call_id, order = new_call_id(), f"ord_{uuid.uuid4().hex}"
    call = await world.start_call(call_id)
    await world.ledger.commit_reference(call_id, "acme", order)
    async with world.gateway() as gateway:
        await gateway.tell(done(call_id if named else None, order=order))

    (message,) = await collected(call)
    assert message["reference"] == order


async def test_what_people_read_has_no_secrets_in_it(world: World) -> None:
    """A provider that quotes its own secret does not bring it into the call's history."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    said = f"{SECRET} and {OLD_SECRET} and Bearer abc123def"
    async with world.gateway() as gateway:
        await gateway.tell({**done(call_id), "type": "order.failed", "why": said})

    (message,) = await collected(call)
    assert message["reason"] == "*** and *** and Bearer ***"


async def test_a_callback_may_be_signed_with_the_older_secret(world: World) -> None:
    """Two secrets are valid at once, so that a rotation loses nothing."""
    async with world.gateway() as gateway:
        reply = await gateway.tell(done("nobody"), secret=OLD_SECRET)

    assert reply.status_code == 202


async def test_the_same_event_twice_at_once_is_one_signal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """On two connections at the same instant: one signal, both get 2xx, one duplicate is logged."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    caplog.set_level(logging.INFO, "ackbridge.gateway")
    async with world.gateway() as gateway, httpx.AsyncClient(base_url=gateway.url) as second:
        body = json.dumps(done(call_id)).encode()
        headers = signed(body)
        replies = await asyncio.gather(
            *(
                http.post("/callbacks/acme", content=body, headers=headers)
                for http in (gateway.http, second)
            )
        )

    assert [reply.status_code for reply in replies] == [200, 200]
    assert sorted(reply.json()["status"] for reply in replies) == ["duplicate", "signalled"]
    assert len(await collected(call)) == 1
    assert (await world.ledger.counts())["suppressed"] == 1
    assert sum("callback suppressed" in message for message in caplog.messages) == 1
    observed = await world.ledger.observed("acme", datetime.now(UTC) - timedelta(minutes=5))
    assert observed["create_order"][Count.DUPLICATES] == 1


async def test_two_gateways_with_one_event_are_one_signal(world: World) -> None:
    """What two gateways get at once, the engine stops by its request id."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    event = done(call_id)
    async with world.gateway() as one, world.gateway() as two:
        replies = await asyncio.gather(one.tell(event), two.tell(event))

    assert [reply.status_code for reply in replies] == [200, 200]
    assert len(await collected(call)) == 1


async def test_nothing_unsigned_gets_in(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Forged, stale, too early or missing signatures: 401 with the reason, and nothing stored."""
    caplog.set_level(logging.DEBUG)
    call_id = new_call_id()
    call = await world.start_call(call_id)
    body = json.dumps(done(call_id, note="forged-body")).encode()
    tries: list[tuple[dict[str, str], str]] = [
        (signed(body, "guessed-secret", NOON), "signature does not match"),
        (signed(body, at=NOON - timedelta(hours=1)), "timestamp is 3600 s old, tolerance is 300 s"),
        (
            signed(body, at=NOON + timedelta(hours=1)),
            "timestamp is 3600 s in the future, tolerance is 300 s",
        ),
        ({}, "is missing"),
    ]
    async with world.gateway(clock=lambda: NOON) as gateway:
        replies = [await gateway.send(body, headers) for headers, _ in tries]
        await gateway.send(b"not even JSON", {})

    assert [reply.status_code for reply in replies] == [401] * 4
    assert all(
        reply.json()["status"] == "forged" and reason in reply.json()["reason"]
        for reply, (_, reason) in zip(replies, tries, strict=True)
    )
    assert await collected(call) == []
    assert {0} == set((await world.ledger.counts()).values())
    ours = [vars(r) for r in caplog.records if r.name.startswith("ackbridge")]
    assert not any("forged-body" in str(record) for record in ours)
    assert not any(tries[0][0]["X-Acme-Signature"] in str(record) for record in ours)


async def test_an_unknown_provider_is_not_found(world: World) -> None:
    """A provider that is not in the catalog gets 404."""
    async with world.gateway() as gateway:
        reply = await gateway.send(b"{}", {}, provider="nobody")

    assert reply.status_code == 404


async def test_callbacks_are_sent_with_post(world: World) -> None:
    """Another method is refused, and nothing of the request is looked at."""
    async with world.gateway() as gateway:
        reply = await gateway.http.get("/callbacks/acme")

    assert (reply.status_code, reply.json()["status"]) == (405, "wrong method")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"id": "evt", ', "body: not JSON (line 1, column 15)"),
        (b"", "body: not JSON (line 1, column 1)"),
        (b'{"id": "evt", "amount": NaN}', "body: not JSON in UTF-8 with finite numbers"),
        (b'{"id": "evt", "amount": 1e999}', "body: not JSON in UTF-8 with finite numbers"),
        (b'{"id": "\\ud800"}', "body: a text with half of a surrogate pair"),
        (b"[" * 200 + b"]" * 200, "body: nested too deeply"),
        (b"[" * 100_000, "body: nested too deeply"),
        (b'{"type": "order.done"}', "event_key: the callback has none"),
        (b'{"id": "' + b"x" * 513 + b'"}', "event_key: may have 512 characters"),
        (b'{"id": 1, "order": "' + b"x" * 513 + b'"}', "match.reference: may have 512 characters"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
async def test_a_signed_callback_that_cannot_be_read_is_refused(
    world: World, body: bytes, reason: str
) -> None:
    """Malformed JSON, or no event key: 400 with the reason, and nothing stored."""
    async with world.gateway() as gateway:
        reply = await gateway.send(body, signed(body))

    assert (400, {"status": "unreadable", "reason": reason}) == (reply.status_code, reply.json())
    assert {0} == set((await world.ledger.counts()).values())


async def test_what_nobody_waits_for_is_taken_and_logged(world: World, ledger_url: str) -> None:
    """An event that matches a call but says nothing its operation waits for changes nothing."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.tell({**done(call_id), "type": "order.seen"})

    assert (reply.status_code, reply.json()) == (200, {"status": "not awaited"})
    assert await collected(call) == []
    engine = sa.create_engine(ledger_url)
    with engine.connect() as connection:
        (logged,) = connection.execute(sa.select(log)).all()
    engine.dispose()
    reason = "not awaited: it says nothing the operation waits for"
    assert (logged.call_id, logged.reason, logged.times) == (call_id, reason, 1)


async def test_a_provider_chooses_its_reply_codes(world: World) -> None:
    """Codes come from the integration's file, those without a body included."""
    call_id = new_call_id("ask", "other")
    await world.start_call(call_id, until=1)
    event = {"id": "evt_1", "done": True, "call_id": call_id}
    async with world.gateway() as gateway:
        codes = [
            (await gateway.tell(event, "other")).status_code,
            (await gateway.tell(event, "other")).status_code,
            (await gateway.tell({"id": "evt_2", "done": True}, "other")).status_code,
            (await gateway.send(b"{}", {"X-Token": "wrong"}, "other")).status_code,
            (await gateway.send(b"{", {"X-Token": "other-token"}, "other")).status_code,
        ]

    assert codes == [204, 208, 422, 403, 415]


async def test_a_provider_speaks_about_its_own_calls_only(world: World) -> None:
    """A validly signed event that names another provider's call is kept as unmatched."""
    call_id = new_call_id("ask", "other")
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.tell(done(call_id))
    async with world.gateway():
        pass

    assert (reply.status_code, reply.json()) == (202, {"status": "unmatched"})
    assert await collected(call) == []
    assert (await world.ledger.counts())["inbox_pending"] == 1


async def test_a_reference_of_another_provider_finds_nothing(world: World) -> None:
    """The same reference at two providers stands for two calls."""
    call_id = new_call_id("ask", "other")
    call = await world.start_call(call_id)
    await world.ledger.commit_reference(call_id, "other", "ord_1")
    async with world.gateway() as gateway:
        reply = await gateway.tell(done(order="ord_1"))

    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})
    assert await collected(call) == []


async def test_credentials_are_not_kept(world: World) -> None:
    """The inbox keeps documents without the headers that prove who sent them."""
    body = json.dumps({"id": "evt_1"}).encode()
    headers = {"X-Token": "other-token", "Authorization": "Bearer abc", "X-Trace": "7"}
    async with world.gateway() as gateway:
        await gateway.send(body, headers, "other")

    (stored,) = await world.ledger.due(timedelta(0), 10)
    document: Any = stored.entry.document
    assert document["headers"]["x-trace"] == "7"
    assert not {"x-token", "authorization"} & set(document["headers"])
