"""Kill processes of the stack as planned, and restart them like a supervisor."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from ackbridge.errors import AckbridgeError
from ackbridge.local.processes import StackProcess
from ackbridge.local.stack import Stack

from .workload import Kill

LOOK_EVERY = 1.0
"""Seconds between two checks that every process still runs."""

RESTART_WITHIN = 120.0
"""Seconds in which a process must be ready again; others may be down meanwhile."""


STOP_TIMEOUT = timedelta(seconds=10)


class Parts:
    """The parts of a stack, and processes of this run beside them, by name."""

    def __init__(self, stack: Stack, *others: StackProcess) -> None:
        self._stack = stack
        self._others = {other.name: other for other in others}

    def is_running(self, part: str) -> bool:
        other = self._others.get(part)
        return self._stack.is_running(part) if other is None else other.is_running

    def kill(self, part: str) -> None:
        """Kill it with SIGKILL; returns after its end."""
        other = self._others.get(part)
        if other is None:
            self._stack.kill(part)
        elif other.is_running:
            other.kill(signal.SIGKILL)

    def restart(self, part: str) -> None:
        """Start it again, and return when it is ready; raises `AckbridgeError`."""
        other = self._others.get(part)
        if other is None:
            self._stack.restart(part)
        else:
            other.stop(STOP_TIMEOUT)
            other.start()


class StartedCalls:
    """Counts the calls that were started; others can wait for a number of them."""

    def __init__(self) -> None:
        self.count = 0
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def one_more(self) -> None:
        """Count one more call."""
        async with self._changed:
            self.count += 1
            self._changed.notify_all()

    async def close(self) -> None:
        """Declare that no more calls will be started."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def reached(self, number: int) -> bool:
        """Wait for that many calls; false if that many will never be started."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= number or self._is_closed)
            return self.count >= number


class ProcessKiller:
    """Kills processes after a number of started calls, and restarts those that end by themselves.

    Attributes:
        kills: by part.
        deaths: one line for each process that ended by itself after it had been ready.
        log: kills and restarts, in order.
    """

    def __init__(self, parts: Parts, supervised: tuple[str, ...]) -> None:
        """Prepare; `supervised` names the processes that may be restarted."""
        self._parts = parts
        self._supervised = supervised
        self._down: set[str] = set()
        self._reviving: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self.kills: Counter[str] = Counter()
        self.deaths: list[str] = []
        self.log: list[str] = []

    async def run(self, kills: Iterator[Kill], begun: StartedCalls) -> None:
        """Kill for as long as calls are started."""
        for kill in kills:
            if not await begun.reached(kill.after):
                return
            await self._kill(kill)

    async def supervise(self) -> None:
        """Restart processes that ended by themselves, until cancelled.

        Raises:
            ProcessDiedError: one that must survive, such as the provider, which is a record.
        """
        while True:
            for part in self._supervised:
                if part not in self._down and not self._parts.is_running(part):
                    self._note(f"{part} ended by itself")
                    self.deaths.append(self.log[-1])
                    self._revive(part, 0.0)
            await asyncio.sleep(LOOK_EVERY)

    async def everything_back(self) -> None:
        """Wait until every process is ready again.

        Raises:
            AckbridgeError: one does not become ready.
        """
        while self._reviving:
            await asyncio.gather(*self._reviving)

    async def _kill(self, kill: Kill) -> None:
        """Kill several processes at once; wait first for those that are still restarting."""
        while self._down.intersection(kill.parts):
            await asyncio.wait(self._reviving, return_when=asyncio.FIRST_COMPLETED)
        self._down.update(kill.parts)
        await asyncio.gather(*(asyncio.to_thread(self._parts.kill, part) for part in kill.parts))
        self.kills.update(kill.parts)
        self._note(f"kill {kill.number} after {kill.after} calls: {', '.join(kill.parts)}")
        for part in kill.parts:
            self._revive(part, kill.down)

    def _revive(self, part: str, after: float) -> None:
        self._down.add(part)
        task = asyncio.create_task(self._start_again(part, after))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _start_again(self, part: str, after: float) -> None:
        await asyncio.sleep(after)
        until = time.monotonic() + RESTART_WITHIN
        while True:
            try:
                await asyncio.to_thread(self._parts.restart, part)
            except AckbridgeError as error:
                if time.monotonic() > until:
                    raise
                self._note(f"{part} did not start: {type(error).__name__}")
                await asyncio.sleep(0.5)
            else:
                break
        self._note(f"{part} is back")
        self._down.discard(part)

    def _note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:7.2f} s  {what}")
