"""Callbacks that their URL proves: each call has its own."""

from __future__ import annotations

from pathlib import Path

import httpx

from ackbridge.ledger.inbox import InboxState
from ackbridge.security.callback_urls import CallbackUrls
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import UrlVerify

from .world import ENVIRON, World, collected, new_call_id


def urls(provider: str = "linked", name: str = "OTHER_TOKEN") -> CallbackUrls:
    spec = UrlVerify(type="url", secrets=(f"env:{name}",))
    return CallbackUrls(spec, provider, Secrets(ENVIRON, Path()))


async def test_a_url_reaches_its_call_and_no_other_one(world: World) -> None:
    """Whatever the body says; by either secret. What is not ours is forged, elsewhere unknown."""
    call_id, other = new_call_id("ask", "linked"), new_call_id("ask", "linked")
    call, other_call = await world.start_call(call_id), await world.start_call(other)
    token = urls().token(call_id)
    mac = token.partition(".")[2]
    forged = [
        urls().token(other).partition(".")[0] + "." + mac,
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token[:-1],
        token + "A",
        urls("acme").token(call_id),
        urls(name="ACME_OLD_SECRET").token(call_id),
        "ackcb_." + mac,
        "ackcb_____." + mac,
        "x" * 10_000,
    ]
    async with world.gateway() as gateway:

        async def send(path: str, event: str) -> httpx.Response:
            body = {"id": event, "done": True, "call": {"id": other}, "call_id": other}
            return await gateway.http.post(f"/callbacks/{path}", json=body)

        assert (await send(f"linked/{token}", "1")).json() == {"status": "signalled"}
        old = urls(name="ACME_SECRET").token(call_id)
        assert (await send(f"linked/{old}", "2")).json() == {"status": "signalled"}
        assert [(await send(f"linked/{one}", "3")).status_code for one in forged] == [401] * 9
        assert (await send("linked", "3")).status_code == 401
        assert (await send(f"acme/{token}", "3")).status_code == 404
        assert (await send(f"linked/{token}/more", "3")).status_code == 404

    assert [message["event_key"] for message in await collected(call)] == ["1", "2"]
    assert await collected(other_call) == []


async def test_a_stored_callback_keeps_its_call_and_loses_its_token(world: World) -> None:
    """The inbox knows the call from the URL, and a token that is quoted is removed."""
    call_id = new_call_id("ask", "linked")
    token = urls().token(call_id)
    async with world.gateway() as gateway:
        body = {"id": "early", "webhookUrl": f"https://us.example/callbacks/linked/{token}"}
        reply = await gateway.http.post(f"/callbacks/linked/{token}", json=body)

    assert reply.json() == {"status": "not awaited"}
    (stored,) = await world.ledger.inbox.entries("linked", InboxState.UNCLASSIFIED)
    assert stored.entry.call_id == call_id
    assert stored.entry.document is not None
    assert stored.entry.document["webhookUrl"] == "https://us.example/callbacks/linked/***"
