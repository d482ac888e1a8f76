"""Messages that arrive together for one call share a signal; replies follow the signal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle

from ackbridge.contracts import names
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.gateway.signal_batching import (
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    EngineClient,
    SignalBatcher,
    SignalResult,
)
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER

from .world import World, collected, done, in_the_end, new_call_id

TIMEOUT = timedelta(seconds=10)
MEGABYTE = 1024 * 1024


class BlockedEngineClient(EngineClient):
    """Sends signals to the real engine once `unblocked` is set."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, TIMEOUT)
        self.blocked = asyncio.Event()
        self.unblocked = asyncio.Event()

    async def signal(
        self,
        call_id: str,
        provider: str,
        messages: Sequence[ProviderMessage],
        traceparents: Sequence[str | None] = (),
    ) -> SignalResult:
        """Wait, then signal."""
        self.blocked.set()
        await self.unblocked.wait()
        return await super().signal(call_id, provider, messages, traceparents)


async def test_queued_messages_share_the_next_signal(world: World) -> None:
    """Ten messages make two signals, in order; each sender waits for its own signal."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    engine = BlockedEngineClient(world.client)
    batcher = SignalBatcher(engine)
    sent = [
        asyncio.create_task(batcher.send(call_id, "acme", _message(str(number)), 100))
        for number in range(10)
    ]
    await in_the_end(engine.blocked.wait())
    await asyncio.sleep(0)
    assert not any(task.done() for task in sent)
    engine.unblocked.set()

    assert await in_the_end(asyncio.gather(*sent)) == [SignalResult.DELIVERED] * 10
    assert [str(n) for n in range(10)] == [m["event_key"] for m in await collected(call)]
    assert await _signals(call) == [(names.PROVIDER_MESSAGE, 1), (names.PROVIDER_MESSAGES, 9)]


async def test_a_signal_has_a_maximum_number_and_size(world: World) -> None:
    """Messages that exceed the number or the size wait for the following signal."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    engine = BlockedEngineClient(world.client)
    batcher = SignalBatcher(engine)
    sizes = [1, *([1] * (MAX_BATCH_MESSAGES + 1)), MAX_BATCH_BYTES - 1, MAX_BATCH_BYTES]
    sent = [
        asyncio.create_task(batcher.send(call_id, "acme", _message(str(number)), size))
        for number, size in enumerate(sizes)
    ]
    await in_the_end(engine.blocked.wait())
    engine.unblocked.set()

    assert {SignalResult.DELIVERED} == set(await in_the_end(asyncio.gather(*sent)))
    assert len(sizes) == len(await collected(call))
    assert [count for _, count in await _signals(call)] == [1, MAX_BATCH_MESSAGES, 2, 1]


async def test_a_refused_batch_is_sent_one_by_one(world: World) -> None:
    """Two messages that are too large for one signal are sent in two."""
    call_id = new_call_id()
    # On a queue without a worker: together they exceed what a workflow can return.
    call = await world.client.start_workflow(
        names.INTEGRATION_CALL, id=call_id, task_queue="nobody"
    )
    engine = BlockedEngineClient(world.client)
    batcher = SignalBatcher(engine)
    large = "x" * (MEGABYTE + MEGABYTE // 4)
    sent = [
        asyncio.create_task(batcher.send(call_id, "acme", _message(str(number), large), 1))
        for number in range(3)
    ]
    await in_the_end(engine.blocked.wait())
    engine.unblocked.set()

    assert await in_the_end(asyncio.gather(*sent)) == [SignalResult.DELIVERED] * 3
    assert await _signals(call) == [(names.PROVIDER_MESSAGE, 1)] * 3
    await call.terminate()


async def test_a_cancelled_sender_does_not_affect_others(world: World) -> None:
    """The first sender and a queued one are cancelled: the other messages arrive in one signal."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    engine = BlockedEngineClient(world.client)
    batcher = SignalBatcher(engine)
    sent = [
        asyncio.create_task(batcher.send(call_id, "acme", _message(str(number)), 1))
        for number in range(4)
    ]
    await in_the_end(engine.blocked.wait())
    sent[0].cancel()
    sent[2].cancel()
    engine.unblocked.set()

    ends = await in_the_end(asyncio.gather(*sent, return_exceptions=True))
    assert [ends[1], ends[3]] == [SignalResult.DELIVERED] * 2
    assert [message["event_key"] for message in await collected(call)] == ["1", "3"]
    assert await _signals(call) == [(names.PROVIDER_MESSAGES, 2)]


async def test_duplicates_that_arrive_together_are_stopped(world: World) -> None:
    """Each event is signalled once, whichever copy arrived first."""
    call_id = new_call_id()
    call = await world.start_call(call_id)
    events = [done(call_id) for _ in range(5)]
    async with world.gateway() as gateway:
        replies = await asyncio.gather(*(gateway.send_event(event) for event in [*events, *events]))

    assert {200} == {reply.status_code for reply in replies}
    statuses = sorted(reply.json()["status"] for reply in replies)
    assert statuses == ["duplicate"] * 5 + ["signalled"] * 5
    received = [message["event_key"] for message in await collected(call)]
    assert sorted(event["id"] for event in events) == sorted(received)


async def test_without_the_engine_each_message_is_stored(
    world: World, silent_engine: Client
) -> None:
    """The engine does not answer: all messages are in the inbox after a single timeout."""
    call_id = new_call_id()
    short = timedelta(milliseconds=50)
    async with world.gateway(client=silent_engine, signal_timeout=short) as gateway:
        replies = await asyncio.gather(*(gateway.send_event(done(call_id)) for _ in range(5)))

    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 5
    assert (await world.ledger.counts())["inbox_pending"] == 5


async def test_messages_that_arrive_together_before_their_call_are_delivered_later(
    world: World,
) -> None:
    """Their call has not started: each is stored, and the sweeper delivers each once."""
    call_id = new_call_id()
    async with world.gateway() as gateway:
        replies = await asyncio.gather(*(gateway.send_event(done(call_id)) for _ in range(5)))
    assert [(r.status_code, r.json()["status"]) for r in replies] == [(200, "kept")] * 5

    call = await world.start_call(call_id, until=5)
    async with world.gateway(sweep_every=timedelta(milliseconds=20)):
        received = await in_the_end(call.result())
    assert len({message["event_key"] for message in received}) == 5


def _message(key: str, data: Any = None) -> ProviderMessage:
    return ProviderMessage(kind=MessageKind.RESPONSE, event_key=key, data=data)


async def _signals(call: WorkflowHandle[Any, Any]) -> list[tuple[str, int]]:
    """Name and number of messages of each signal in the history of a call that has ended.

    The engine adds signals that arrive during a workflow task to the history after it.
    """
    found = []
    async for event in call.fetch_history_events():
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name in (names.PROVIDER_MESSAGE, names.PROVIDER_MESSAGES):
            (argument,) = await DATA_CONVERTER.decode(signal.input.payloads)
            is_batch = signal.signal_name == names.PROVIDER_MESSAGES
            count = len(argument["messages"]) if is_batch else 1
            found.append((signal.signal_name, count))
    return found
