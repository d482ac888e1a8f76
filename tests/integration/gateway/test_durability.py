"""Durability: the inbox, its races, the sweeper, and an engine or ledger that is down."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER

from .ledgers import CountingEnviron, FailingOnceLedger, RacingLedger, open_as
from .world import (
    World,
    collected,
    collecting,
    done,
    ended,
    in_the_end,
    new_call_id,
)

OFTEN = timedelta(milliseconds=20)


async def test_an_early_callback_is_delivered_once_its_call_appears(world: World) -> None:
    """A callback that arrives before its workflow is stored, and any sweeper delivers it."""
    call_id = new_call_id()
    event = done(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.send_event(event)
    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})
    assert (await world.ledger.counts())["inbox_pending"] == 1

    call = await world.start_call(call_id, until=1)
    async with world.gateway(sweep_every=OFTEN):
        (message,) = await ended(call)

    assert event["id"] == message["event_key"]
    assert (await world.ledger.counts())["inbox_pending"] == 0


async def test_the_sweeper_retries_until_the_call_appears(world: World) -> None:
    """An event that still has no call is retried later."""
    call_id = new_call_id()
    async with world.gateway(sweep_every=OFTEN) as gateway:
        await gateway.send_event(done(call_id))
        call = await world.start_call(call_id, until=1)
        assert len(await ended(call)) == 1


async def test_a_known_reference_finds_its_call(world: World) -> None:
    """A callback is matched by the provider's reference, which `send` has committed."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    await world.ledger.calls.commit_reference(call_id, "acme", "ord_1")
    async with world.gateway() as gateway:
        reply = await gateway.send_event(done(order="ord_1"))

    assert reply.json()["status"] == "signalled"
    assert len(await collected(call)) == 1


async def test_a_reference_committed_between_lookup_and_keep_is_seen(
    world: World, ledger_url: str
) -> None:
    """The gateway writes its row and looks up again, so the race loses no event."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    ledger = open_as(RacingLedger, ledger_url)
    ledger.call_id = call_id
    async with world.gateway(ledger=ledger) as gateway:
        reply = await gateway.send_event(done(order="ord_1"))
    await ledger.close()

    assert (reply.status_code, reply.json()) == (200, {"status": "signalled"})
    assert len(await collected(call)) == 1
    assert (await world.ledger.counts())["inbox_pending"] == 0


async def test_a_reference_shared_by_operations_is_decided_by_the_call(world: World) -> None:
    """The document is stored while its operation is unknown, and classified for the call found."""
    async with world.gateway() as gateway:
        await gateway.send_event(done(order="ord_1"))
    (stored,) = await world.ledger.inbox.due(timedelta(0), 10)
    assert (
        stored.entry.operation,
        stored.entry.message,
        stored.entry.reference,
    ) == (None, None, "ord_1")

    call_id = new_call_id("refund")
    call = await world.start_call(call_id, until=1)
    await world.ledger.calls.commit_reference(call_id, "acme", "ord_1")
    async with world.gateway(sweep_every=OFTEN):
        (message,) = await ended(call)

    assert message["data"] == "ord_1"


async def test_without_the_engine_events_are_stored_in_the_inbox(
    world: World, no_engine: Client
) -> None:
    """The engine is down: the reply is 2xx, and the event is delivered when the engine is back."""
    call_id = new_call_id()
    async with world.gateway(client=no_engine) as gateway:
        replies = [await gateway.send_event(done(call_id)) for _ in range(2)]
    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 2

    call = await world.start_call(call_id, until=2)
    async with world.gateway(sweep_every=OFTEN):
        assert len(await ended(call)) == 2


async def test_a_gateway_survives_an_engine_restart(world: World, tmp_path: Path) -> None:
    """Events that arrive while the engine is stopped are delivered after its restart."""
    call_id = new_call_id()
    engine = EmbeddedEngine(tmp_path / "other.db", headless=True)
    await asyncio.to_thread(engine.start)
    try:
        client = await Client.connect(engine.address, data_converter=DATA_CONVERTER)
        call = await world.start_call(call_id, until=2, client=client)
        async with world.gateway(client=client, sweep_every=OFTEN) as gateway:
            before = await gateway.send_event(done(call_id))
            await asyncio.to_thread(engine.stop)
            meanwhile = await gateway.send_event(done(call_id))
            await asyncio.to_thread(engine.start)
            async with collecting(client):
                assert len(await ended(call)) == 2
    finally:
        await asyncio.to_thread(engine.stop)

    assert [before.json()["status"], meanwhile.json()["status"]] == ["signalled", "kept"]


async def test_an_engine_that_hangs_counts_as_down(world: World, silent_engine: Client) -> None:
    """The engine accepts connections and never answers: the inbox takes over after the timeout."""
    short = timedelta(milliseconds=50)
    async with world.gateway(client=silent_engine, signal_timeout=short) as gateway:
        reply = await gateway.send_event(done(new_call_id()))

    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})


async def test_without_the_ledger_a_named_call_is_still_signalled(
    world: World, no_ledger: Ledger
) -> None:
    """Events that name their call are signalled; those that need the ledger get 503."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    event = done(call_id)
    async with world.gateway(ledger=no_ledger) as gateway:
        replies = [
            await gateway.send_event(event),
            await gateway.send_event(event),
            await gateway.send_event(done(order="ord_1")),
            await gateway.send_event(done()),
        ]

    assert [reply.status_code for reply in replies] == [200, 200, 503, 503]
    assert len(await collected(call)) == 1


async def test_without_engine_and_ledger_the_provider_is_asked_to_retry(
    world: World, no_engine: Client, no_ledger: Ledger
) -> None:
    """Nothing can be stored: 503 with Retry-After, and the retry is not a duplicate."""
    event = done(new_call_id())
    async with world.gateway(
        client=no_engine, ledger=no_ledger, retry_after=timedelta(seconds=7)
    ) as gateway:
        replies = [await gateway.send_event(event) for _ in range(2)]

    assert [(r.status_code, r.headers["Retry-After"]) for r in replies] == [(503, "7")] * 2


async def test_a_failed_first_delivery_releases_the_duplicate_that_waited(
    world: World, ledger_url: str, no_engine: Client
) -> None:
    """A duplicate waits for the first delivery, and is delivered itself if that fails."""
    ledger = open_as(FailingOnceLedger, ledger_url)
    world.environ = verified = CountingEnviron()
    event = done(new_call_id())
    async with world.gateway(client=no_engine, ledger=ledger) as gateway:
        first = asyncio.create_task(gateway.send_event(event))
        await in_the_end(ledger.reached.wait())
        second = asyncio.create_task(gateway.send_event(event))
        await in_the_end(verified.twice.wait())
        ledger.fail.set()
        replies = await first, await second
    await ledger.close()

    assert [(reply.status_code, reply.json()["status"]) for reply in replies] == [
        (503, "try again"),
        (200, "kept"),
    ]
    assert (await world.ledger.counts())["inbox_pending"] == 1
