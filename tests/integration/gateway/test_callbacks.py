"""Callbacks over a socket: verification, replies, and what is durable after a reply."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from ackbridge.ledger.database.tables import log
from ackbridge.ledger.inbox import InboxState
from ackbridge.stats.counters import Count

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
        reply = await gateway.send_event(event)

    assert (reply.status_code, reply.json()) == (200, {"status": "signalled"})
    (message,) = await collected(call)
    assert ("response", event["id"], "callback") == (
        message["kind"],
        message["event_key"],
        message["source"],
    )
    assert event == message["data"]
    assert (await world.ledger.counts())["inbox_pending"] == 0


async def test_a_secret_that_the_provider_repeats_is_removed(world: World) -> None:
    """Before anything of the callback is signalled or stored."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        await gateway.send_event(done(call_id, note=f"signed with {SECRET}"))
        await gateway.send_event(done("acme.create_order.unknown", note=[SECRET]))

    (message,) = await collected(call)
    assert message["data"]["note"] == "signed with ***"
    (entry,) = await world.ledger.inbox.due(timedelta(0), 10)
    assert SECRET not in str(entry)


@pytest.mark.parametrize("named", [True, False])
async def test_a_signal_carries_the_reference_of_the_provider(world: World, named: bool) -> None:
    """The call distinguishes its cycles by it, whether or not the callback also names the call."""
    call_id, order = new_call_id(), f"ord_{uuid.uuid4().hex}"
    call = await world.start_call(call_id)
    await world.ledger.calls.commit_reference(call_id, "acme", order)
    async with world.gateway() as gateway:
        await gateway.send_event(done(call_id if named else None, order=order))

    (message,) = await collected(call)
    assert message["reference"] == order


async def test_the_reason_of_a_failure_contains_no_secrets(world: World) -> None:
    """A secret that the provider quotes does not reach the history of the call."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    said = f"{SECRET} and {OLD_SECRET} and Bearer abc123def"
    async with world.gateway() as gateway:
        await gateway.send_event({**done(call_id), "type": "order.failed", "why": said})

    (message,) = await collected(call)
    assert message["reason"] == "*** and *** and Bearer ***"


async def test_a_callback_may_be_signed_with_the_older_secret(world: World) -> None:
    """Two secrets are valid at once, so that a rotation loses no callback."""
    async with world.gateway() as gateway:
        reply = await gateway.send_event(done("nobody"), secret=OLD_SECRET)

    assert reply.status_code == 202


async def test_the_same_event_twice_at_once_is_one_signal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """On two connections at the same time: one signal, two 2xx replies, one logged duplicate."""
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
    observed = await world.ledger.stats.totals("acme", datetime.now(UTC) - timedelta(minutes=5))
    assert observed["create_order"][Count.DUPLICATES] == 1


async def test_two_gateways_with_one_event_are_one_signal(world: World) -> None:
    """The engine stops duplicates across gateways by request id."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    event = done(call_id)
    async with world.gateway() as one, world.gateway() as two:
        replies = await asyncio.gather(one.send_event(event), two.send_event(event))

    assert [reply.status_code for reply in replies] == [200, 200]
    assert len(await collected(call)) == 1


async def test_unsigned_callbacks_are_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong, old, future or missing signature: 401 with the reason, and nothing is stored."""
    caplog.set_level(logging.DEBUG)
    call_id = new_call_id()
    call = await world.start_call(call_id)
    body = json.dumps(done(call_id, note="forged-body")).encode()
    attempts: list[tuple[dict[str, str], str]] = [
        (signed(body, "guessed-secret", NOON), "signature does not match"),
        (signed(body, at=NOON - timedelta(hours=1)), "timestamp is 3600 s old, tolerance is 300 s"),
        (
            signed(body, at=NOON + timedelta(hours=1)),
            "timestamp is 3600 s in the future, tolerance is 300 s",
        ),
        ({}, "is missing"),
    ]
    async with world.gateway(clock=lambda: NOON) as gateway:
        replies = [await gateway.send(body, headers) for headers, _ in attempts]
        await gateway.send(b"not even JSON", {})

    assert [reply.status_code for reply in replies] == [401] * 4
    assert all(
        reply.json()["status"] == "forged" and reason in reply.json()["reason"]
        for reply, (_, reason) in zip(replies, attempts, strict=True)
    )
    assert await collected(call) == []
    assert {0} == set((await world.ledger.counts()).values())
    ours = [vars(r) for r in caplog.records if r.name.startswith("ackbridge")]
    assert not any("forged-body" in str(record) for record in ours)
    assert not any(attempts[0][0]["X-Acme-Signature"] in str(record) for record in ours)


async def test_an_unknown_provider_is_not_found(world: World) -> None:
    """A callback of a provider that is not in the catalog gets 404."""
    async with world.gateway() as gateway:
        reply = await gateway.send(b"{}", {}, provider="nobody")

    assert reply.status_code == 404


async def test_callbacks_are_sent_with_post(world: World) -> None:
    """Another method gets 405, before anything else is checked."""
    async with world.gateway() as gateway:
        reply = await gateway.http.get("/callbacks/acme")

    assert (reply.status_code, reply.json()["status"]) == (405, "wrong method")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"id": "evt", ', "body: not JSON (line 1, column 15)"),
        (b"", "body: not JSON (line 1, column 1)"),
        (b'{"id": "evt", "amount": NaN}', "body: not JSON in UTF-8 with finite numbers"),
        (b'{"id": "\\ud800"}', "body: a text with half of a surrogate pair"),
        ('{"id": "\\ud800"}'.encode("utf-16"), "body: a text with half of a surrogate pair"),
        ('{"id": "\\udc00"}'.encode("utf-32"), "body: a text with half of a surrogate pair"),
        (
            '{"id": "\ud800"}'.encode("utf-16-le", "surrogatepass"),
            "body: not JSON in UTF-8 with finite numbers",
        ),
        (b"[" * 200 + b"]" * 200, "body: nested too deeply"),
        (b"[" * 100_000, "body: nested too deeply"),
        (b'{"type": "order.done"}', "event_key: the callback has none"),
        (b'{"id": "' + b"x" * 513 + b'"}', "event_key: longer than 512 characters"),
        (
            b'{"id": 1, "order": "' + b"x" * 513 + b'"}',
            "match.reference: longer than 512 characters",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
async def test_an_unreadable_signed_callback_is_refused(
    world: World, body: bytes, reason: str
) -> None:
    """Malformed JSON or no event key: 400 with the reason, and nothing is stored."""
    async with world.gateway() as gateway:
        reply = await gateway.send(body, signed(body))

    assert (400, {"status": "unreadable", "reason": reason}) == (reply.status_code, reply.json())
    assert {0} == set((await world.ledger.counts()).values())


async def test_odd_json_is_read(world: World) -> None:
    """In the charset that its headers declare, with numbers that nothing can hold."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    event = done(call_id, note="naïve")
    text = json.dumps(event, ensure_ascii=False)
    body = text.replace("{", '{"amount": 1E999, ', 1).encode("latin-1")
    headers = {"content-type": "application/json; charset=iso-8859-1", **signed(body)}
    async with world.gateway() as gateway:
        reply = await gateway.send(body, headers)

    (message,) = await collected(call)
    assert (reply.status_code, message["data"]) == (200, {**event, "amount": "1E999"})


async def test_an_event_that_is_not_awaited_is_accepted_logged_and_stored(
    world: World, ledger_url: str
) -> None:
    """An event of a call that no rule of its operation classifies has no effect, and is kept."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.send_event({**done(call_id), "type": "order.seen"})

    assert (reply.status_code, reply.json()) == (200, {"status": "not awaited"})
    assert await collected(call) == []
    engine = sa.create_engine(ledger_url)
    with engine.connect() as connection:
        (logged,) = connection.execute(sa.select(log)).all()
    engine.dispose()
    reason = "not awaited: no response, failure or extension"
    assert (logged.call_id, logged.reason, logged.times) == (call_id, reason, 1)
    (stored,) = await world.ledger.inbox.entries(state=InboxState.UNCLASSIFIED)
    assert stored.entry.call_id == call_id
    assert (stored.entry.document or {})["body"]["type"] == "order.seen"


async def test_a_provider_chooses_its_reply_codes(world: World) -> None:
    """The integration file sets the status codes, those without a body included."""
    call_id = new_call_id("ask", "other")
    await world.start_call(call_id, until=1)
    event = {"id": "evt_1", "done": True, "call_id": call_id}
    async with world.gateway() as gateway:
        codes = [
            (await gateway.send_event(event, "other")).status_code,
            (await gateway.send_event(event, "other")).status_code,
            (await gateway.send_event({"id": "evt_2", "done": True}, "other")).status_code,
            (await gateway.send(b"{}", {"X-Token": "wrong"}, "other")).status_code,
            (await gateway.send(b"{", {"X-Token": "other-token"}, "other")).status_code,
        ]

    assert codes == [204, 208, 422, 403, 415]


async def test_a_provider_reaches_only_its_own_calls(world: World) -> None:
    """A signed event that names a call of another provider is stored as unmatched."""
    call_id = new_call_id("ask", "other")
    call = await world.start_call(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.send_event(done(call_id))
    async with world.gateway():
        pass

    assert (reply.status_code, reply.json()) == (202, {"status": "unmatched"})
    assert await collected(call) == []
    assert (await world.ledger.counts())["inbox_pending"] == 1


async def test_references_are_looked_up_per_provider(world: World) -> None:
    """A reference that another provider uses matches no call."""
    call_id = new_call_id("ask", "other")
    call = await world.start_call(call_id)
    await world.ledger.calls.commit_reference(call_id, "other", "ord_1")
    async with world.gateway() as gateway:
        reply = await gateway.send_event(done(order="ord_1"))

    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})
    assert await collected(call) == []
