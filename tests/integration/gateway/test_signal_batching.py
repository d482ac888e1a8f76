"""Messages for one call that come together: one signal, and each sender's 2xx only after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle

from ackbridge.contracts import names
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.gateway.calls import Calls, Signalled
from ackbridge.gateway.signal_batching import LARGEST_TOGETHER, MOST_TOGETHER, SignalBatcher
from ackbridge.temporal.data_converter import DATA_CONVERTER

from .world import World, collected, done, in_the_end, new_call_id

PATIENCE = timedelta(seconds=10)
MEGABYTE = 1024 * 1024


class HeldCalls(Calls):
    """The real engine behind a gate: the first signal leaves when it is told to."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, PATIENCE)
        self.held = asyncio.Event()
        self.open = asyncio.Event()

    async def signal(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[ProviderMessage],
        traceparents: Sequence[str | None] = (),
    ) -> Signalled:
        """Wait at the gate, then signal."""
        self.held.set()
        await self.open.wait()
        return await super().signal(call_id, provider, messages, traceparents)


async def test_what_waits_for_a_signal_travels_in_the_next(world: World) -> None:
    """Ten messages are two signals, in their order, and nobody hears before the engine has his."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    calls = HeldCalls(world.client)
    lanes = SignalBatcher(calls)
    sent = [
        asyncio.create_task(lanes.signal(call_id, "acme", _message(str(number)), 100))
        for number in range(10)
    ]
    await in_the_end(calls.held.wait())
    await asyncio.sleep(0)
    assert not any(task.done() for task in sent)
    calls.open.set()

    assert await in_the_end(asyncio.gather(*sent)) == [Signalled.DELIVERED] * 10
    assert [str(n) for n in range(10)] == [m["event_key"] for m in await collected(call)]
    assert await _signals(call) == [(names.PROVIDER_MESSAGE, 1), (names.PROVIDER_MESSAGES, 9)]


async def test_a_signal_takes_so_many_and_no_more(world: World) -> None:
    """What does not fit by number or by size waits for the signal after."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    calls = HeldCalls(world.client)
    lanes = SignalBatcher(calls)
    sizes = [1, *([1] * (MOST_TOGETHER + 1)), LARGEST_TOGETHER - 1, LARGEST_TOGETHER]
    sent = [
        asyncio.create_task(lanes.signal(call_id, "acme", _message(str(number)), size))
        for number, size in enumerate(sizes)
    ]
    await in_the_end(calls.held.wait())
    calls.open.set()

    assert {Signalled.DELIVERED} == set(await in_the_end(asyncio.gather(*sent)))
    assert len(sizes) == len(await collected(call))
    assert [count for _, count in await _signals(call)] == [1, MOST_TOGETHER, 2, 1]


async def test_what_the_engine_refuses_together_goes_alone(world: World) -> None:
    """Two messages that are too large for one signal are two signals."""
    call_id = new_call_id()
    # On a queue of nobody's: together they are more than a workflow could answer with.
    call = await world.client.start_workflow(
        names.INTEGRATION_CALL, id=call_id, task_queue="nobody"
    )
    calls = HeldCalls(world.client)
    lanes = SignalBatcher(calls)
    large = "x" * (MEGABYTE + MEGABYTE // 4)
    sent = [
        asyncio.create_task(lanes.signal(call_id, "acme", _message(str(number), large), 1))
        for number in range(3)
    ]
    await in_the_end(calls.held.wait())
    calls.open.set()

    assert await in_the_end(asyncio.gather(*sent)) == [Signalled.DELIVERED] * 3
    assert await _signals(call) == [(names.PROVIDER_MESSAGE, 1)] * 3
    await call.terminate()


async def test_a_sender_who_leaves_takes_nobody_with_him(world: World) -> None:
    """The first and one that waits are cancelled: the others arrive, in a signal of theirs."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    calls = HeldCalls(world.client)
    lanes = SignalBatcher(calls)
    sent = [
        asyncio.create_task(lanes.signal(call_id, "acme", _message(str(number)), 1))
        for number in range(4)
    ]
    await in_the_end(calls.held.wait())
    sent[0].cancel()
    sent[2].cancel()
    calls.open.set()

    ends = await in_the_end(asyncio.gather(*sent, return_exceptions=True))
    assert [ends[1], ends[3]] == [Signalled.DELIVERED] * 2
    assert [message["event_key"] for message in await collected(call)] == ["1", "3"]
    assert await _signals(call) == [(names.PROVIDER_MESSAGES, 2)]


async def test_duplicates_among_those_that_come_together_are_stopped(world: World) -> None:
    """Each event is signalled once, whichever of its copies came first."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    events = [done(call_id) for _ in range(5)]
    async with world.gateway() as gateway:
        replies = await asyncio.gather(*(gateway.tell(event) for event in [*events, *events]))

    assert {200} == {reply.status_code for reply in replies}
    statuses = sorted(reply.json()["status"] for reply in replies)
    assert statuses == ["duplicate"] * 5 + ["signalled"] * 5
    heard = [message["event_key"] for message in await collected(call)]
    assert sorted(event["id"] for event in events) == sorted(heard)


async def test_without_the_engine_each_of_them_is_kept(world: World, silent_engine: Client) -> None:
    """The engine does not answer: after one timeout, not one each, all are in the inbox."""
    call_id = new_call_id()
    short = timedelta(milliseconds=50)
    async with world.gateway(client=silent_engine, signal_timeout=short) as gateway:
        replies = await asyncio.gather(*(gateway.tell(done(call_id)) for _ in range(5)))

    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 5
    assert (await world.ledger.counts())["inbox_pending"] == 5


async def test_what_comes_together_too_early_is_delivered_later(world: World) -> None:
    """Their call is not there yet: each is kept, and the sweeper delivers each once."""
    call_id = new_call_id()
    async with world.gateway() as gateway:
        replies = await asyncio.gather(*(gateway.tell(done(call_id)) for _ in range(5)))
    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 5

    call = await world.start_call(call_id, until=5)
    async with world.gateway(sweep_every=timedelta(milliseconds=20)):
        heard = await in_the_end(call.result())
    assert len({message["event_key"] for message in heard}) == 5


def _message(key: str, data: Any = None) -> ProviderMessage:
    return ProviderMessage(kind=MessageKind.RESPONSE, event_key=key, data=data)


async def _signals(call: WorkflowHandle[Any, Any]) -> list[tuple[str, int]]:
    """Name and number of messages of each signal in the history of a call that has ended.

    The engine writes what comes while a worker is at work into the history only afterwards.
    """
    found = []
    async for event in call.fetch_history_events():
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name in (names.PROVIDER_MESSAGE, names.PROVIDER_MESSAGES):
            (said,) = await DATA_CONVERTER.decode(signal.input.payloads)
            count = len(said["messages"]) if signal.signal_name == names.PROVIDER_MESSAGES else 1
            found.append((signal.signal_name, count))
    return found
