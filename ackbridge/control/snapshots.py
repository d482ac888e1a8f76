"""The last snapshot of every provider's control, cached for about a second.

However many calls read it, each provider costs one request to the engine per interval; without
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
from typing import Final

from ackbridge.contracts.control import ControlSnapshot
from ackbridge.errors import AckbridgeError

log = logging.getLogger("ackbridge.control")

Fetch = Callable[[str], Awaitable[ControlSnapshot | None]]
"""Gets the snapshot of a provider; fails as an `AckbridgeError`."""

REFRESH_EVERY: Final = timedelta(seconds=1)
"""How often a snapshot is fetched while calls read it."""

MAX_WAIT: Final = timedelta(milliseconds=250)
"""How long a call waits for a fetch, when the snapshot is older than two intervals."""


@dataclass
class _Entry:
    """A cached snapshot, and when the last fetch, and the last that succeeded, began."""

    snapshot: ControlSnapshot | None = None
    fetched_at: float = float("-inf")
    valid_at: float = float("-inf")
    is_failing: bool = False
    fetching: asyncio.Task[None] | None = None


async def no_control(_provider: str) -> ControlSnapshot | None:
    """Fetches nothing: without control, integration files decide."""
    return None


class Snapshots:
    def __init__(
        self,
        fetch: Fetch = no_control,
        *,
        every: timedelta = REFRESH_EVERY,
        max_wait: timedelta = MAX_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._every = every.total_seconds()
        self._max_wait = max_wait.total_seconds()
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def latest(self, provider: str) -> ControlSnapshot | None:
        """The last snapshot, without fetching; None: the integration file decides."""
        entry = self._entries.get(provider)
        return entry.snapshot if entry else None

    async def snapshot(self, provider: str) -> ControlSnapshot | None:
        """The last snapshot, fetching the next one when the interval is over.

        Calls normally get the last one at once. The first call after a pause waits for the fetch,
        at most `max_wait`, and not while fetches fail.
        """
        entry = self._entries.setdefault(provider, _Entry())
        now = self._clock()
        if entry.fetching is None and now - entry.fetched_at >= self._every:
            entry.fetched_at = now
            entry.fetching = asyncio.create_task(self._refresh(provider, entry))
        is_old = now - entry.valid_at >= 2 * self._every
        if entry.fetching is not None and is_old and not entry.is_failing:
            await asyncio.wait([entry.fetching], timeout=self._max_wait)
        return entry.snapshot

    async def close(self) -> None:
        fetching = [entry.fetching for entry in self._entries.values() if entry.fetching]
        for task in fetching:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*fetching, return_exceptions=True)

    async def _refresh(self, provider: str, entry: _Entry) -> None:
        try:
            snapshot = await self._fetch(provider)
        except Exception as error:
            # Calls go on, whatever it is.
            reason = error if isinstance(error, AckbridgeError) else repr(error)
            if not entry.is_failing:
                log.warning("control of %s: %s; using %s", provider, reason, _describe(entry))
            entry.is_failing = True
        else:
            if entry.is_failing:
                log.warning("control of %s answers again", provider)
            entry.is_failing = False
            entry.valid_at = entry.fetched_at
            # A control that has just started has not published one yet.
            entry.snapshot = snapshot or entry.snapshot
        finally:
            entry.fetching = None


def _describe(entry: _Entry) -> str:
    if entry.snapshot is None:
        return "the integration file"
    return f"its last snapshot, version {entry.snapshot.version}"
