"""Events that no call waits for, from the gateway's side: stored first, handed over in order."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from ackbridge.contracts import names
from ackbridge.ledger.inbox import InboxState

from .world import Gateway, World, ended, in_the_end, new_call_id, now

TOKEN = {"X-Token": "other-token"}


def refund(charge: str, **more: Any) -> dict[str, Any]:
    """An event of an object."""
    return {"id": uuid.uuid4().hex, "type": "refund", "charge": charge, **more}


async def deliver(gateway: Gateway, *events: dict[str, Any]) -> int:
    """Send events in one delivery."""
    body = json.dumps({"events": events}).encode()
    return (await gateway.send(body, TOKEN, "many")).status_code


async def forwarded(client: Client, subject: str) -> list[dict[str, Any]]:
    """What the workflow of an object was handed over, in order."""
    handle = client.get_workflow_handle(names.events_id("many", subject))
    while True:
        try:
            history = await handle.fetch_history()
        except RPCError:
            await asyncio.sleep(0.05)
            continue
        signals = [
            entry.workflow_execution_signaled_event_attributes.input.payloads
            for entry in history.events
            if entry.HasField("workflow_execution_signaled_event_attributes")
        ]
        decoded = [await client.data_converter.decode(list(payloads)) for payloads in signals]
        return [event for (argument,) in decoded for event in argument["events"]]


async def test_events_stored_while_the_engine_was_away_go_first(
    world: World, no_engine: Client
) -> None:
    """In one signal, before the one that has come now."""
    charge = uuid.uuid4().hex
    first, second, third = (refund(charge) for _ in range(3))
    async with world.gateway(client=no_engine) as gateway:
        assert await deliver(gateway, first) == 299
        assert await deliver(gateway, second) == 299
    assert len(await world.ledger.inbox.entries("many", InboxState.PENDING)) == 2
    async with world.gateway(sweep_older_than=timedelta(hours=1)) as gateway:
        assert await deliver(gateway, third) == 299
        assert await deliver(gateway, first, third) == 208
    handed = await in_the_end(forwarded(world.client, charge))
    assert [one["event_key"] for one in handed] == [first["id"], second["id"], third["id"]]
    assert handed[0]["notice"]["body"]["data"] == {
        "provider": "many",
        "event": "refund",
        "event_key": first["id"],
        "object": charge,
    }
    assert await world.ledger.inbox.entries("many", InboxState.PENDING) == []


async def test_the_sweeper_forwards_what_was_stored(world: World, no_engine: Client) -> None:
    """Without another event."""
    charge = uuid.uuid4().hex
    one = refund(charge)
    async with world.gateway(client=no_engine) as gateway:
        await deliver(gateway, one)
    async with world.gateway():
        handed = await in_the_end(forwarded(world.client, charge))
    assert [event["event_key"] for event in handed] == [one["id"]]


async def test_after_the_end_of_its_call_a_message_is_an_event(world: World) -> None:
    """While the call is open, it is the call's; then the subscriber's, with the call id."""
    call_id, charge = new_call_id("ask", "many"), uuid.uuid4().hex
    call = await world.start_call(call_id, until=1)
    own = refund(charge, type="done", refunds=True, call_id=call_id)
    late = refund(charge, type="done", refunds=True, call_id=call_id)
    async with world.gateway() as gateway:
        await deliver(gateway, own)
        (message,) = await ended(call)
        assert message["event_key"] == own["id"]
        assert await deliver(gateway, late) == 299
    async with world.gateway():
        handed = await in_the_end(forwarded(world.client, charge))
    assert [event["event_key"] for event in handed] == [late["id"]]
    assert handed[0]["notice"]["body"]["data"]["call_id"] == call_id
    (stored,) = await world.ledger.inbox.entries("many")
    assert stored.state is InboxState.DELIVERED


async def test_an_event_that_names_a_call_keeps_its_id(world: World) -> None:
    """By call id, or by the provider's reference."""
    call_id, order, charge = new_call_id("ask", "many"), uuid.uuid4().hex, uuid.uuid4().hex
    await world.ledger.calls.commit_reference(call_id, "many", order)
    async with world.gateway() as gateway:
        await deliver(gateway, refund(charge, order=order), refund(charge, call_id=call_id))
    handed = await in_the_end(forwarded(world.client, charge))
    assert [one["notice"]["body"]["data"]["call_id"] for one in handed] == [call_id, call_id]


async def listed_since(client: Client) -> datetime | None:
    """From when events are listed by the catch-up that was started last; None if there is none."""
    handle = client.get_workflow_handle(names.catch_up_id("many"))
    try:
        history = await handle.fetch_history()
    except RPCError:
        return None
    started = history.events[0].workflow_execution_started_event_attributes
    (request,) = await client.data_converter.decode(list(started.input.payloads))
    return datetime.fromisoformat(request["since"])


async def covered(world: World, until: datetime | None) -> None:
    """Wait until it is stored that events are covered; None: until any time."""
    while True:
        found = await world.ledger.inbox.covered_until("many")
        if found is not None and until in (None, found):
            return
        await asyncio.sleep(0.02)


async def test_after_all_gateways_were_away_events_are_listed(
    world: World, no_engine: Client
) -> None:
    """From before the gap; not at the first start, and not while the engine is away."""
    async with world.gateway():
        await in_the_end(covered(world, None))
    assert await listed_since(world.client) is None
    later = now() + timedelta(minutes=30)
    async with world.gateway(clock=lambda: later):
        await in_the_end(covered(world, later))
    since = await listed_since(world.client)
    assert since is not None
    assert timedelta(minutes=39) < later - since < timedelta(minutes=42)
    # It runs, because nobody works on it: the next gap is not forgotten.
    latest = later + timedelta(hours=1)
    for client in (no_engine, world.client):
        async with world.gateway(client=client, clock=lambda: latest):
            await asyncio.sleep(0.3)
    assert await world.ledger.inbox.covered_until("many") == later
    running = world.client.get_workflow_handle(names.catch_up_id("many"))
    await running.terminate()
    async with world.gateway(clock=lambda: latest):
        await in_the_end(covered(world, latest))
    await running.terminate()
