"""Where callbacks come from, how many there are, and what of them is not kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from ackbridge.gateway import pipeline
from ackbridge.ledger.inbox import InboxState

from .world import World, done, signed

PROXY = [ip_network("127.0.0.0/8")]
TOKEN = {"X-Token": "other-token"}


async def test_only_the_addresses_of_the_provider_may_send(world: World) -> None:
    """Others get 403, whatever they know; a header that no proxy of ours set means nothing."""
    cases = {
        "192.0.2.7": 202,
        "2001:db8::7": 202,
        "192.0.3.7": 403,
        "192.0.2.7, 192.0.3.7": 403,
        "not an address": 403,
    }
    async with world.gateway(trusted_proxies=PROXY) as gateway:
        for number, (source, code) in enumerate(cases.items()):
            headers = {**TOKEN, "X-Forwarded-For": source, "X-Delivery": str(number)}
            reply = await gateway.send(b"{}", headers, "fenced")
            assert (source, reply.status_code) == (source, code)
        assert reply.json()["status"] == "not allowed"
    async with world.gateway() as gateway:
        headers = {**TOKEN, "X-Forwarded-For": "192.0.2.7", "X-Delivery": "direct"}
        assert (await gateway.send(b"{}", headers, "fenced")).status_code == 403


async def test_genuine_callbacks_are_limited_by_source_and_forged_ones_do_not_count(
    world: World,
) -> None:
    """Forgeries from the same address use up nothing; another address has a limit of its own."""
    async with world.gateway(trusted_proxies=PROXY) as gateway:

        async def send(source: str, number: int, headers: Mapping[str, str] = TOKEN) -> int:
            headers = {**headers, "X-Forwarded-For": source, "X-Delivery": str(number)}
            return (await gateway.send(b"{}", headers, "fenced")).status_code

        forged = [await send("192.0.2.1", 0, {"X-Token": "wrong"}) for _ in range(20)]
        genuine = [await send("192.0.2.1", number) for number in range(6)]
        other = await send("192.0.2.2", 100)

    assert forged == [401] * 20
    assert genuine[:2] == [202, 202]
    assert 429 in genuine
    assert other == 202


async def test_a_flood_of_forgeries_is_slowed_and_genuine_callbacks_get_in(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The flood gets 429 and loses its connection; from the same source, what is signed counts."""
    monkeypatch.setattr(pipeline, "FORGERIES_AT_ONCE", 5.0)
    monkeypatch.setattr(pipeline, "FORGERIES_PER_SECOND", 0.01)
    with caplog.at_level(logging.INFO):
        async with world.gateway() as gateway:
            replies = [await gateway.send_event(done("x"), secret="wrong") for _ in range(30)]
            genuine = [(await gateway.send_event(done("nobody"))).status_code for _ in range(5)]

    assert [reply.status_code for reply in replies] == [401] * 5 + [429] * 25
    assert replies[-1].headers["connection"] == "close"
    assert genuine == [202] * 5
    lines = [one.getMessage() for one in caplog.records if "forged" in one.getMessage()]
    assert lines == ["callback forged: signature does not match (provider acme, from 127.0.0.1)"]


async def test_what_no_expression_names_is_not_kept(world: World, tmp_path: Path) -> None:
    """Headers and query are not signed, and have credentials: the ledger never sees them."""
    planted = "pl4nted"
    headers = {
        "Authorization": f"Bearer {planted}",
        "X-Api-Key": planted,
        "X-Other": planted,
        "X-Delivery": "kept-key",
        "X-Forwarded-For": "192.0.2.7",
    }
    query = f"token={planted}&other={planted}&delivery=kept-too"
    async with world.gateway(trusted_proxies=PROXY) as gateway:
        for provider, body in (("fenced", b"{}"), ("other", b"not JSON"), ("acme", b'{"id": "e"}')):
            more = signed(body) if provider == "acme" else TOKEN
            url = f"/callbacks/{provider}?{query}"
            reply = await gateway.http.post(url, content=body, headers={**headers, **more})
            assert reply.status_code in (202, 415, 422)
        form = f"Id=evt_1&token={planted}"
        await gateway.http.get(f"/callbacks/asking?{form}", headers=TOKEN)

    (kept,) = await world.ledger.inbox.entries("fenced", InboxState.PENDING)
    assert kept.entry.document is not None
    assert kept.entry.document["headers"] == {"x-delivery": "kept-key"}
    assert kept.entry.document["query"] == {"delivery": "kept-too"}
    files = list(tmp_path.glob("ledger.db*"))
    assert files
    assert not any(planted.encode() in file.read_bytes() for file in files)
