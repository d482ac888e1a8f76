"""What is durable when: the inbox, its races, its sweeper, and parts that are down."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.temporal.data_converter import DATA_CONVERTER

from .ledgers import CountingEnviron, RacingLedger, StumblingLedger, open_as
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
    """A callback before its workflow is kept, and the sweeper of any gateway delivers it."""
    call_id = new_call_id()
    event = done(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.tell(event)
    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})
    assert (await world.ledger.counts())["inbox_pending"] == 1

    call = await world.start_call(call_id, until=1)
    async with world.gateway(sweep_every=OFTEN):
        (message,) = await ended(call)

    assert event["id"] == message["event_key"]
    assert (await world.ledger.counts())["inbox_pending"] == 0


async def test_the_sweeper_keeps_on_until_the_call_appears(world: World) -> None:
    """A letter that still has no call is tried again later."""
    call_id = new_call_id()
    async with world.gateway(sweep_every=OFTEN) as gateway:
        await gateway.tell(done(call_id))
        call = await world.start_call(call_id, until=1)
        assert len(await ended(call)) == 1


async def test_a_known_reference_finds_its_call(world: World) -> None:
    """Matched by the provider's own reference, which `send` has committed."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    await world.ledger.commit_reference(call_id, "acme", "ord_1")
    async with world.gateway() as gateway:
        reply = await gateway.tell(done(order="ord_1"))

    assert reply.json()["status"] == "signalled"
    assert len(await collected(call)) == 1


async def test_a_reference_committed_between_lookup_and_keep_is_seen(
    world: World, ledger_url: str
) -> None:
    """The gateway writes its row and looks again, so that the race loses nothing."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    ledger = open_as(RacingLedger, ledger_url)
    ledger.call_id = call_id
    async with world.gateway(ledger=ledger) as gateway:
        reply = await gateway.tell(done(order="ord_1"))
    await ledger.close()

    assert (reply.status_code, reply.json()) == (200, {"status": "signalled"})
    assert len(await collected(call)) == 1
    assert (await world.ledger.counts())["inbox_pending"] == 0


async def test_a_reference_shared_by_operations_is_decided_by_the_call(world: World) -> None:
    """Kept as a document while the operation is not known, and classified for the call found."""
    async with world.gateway() as gateway:
        await gateway.tell(done(order="ord_1"))
    (stored,) = await world.ledger.due(timedelta(0), 10)
    assert (
        stored.entry.operation,
        stored.entry.message,
        stored.entry.reference,
    ) == (None, None, "ord_1")

    call_id = new_call_id("refund")
    call = await world.start_call(call_id, until=1)
    await world.ledger.commit_reference(call_id, "acme", "ord_1")
    async with world.gateway(sweep_every=OFTEN):
        (message,) = await ended(call)

    assert message["data"] == "ord_1"


async def test_without_the_engine_the_inbox_takes_it(world: World, no_engine: Client) -> None:
    """The engine is down: 2xx all the same, and delivered when it is back."""
    call_id = new_call_id()
    async with world.gateway(client=no_engine) as gateway:
        replies = [await gateway.tell(done(call_id)) for _ in range(2)]
    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 2

    call = await world.start_call(call_id, until=2)
    async with world.gateway(sweep_every=OFTEN):
        assert len(await ended(call)) == 2


async def test_a_gateway_survives_its_engine(world: World, tmp_path: Path) -> None:
    """The engine goes and comes back under a running gateway: what came meanwhile is delivered."""
    call_id = new_call_id()
    engine = EmbeddedEngine(tmp_path / "other.db", headless=True)
    await asyncio.to_thread(engine.start)
    try:
        client = await Client.connect(engine.address, data_converter=DATA_CONVERTER)
        call = await world.start_call(call_id, until=2, client=client)
        async with world.gateway(client=client, sweep_every=OFTEN) as gateway:
            before = await gateway.tell(done(call_id))
            await asyncio.to_thread(engine.stop)
            meanwhile = await gateway.tell(done(call_id))
            await asyncio.to_thread(engine.start)
            async with collecting(client):
                assert len(await ended(call)) == 2
    finally:
        await asyncio.to_thread(engine.stop)

    assert [before.json()["status"], meanwhile.json()["status"]] == ["signalled", "kept"]


async def test_an_engine_that_hangs_counts_as_down(world: World, silent_engine: Client) -> None:
    """The engine takes connections and never answers: the inbox takes over after the timeout."""
    short = timedelta(milliseconds=50)
    async with world.gateway(client=silent_engine, signal_timeout=short) as gateway:
        reply = await gateway.tell(done(new_call_id()))

    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})


async def test_without_the_ledger_a_named_call_is_still_reached(
    world: World, no_ledger: Ledger
) -> None:
    """Only the ledger is down: what names its call is signalled, what has to be kept is put off."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    event = done(call_id)
    async with world.gateway(ledger=no_ledger) as gateway:
        replies = [
            await gateway.tell(event),
            await gateway.tell(event),
            await gateway.tell(done(order="ord_1")),
            await gateway.tell(done()),
        ]

    assert [reply.status_code for reply in replies] == [200, 200, 503, 503]
    assert len(await collected(call)) == 1


async def test_without_engine_and_ledger_the_provider_shall_come_again(
    world: World, no_engine: Client, no_ledger: Ledger
) -> None:
    """Nothing can be made durable: 503 with Retry-After, and the retry is no duplicate."""
    event = done(new_call_id())
    async with world.gateway(
        client=no_engine, ledger=no_ledger, retry_after=timedelta(seconds=7)
    ) as gateway:
        replies = [await gateway.tell(event) for _ in range(2)]

    assert [(r.status_code, r.headers["Retry-After"]) for r in replies] == [(503, "7")] * 2


async def test_a_failed_first_delivery_releases_the_duplicate_that_waited(
    world: World, ledger_url: str, no_engine: Client
) -> None:
    """The duplicate waits for the first one's durable end, and takes over when there is none."""
    ledger = open_as(StumblingLedger, ledger_url)
    ledger.begin()
    world.environ = verified = CountingEnviron()
    event = done(new_call_id())
    async with world.gateway(client=no_engine, ledger=ledger) as gateway:
        first = asyncio.create_task(gateway.tell(event))
        await in_the_end(ledger.reached.wait())
        second = asyncio.create_task(gateway.tell(event))
        await in_the_end(verified.twice.wait())
        ledger.stumble.set()
        replies = await first, await second
    await ledger.close()

    assert [(reply.status_code, reply.json()["status"]) for reply in replies] == [
        (503, "try again"),
        (200, "kept"),
    ]
    assert (await world.ledger.counts())["inbox_pending"] == 1
