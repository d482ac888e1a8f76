"""What a worker knows of its providers' controls: looked at about every second, never in the way.

Reading it is one request to the engine per provider and interval, however many calls ask; without
calls there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from ackbridge.contracts.control import ControlSnapshot
from ackbridge.errors import AckbridgeError

log = logging.getLogger("ackbridge.control")

Fetch = Callable[[str], Awaitable[ControlSnapshot | None]]
"""Gets the snapshot of a provider; fails as an `AckbridgeError`."""

EVERY = timedelta(seconds=1)
"""How often a control is looked at while calls ask for it."""

PATIENCE = timedelta(milliseconds=250)
"""How long a call waits for a look, when nobody has looked for twice the interval."""


@dataclass
class _Seen:
    """What is known of one provider; times are of the monotonic clock.

    Attributes:
        asked_at: when the last look began.
        known_at: when the last look that succeeded began.
        is_lost: whether the last look failed.
    """

    snapshot: ControlSnapshot | None = None
    asked_at: float = float("-inf")
    known_at: float = float("-inf")
    is_lost: bool = False
    looking: asyncio.Task[None] | None = None


async def nothing(_provider: str) -> ControlSnapshot | None:
    """Where there is no control, the integration files hold."""
    return None


class Snapshots:
    """The last snapshot of every provider."""

    def __init__(
        self,
        fetch: Fetch = nothing,
        *,
        every: timedelta = EVERY,
        patience: timedelta = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._every = every.total_seconds()
        self._patience = patience.total_seconds()
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def latest(self, provider: str) -> ControlSnapshot | None:
        """The last one that was seen; None: none was, and the integration file holds."""
        seen = self._seen.get(provider)
        return seen.snapshot if seen else None

    async def snapshot(self, provider: str) -> ControlSnapshot | None:
        """As `latest`, after a look if it is time for one.

        While calls come, they take the last one and the next is on its way. The first call after
        a pause waits for it, but never longer than a blink, and not while looks fail.
        """
        seen = self._seen.setdefault(provider, _Seen())
        now = self._clock()
        if seen.looking is None and now - seen.asked_at >= self._every:
            seen.asked_at = now
            seen.looking = asyncio.create_task(self._look(provider, seen))
        is_old = now - seen.known_at >= 2 * self._every
        if seen.looking is not None and is_old and not seen.is_lost:
            await asyncio.wait([seen.looking], timeout=self._patience)
        return seen.snapshot

    async def close(self) -> None:
        """Look no more."""
        looking = [seen.looking for seen in self._seen.values() if seen.looking is not None]
        for task in looking:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, provider: str, seen: _Seen) -> None:
        try:
            found = await self._fetch(provider)
        except Exception as error:
            # Whatever it is, calls go on.
            known = error if isinstance(error, AckbridgeError) else repr(error)
            if not seen.is_lost:
                log.warning("control of %s: %s; going on with %s", provider, known, _last(seen))
            seen.is_lost = True
        else:
            if seen.is_lost:
                log.warning("control of %s: it answers again", provider)
            seen.is_lost = False
            seen.known_at = seen.asked_at
            # One that has just been started has nothing to say yet.
            seen.snapshot = found or seen.snapshot
        finally:
            seen.looking = None


def _last(seen: _Seen) -> str:
    if seen.snapshot is None:
        return "what the integration file says"
    return f"its last snapshot, version {seen.snapshot.version}"
