"""The keys of the callbacks this process has seen lately, so that a duplicate costs nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Key = tuple[str, str]
"""Provider and event key."""


class RecentKeys:
    """Lets one through per key; the others wait until it is durable, or take over if it fails.

    For one event loop only. What several gateways get at once, the engine and the ledger stop.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        """Remember the `capacity` keys used last (about 200 bytes each)."""
        self._capacity = capacity
        self._done: OrderedDict[Key, None] = OrderedDict()
        self._in_hand: dict[Key, asyncio.Event] = {}

    @asynccontextmanager
    async def claim(self, key: Key) -> AsyncIterator[bool]:
        """Claim a key for as long as the block runs.

        Gives true to the one that has to do the work: the key stays when its block ends well, and
        is released when it raises. Gives false once somebody else has done it.
        """
        while (in_hand := self._in_hand.get(key)) is not None:
            await in_hand.wait()
        if key in self._done:
            self._done.move_to_end(key)
            yield False
            return
        self._in_hand[key] = asyncio.Event()
        try:
            yield True
            self._remember(key)
        finally:
            self._in_hand.pop(key).set()

    def _remember(self, key: Key) -> None:
        self._done[key] = None
        if len(self._done) > self._capacity:
            self._done.popitem(last=False)
