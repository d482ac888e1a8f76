"""Killing parts of the stack as the script says, and starting them again like a supervisor does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

from ackbridge.errors import AckbridgeError
from ackbridge.local.stack import Stack

from .script import Kill

LOOK_EVERY = 1.0
"""Seconds between two looks whether every part still runs."""

RESTART_WITHIN = 120.0
"""Seconds in which a part has to come back; others may be away meanwhile."""


class Begun:
    """How many calls have been begun, for whoever waits for a number of them."""

    def __init__(self) -> None:
        self.count = 0
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def one_more(self) -> None:
        """Another call has been begun."""
        async with self._changed:
            self.count += 1
            self._changed.notify_all()

    async def close(self) -> None:
        """There will be no more."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def reached(self, number: int) -> bool:
        """Wait for so many; false when there will never be so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= number or self._is_closed)
            return self.count >= number


class Killer:
    """Kills by the number of calls begun; a supervisor of what dies by itself.

    Attributes:
        kills: by part.
        deaths: parts that ended by themselves after they had been ready, a line each.
        log: what was done, in order.
    """

    def __init__(self, stack: Stack, supervised: tuple[str, ...]) -> None:
        """Take the stack, and the parts that may come and go."""
        self._stack = stack
        self._supervised = supervised
        self._away: set[str] = set()
        self._reviving: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self.kills: Counter[str] = Counter()
        self.deaths: list[str] = []
        self.log: list[str] = []

    async def run(self, kills: Iterator[Kill], begun: Begun) -> None:
        """Kill for as long as calls are begun."""
        for kill in kills:
            if not await begun.reached(kill.after):
                return
            await self._kill(kill)

    async def supervise(self) -> None:
        """Start what ended by itself, until cancelled.

        Raises:
            PartDied: one that nobody may lose, such as the provider, which is a record.
        """
        while True:
            for part in self._supervised:
                if part not in self._away and not self._stack.is_running(part):
                    self._note(f"{part} ended by itself")
                    self.deaths.append(self.log[-1])
                    self._revive(part, 0.0)
            await asyncio.sleep(LOOK_EVERY)

    async def everything_back(self) -> None:
        """Wait until every part is up again.

        Raises:
            AckbridgeError: one does not come back.
        """
        while self._reviving:
            await asyncio.gather(*self._reviving)

    async def _kill(self, kill: Kill) -> None:
        """Kill together what is up together: whoever is away is waited for."""
        while self._away.intersection(kill.parts):
            await asyncio.wait(self._reviving, return_when=asyncio.FIRST_COMPLETED)
        self._away.update(kill.parts)
        await asyncio.gather(*(asyncio.to_thread(self._stack.kill, part) for part in kill.parts))
        self.kills.update(kill.parts)
        self._note(f"kill {kill.number} after {kill.after} calls: {', '.join(kill.parts)}")
        for part in kill.parts:
            self._revive(part, kill.down)

    def _revive(self, part: str, after: float) -> None:
        self._away.add(part)
        task = asyncio.create_task(self._start_again(part, after))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _start_again(self, part: str, after: float) -> None:
        await asyncio.sleep(after)
        until = time.monotonic() + RESTART_WITHIN
        while True:
            try:
                await asyncio.to_thread(self._stack.restart, part)
            except AckbridgeError as error:
                if time.monotonic() > until:
                    raise
                self._note(f"{part} did not start: {type(error).__name__}")
                await asyncio.sleep(0.5)
            else:
                break
        self._note(f"{part} is back")
        self._away.discard(part)

    def _note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:7.2f} s  {what}")
