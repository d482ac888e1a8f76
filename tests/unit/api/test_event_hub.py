"""One question to the ledger for all streams, whatever happens to it or to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ackbridge.api import event_hub
from ackbridge.api.event_hub import EventHub, Stream, TooManyStreamsError
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import Effect, NoticeStatus
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.call_events import CallEvent, CallEventStore


def event(call_id: str, number: int, status: NoticeStatus = NoticeStatus.DELAYED) -> CallEvent:
    return CallEvent(call_id, number, status, False, Effect.DONE, None, None, utc_now())


class Store(CallEventStore):
    """A ledger whose answers the test decides, and which counts its questions."""

    def __init__(self) -> None:
        self.events: dict[str, CallEvent] = {}
        self.asked: list[int] = []
        self.is_away = False

    async def numbers(self, call_ids: Sequence[str]) -> dict[str, int]:
        self.asked.append(len(call_ids))
        if self.is_away:
            raise LedgerUnavailableError("away")
        return {one: self.events[one].number for one in call_ids if one in self.events}

    async def newest(self, call_ids: Sequence[str]) -> list[CallEvent]:
        return [self.events[one] for one in call_ids]


@asynccontextmanager
async def running(store: Store, most: int = 500, every: float = 0.02) -> AsyncIterator[EventHub]:
    hub = EventHub(store, most=most, poll_every=timedelta(seconds=every))
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.wait([task])


async def opened(hub: EventHub, call_id: str, last: int = 0) -> Stream:
    stream = await hub.open(call_id, last)
    assert stream is not None
    return stream


async def test_all_streams_share_one_question() -> None:
    """However many calls are followed, and by however many pages."""
    store = Store()
    async with running(store) as hub:
        streams = await asyncio.gather(
            *(opened(hub, f"p.o.{number % 100}") for number in range(300))
        )
        store.asked.clear()
        store.events = {f"p.o.{number}": event(f"p.o.{number}", 1) for number in range(100)}
        got = await asyncio.gather(*(anext(one) for one in streams))
        assert [one and one.number for one in got] == [1] * 300
        assert set(store.asked) == {100}
        for one in streams:
            hub.close(one)
        assert hub.streams == 0
        store.asked.clear()
        await asyncio.sleep(0.1)
        assert store.asked == [], "nobody follows anything"


async def test_a_new_stream_does_not_wait_for_the_next_question() -> None:
    """It is asked about at once, and alone."""
    store = Store()
    store.events["p.o.1"] = event("p.o.1", 3)
    async with running(store, every=60) as hub:
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            first = await anext(await opened(hub, "p.o.1"))
        assert first is not None
        assert first.number == 3


async def test_a_slow_reader_gets_the_newest_event() -> None:
    """What was overtaken is not sent; memory does not grow."""
    store = Store()
    async with running(store) as hub:
        stream = await opened(hub, "p.o.1")
        for number in range(1, 6):
            stream.put(event("p.o.1", number), 0.0)
        stream.put(event("p.o.1", 2), 0.0)
        newest = await anext(stream)
        assert newest is not None
        assert newest.number == 5


async def test_streams_outlive_the_ledger(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay open while it is away, open without it, and get their events afterwards."""
    monkeypatch.setattr(event_hub, "FIRST_ANSWER_WITHIN", timedelta(milliseconds=50))
    store = Store()
    async with running(store) as hub:
        before = await opened(hub, "p.o.1")
        store.is_away = True
        meanwhile = await opened(hub, "p.o.2")
        store.events = {one: event(one, 1) for one in ("p.o.1", "p.o.2")}
        store.is_away = False
        async with asyncio.timeout(1):
            assert await anext(before) == store.events["p.o.1"]
            assert await anext(meanwhile) == store.events["p.o.2"]
    assert sum("no news" in record.message for record in caplog.records) == 1


async def test_streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their tokens, and with the process, which opens no others then."""
    store = Store()
    async with running(store) as hub:
        short = await hub.open("p.o.1", lifetime=timedelta(milliseconds=10))
        assert short is not None
        async with asyncio.timeout(1):
            assert [one async for one in short] == []
        long = await opened(hub, "p.o.2")
        hub.close_all()
        assert [one async for one in long] == []
        with pytest.raises(TooManyStreamsError):
            await hub.open("p.o.3")


async def test_whoever_has_the_last_event_gets_no_stream() -> None:
    """So that browsers do not connect again; an unknown effect is not the last word."""
    store = Store()
    store.events["p.o.1"] = event("p.o.1", 2, NoticeStatus.COMPLETED)
    async with running(store) as hub:
        assert await hub.open("p.o.1", 2) is None
        assert await hub.open("p.o.1", 1) is not None


async def test_a_call_has_a_bounded_number_of_streams() -> None:
    """One page that reconnects in a loop leaves room for the others."""
    async with running(Store()) as hub:
        for _ in range(event_hub.MAX_STREAMS_OF_CALL):
            await opened(hub, "p.o.1")
        with pytest.raises(TooManyStreamsError, match="this call"):
            await hub.open("p.o.1")
        await opened(hub, "p.o.2")
