"""One lane to each call: one signal at a time, and what comes meanwhile travels together."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from ackbridge.contracts.messages import ProviderMessage
from ackbridge.errors import EngineUnavailableError

from .calls import Calls, Signalled

MOST_TOGETHER = 100
"""Messages in one signal."""

LARGEST_TOGETHER = 1024 * 1024
"""Bytes of the bodies of messages that share a signal: the engine takes 2 MiB at most."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message that waits, and the one who waits for it to be durable."""

    message: ProviderMessage
    size: int
    traceparent: str | None
    durable: asyncio.Future[Signalled]


class SignalBatcher:
    """Signals calls; whoever gets an answer has a message that the engine has made durable.

    For one event loop only. While a signal to a call is on its way, further messages for it wait,
    and go in one signal when it has arrived: the busier a call, the fewer signals per message. A
    message that meets no other goes by itself, at once, as it always has.
    """

    def __init__(self, calls: Calls) -> None:
        """Take the engine's side."""
        self._calls = calls
        self._lanes: dict[str, deque[QueuedMessage]] = {}
        self._journeys: set[asyncio.Task[None]] = set()

    async def signal(
        self,
        call_id: str,
        provider: str,
        message: ProviderMessage,
        size: int,
        traceparent: str | None = None,
    ) -> Signalled:
        """Hand a message to a call.

        Args:
            size: bytes of the body it came in.
            traceparent: what the provider has echoed of our request's, where it does.

        Raises:
            EngineUnavailableError: it did not answer in time; the signal may have arrived all the
                same.
        """
        waiting = self._lanes.get(call_id)
        if waiting is not None:
            durable: asyncio.Future[Signalled] = asyncio.get_running_loop().create_future()
            waiting.append(QueuedMessage(message, size, traceparent, durable))
            return await durable
        self._lanes[call_id] = deque()
        try:
            return await self._calls.signal(call_id, provider, [message], [traceparent])
        except EngineUnavailableError:
            self._turn_away(call_id)
            raise
        finally:
            self._go_on(call_id, provider)

    def _go_on(self, call_id: str, provider: str) -> None:
        """A signal has come to its end: those that wait are next, whatever became of its sender."""
        if not self._lanes[call_id]:
            del self._lanes[call_id]
            return
        journey = asyncio.create_task(self._carry(call_id, provider), name="signals together")
        self._journeys.add(journey)
        journey.add_done_callback(self._journeys.discard)

    async def _carry(self, call_id: str, provider: str) -> None:
        waiting = self._lanes[call_id]
        try:
            while together := _board(waiting):
                await self._send(call_id, provider, together)
        finally:
            # Nobody may be left waiting, even if this task is cancelled.
            self._turn_away(call_id)
            del self._lanes[call_id]

    async def _send(self, call_id: str, provider: str, together: list[QueuedMessage]) -> None:
        try:
            signalled = await self._calls.signal(
                call_id,
                provider,
                [passenger.message for passenger in together],
                [passenger.traceparent for passenger in together],
            )
        except EngineUnavailableError:
            # Those behind would wait as long for nothing.
            _fail(together)
            self._turn_away(call_id)
        except BaseException:
            _fail(together)
            raise
        else:
            if signalled is Signalled.REFUSED and len(together) > 1:
                # One of them may be what the engine does not take.
                for passenger in together:
                    await self._send(call_id, provider, [passenger])
                return
            for passenger in together:
                if not passenger.durable.done():
                    passenger.durable.set_result(signalled)

    def _turn_away(self, call_id: str) -> None:
        """Let the senders that wait know that the engine does not answer: the inbox is theirs."""
        waiting = self._lanes[call_id]
        _fail(list(waiting))
        waiting.clear()


def _board(waiting: deque[QueuedMessage]) -> list[QueuedMessage]:
    """Who travels next: in the order they came, as many as one signal takes."""
    together: list[QueuedMessage] = []
    size = 0
    while waiting and len(together) < MOST_TOGETHER:
        passenger = waiting[0]
        if together and size + passenger.size > LARGEST_TOGETHER:
            break
        waiting.popleft()
        # Whoever has gone meanwhile is told nothing, and so has promised nothing.
        if not passenger.durable.cancelled():
            together.append(passenger)
            size += passenger.size
    return together


def _fail(passengers: list[QueuedMessage]) -> None:
    for passenger in passengers:
        if not passenger.durable.done():
            passenger.durable.set_exception(EngineUnavailableError("the engine does not answer"))
