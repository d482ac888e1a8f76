"""All streams of one process, which share one question to the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from ackbridge.contracts.calls import Effect, NoticeStatus
from ackbridge.errors import AckbridgeError, UnavailableError
from ackbridge.ledger.call_events import CallEvent, CallEventStore

log = logging.getLogger(__name__)

HEARTBEAT: Final = timedelta(seconds=15)
"""After which a stream without an event says that it is there."""

FIRST_ANSWER_WITHIN: Final = timedelta(seconds=2)
"""Of the ledger; after it, a stream opens without it."""

MAX_STREAMS_OF_CALL: Final = 32

_SLICE: Final = 2000
"""Calls in one query."""

_REST: Final = 4
"""The pause between two polls is at least this many times as long as a poll takes."""


class TooManyStreamsError(UnavailableError):
    """There are as many streams as there may be, in this process or of this call."""


def is_final(event: CallEvent) -> bool:
    """Whether nothing more is to be expected of the call."""
    return event.status is not NoticeStatus.DELAYED and event.effect is not Effect.UNKNOWN


class Stream:
    """The events of one call for one reader; iterate over it.

    Only the newest event waits for a reader that is slow: it replaces those before it.
    """

    __slots__ = ("_event", "_is_closed", "_quiet_since", "_until", "_waiter", "call_id", "last")

    def __init__(self, call_id: str, last: int, now: float, until: float | None) -> None:
        self.call_id = call_id
        self.last = last
        self._until = until
        self._quiet_since = now
        self._event: CallEvent | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> CallEvent | None:
        """The next event, or None: a heartbeat."""
        if self._event is None and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        event, self._event = self._event, None
        if event is not None:
            self.last = event.number
        elif self._is_closed:
            raise StopAsyncIteration
        return event

    def put(self, event: CallEvent, now: float) -> None:
        """Give it an event; one that is not newer than what it has is a duplicate."""
        if event.number > (self._event.number if self._event else self.last):
            self._event, self._quiet_since = event, now
            self._wake()

    def beat(self, now: float) -> None:
        """Let it say that it is there, if it is time to; close it, if its time is up."""
        if self._until is not None and now >= self._until:
            self.close()
        elif now - self._quiet_since >= HEARTBEAT.total_seconds():
            self._quiet_since = now
            self._wake()

    def close(self) -> None:
        """End it, after the event that it has."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class _Followed:
    """A call that has streams."""

    event: CallEvent | None = None
    streams: set[Stream] = field(default_factory=set)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """The ledger has answered for it."""


class EventHub:
    """Asks the ledger for the news of all calls that are followed, and passes them on.

    `run` has to run meanwhile. The cost is one query each time, however many streams there are.
    """

    def __init__(
        self,
        events: CallEventStore,
        *,
        most: int = 500,
        poll_every: timedelta = timedelta(seconds=1),
    ) -> None:
        self._events = events
        self._most = most
        self._poll_every = poll_every.total_seconds()
        self._calls: dict[str, _Followed] = {}
        self._number = 0
        self._new: list[str] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._has_failed = False

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._number

    async def open(
        self, call_id: str, last: int = 0, lifetime: timedelta | None = None
    ) -> Stream | None:
        """Follow a call; close the stream with `close`.

        Args:
            last: the number of the last event that the reader has.

        Returns:
            None: the reader has the last event that there will be.

        Raises:
            TooManyStreamsError: there are too many already.
        """
        followed = self._calls.get(call_id) or _Followed()
        if self._number >= self._most or self._is_closed:
            raise TooManyStreamsError("this process has as many streams as it may have")
        if len(followed.streams) >= MAX_STREAMS_OF_CALL:
            raise TooManyStreamsError("this call has as many streams as it may have")
        now = asyncio.get_running_loop().time()
        until = None if lifetime is None else now + lifetime.total_seconds()
        stream = Stream(call_id, last, now, until)
        followed.streams.add(stream)
        self._number += 1
        if call_id not in self._calls:
            self._calls[call_id] = followed
            self._new.append(call_id)
            self._wake.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_WITHIN.total_seconds()):
                    await followed.asked.wait()
        except asyncio.CancelledError:
            self.close(stream)
            raise
        if followed.event is None:
            return stream
        if is_final(followed.event) and followed.event.number <= last:
            self.close(stream)
            return None
        stream.put(followed.event, now)
        return stream

    def close(self, stream: Stream) -> None:
        """The stream has no reader any more."""
        stream.close()
        followed = self._calls.get(stream.call_id)
        if followed is None or stream not in followed.streams:
            return
        followed.streams.remove(stream)
        self._number -= 1
        if not followed.streams:
            del self._calls[stream.call_id]

    def close_all(self) -> None:
        """End all streams, and open no other: the process shuts down."""
        self._is_closed = True
        for stream in self._all():
            stream.close()

    async def run(self) -> None:
        """Ask, and pass on, until it is cancelled."""
        loop = asyncio.get_running_loop()
        next_at = 0.0
        while True:
            self._wake.clear()
            now = loop.time()
            asked = self._new
            if is_due := now >= next_at:
                asked = list(self._calls)
            self._new = []
            await self._ask(asked)
            if is_due:
                took = loop.time() - now
                next_at = now + max(self._poll_every, _REST * took)
            for stream in self._all():
                stream.beat(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(next_at - loop.time(), 0)):
                    await self._wake.wait()

    def _all(self) -> list[Stream]:
        return [stream for followed in self._calls.values() for stream in followed.streams]

    async def _ask(self, call_ids: Sequence[str]) -> None:
        for begin in range(0, len(call_ids), _SLICE):
            try:
                await self._ask_for(call_ids[begin : begin + _SLICE])
                self._has_failed = False
            except AckbridgeError as error:
                # It is asked again; streams stay open.
                if not self._has_failed:
                    log.warning("streams have no news: %s", error)
                self._has_failed = True
                return

    async def _ask_for(self, call_ids: Sequence[str]) -> None:
        numbers = await self._events.numbers(call_ids)
        changed = [one for one, number in numbers.items() if self._is_news(one, number)]
        if changed:
            self._pass_on(await self._events.newest(changed))
        for call_id in call_ids:
            if followed := self._calls.get(call_id):
                followed.asked.set()

    def _is_news(self, call_id: str, number: int) -> bool:
        followed = self._calls.get(call_id)
        if followed is None:
            return False
        return followed.event is None or number > followed.event.number

    def _pass_on(self, events: Iterable[CallEvent]) -> None:
        now = asyncio.get_running_loop().time()
        for event in events:
            followed = self._calls.get(event.call_id)
            if followed is None:
                continue
            followed.event = event
            for stream in followed.streams:
                stream.put(event, now)
