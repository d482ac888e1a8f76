"""Events in the inbox or after the end of the call: delivered, a duplicate, or held."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client

from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Timings
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.names import split_call_id
from ackbridge.ledger.inbox import InboxEntry, InboxState
from ackbridge.ledger.ledger import Ledger

from .ledgers import ObservedLedger, open_as
from .world import World, collected, done, ended, in_the_end, new_call_id, now

OFTEN = timedelta(milliseconds=20)


async def test_a_repeat_after_the_call_ended_is_a_duplicate(world: World) -> None:
    """The call is closed and its response recorded: a repeat is logged and not stored."""
    call_id = new_call_id()
    event = done(call_id)
    await collected(await world.start_call(call_id))
    await _record(world.ledger, call_id, event["id"])
    async with world.gateway() as gateway:
        reply = await gateway.send_event(event)

    assert (reply.status_code, reply.json()) == (200, {"status": "duplicate"})
    counts = await world.ledger.counts()
    assert (counts["suppressed"], counts["inbox_pending"]) == (1, 0)


async def test_an_event_after_the_end_of_its_call_is_held(world: World, ledger_url: str) -> None:
    """The call closed without this event: it is held for an operator, never dropped."""
    call_id = new_call_id()
    await collected(await world.start_call(call_id))
    ledger = open_as(ObservedLedger, ledger_url)
    event = done(call_id)
    async with world.gateway() as gateway:
        reply = await gateway.send_event(event)
    async with world.gateway(ledger=ledger, sweep_every=OFTEN):
        settled = await in_the_end(ledger.settled)
    await ledger.close()

    assert (reply.status_code, reply.json()) == (200, {"status": "kept"})
    assert settled == (InboxState.HELD, "the call had ended")
    (held,) = await world.ledger.inbox.held("acme")
    assert (held.entry.call_id, held.reason) == (call_id, "the call had ended")
    assert held.entry.message is not None
    assert held.entry.message.data == event


async def test_a_stored_event_that_was_recorded_meanwhile_is_a_duplicate(
    world: World, ledger_url: str, no_engine: Client
) -> None:
    """The event was recorded another way while it was in the inbox."""
    call_id = new_call_id()
    event = done(call_id)
    ledger = open_as(ObservedLedger, ledger_url)
    async with world.gateway(client=no_engine) as gateway:
        await gateway.send_event(event)
    await collected(await world.start_call(call_id))
    ledger.recorded_meanwhile = True
    async with world.gateway(ledger=ledger, sweep_every=OFTEN):
        settled = await in_the_end(ledger.settled)
    await ledger.close()

    assert settled == (InboxState.DUPLICATE, "already recorded as a response")


async def test_an_event_without_a_call_is_held_in_the_end(world: World, ledger_url: str) -> None:
    """After `give_up_after`, an event without a call is held for an operator."""
    ledger = open_as(ObservedLedger, ledger_url)
    async with world.gateway() as gateway:
        await gateway.send_event(done(new_call_id()))
    async with world.gateway(ledger=ledger, sweep_every=OFTEN, give_up_after=timedelta(0)):
        settled = await in_the_end(ledger.settled)
    await ledger.close()

    assert settled == (InboxState.HELD, "no call has appeared")


async def test_an_unreadable_stored_event_is_held(world: World, ledger_url: str) -> None:
    """An event of a provider that was removed is held for an operator in the end."""
    ledger = open_as(ObservedLedger, ledger_url)
    await world.ledger.inbox.store(InboxEntry("gone", "evt_1", None, None, None, None, {}, now()))
    async with world.gateway(ledger=ledger, sweep_every=OFTEN, give_up_after=timedelta(0)):
        settled = await in_the_end(ledger.settled)
    await ledger.close()

    assert settled == (InboxState.HELD, "cannot be read any more: UnknownNameError")


async def test_an_unreadable_stored_event_does_not_block_others(world: World) -> None:
    """An event of a provider that was removed is postponed, and the next one is delivered."""
    call_id = new_call_id()
    gone = InboxEntry("gone", "evt_1", None, None, None, None, {}, now())
    await world.ledger.inbox.store(gone)
    async with world.gateway() as gateway:
        await gateway.send_event(done(call_id))
    call = await world.start_call(call_id, until=1)
    async with world.gateway(sweep_every=OFTEN):
        assert len(await ended(call)) == 1


async def _record(ledger: Ledger, call_id: str, event_key: str) -> None:
    provider, operation, key = split_call_id(call_id)
    request = CallRequest(provider=provider, operation=operation, key=key)
    await ledger.calls.claim(request, "run-1")
    message = ProviderMessage(kind=MessageKind.RESPONSE, event_key=event_key)
    outcome = CallOutcome(
        call_id=call_id, status=OutcomeStatus.COMPLETED, timings=Timings(started_at=now())
    )
    await ledger.calls.record_response(call_id, 1, message, outcome)
