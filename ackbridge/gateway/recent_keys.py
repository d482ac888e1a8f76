"""The keys of the callbacks this process has seen lately, so that a duplicate costs nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

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
        # Made only once somebody waits: hardly anybody ever does.
        self._in_hand: dict[Key, asyncio.Event | None] = {}

    async def claim(self, key: Key) -> bool:
        """Claim a key, to be given back with `keep` or `release` whatever happens.

        Returns:
            True for the one that has to do the work; false once somebody else has done it, and
            then there is nothing to give back.
        """
        while key in self._in_hand:
            in_hand = self._in_hand[key]
            if in_hand is None:
                in_hand = self._in_hand[key] = asyncio.Event()
            await in_hand.wait()
        if key in self._done:
            self._done.move_to_end(key)
            return False
        self._in_hand[key] = None
        return True

    def keep(self, key: Key) -> None:
        """The work is done: later ones are duplicates."""
        self._done[key] = None
        if len(self._done) > self._capacity:
            self._done.popitem(last=False)
        self.release(key)

    def release(self, key: Key) -> None:
        """The work is not done: the next one has to do it."""
        in_hand = self._in_hand.pop(key)
        if in_hand is not None:
            in_hand.set()
