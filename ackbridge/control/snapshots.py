"""The last snapshot of every provider's control, cached for about a second.

However many calls read it, each provider costs one request to the engine per interval; without
calls there is none. While the engine does not answer at once, the control's copy in the ledger is
read instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ackbridge.contracts.control import ControlSnapshot
from ackbridge.errors import AckbridgeError

log = logging.getLogger("ackbridge.control")

Fetch = Callable[[str], Awaitable[ControlSnapshot | None]]
"""Gets the snapshot of a provider; fails as an `AckbridgeError`."""

REFRESH_EVERY: Final = timedelta(seconds=1)
"""How often a snapshot is read while calls need it."""

FRESH_FOR: Final = timedelta(seconds=1.75)
"""How long after a read has begun it counts. Whatever a control has published two seconds ago is
known, or known to be unknown."""

HEAD_START: Final = timedelta(milliseconds=250)
"""How long the engine has to answer before the ledger is read too."""

MAX_WAIT: Final = timedelta(seconds=1)
"""How long a call waits for a read when the last one does not count any more."""

PREFETCH_WITHIN: Final = timedelta(seconds=10)
"""How long a worker that starts tries to get the snapshots before it polls."""


@dataclass
class _Entry:
    """What is known about one provider.

    Attributes:
        looked_at: when the last refresh began.
        known_at: when the last read began that got an answer.
        looking: the refresh in progress; it ends with the first answer.
        fetching: the last request to the engine, which may outlast the refresh.
    """

    snapshot: ControlSnapshot | None = None
    looked_at: float = float("-inf")
    known_at: float = float("-inf")
    is_failing: bool = False
    looking: asyncio.Task[None] | None = None
    fetching: asyncio.Task[Exception | None] | None = None


async def no_control(_provider: str) -> ControlSnapshot | None:
    """Fetches nothing: without control, integration files decide."""
    return None


class Snapshots:
    """The snapshots, from the engine or else from the ledger; the newest one counts."""

    def __init__(
        self,
        fetch: Fetch = no_control,
        stored: Fetch | None = None,
        *,
        every: timedelta = REFRESH_EVERY,
        max_wait: timedelta = MAX_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the sources.

        Args:
            fetch: from the engine; None: the control has changed nothing yet.
            stored: the control's copy in the ledger; None: there is none, which says nothing.
            clock: in seconds.
        """
        self._fetch = fetch
        self._stored = stored
        self._every = every.total_seconds()
        self._max_wait = max_wait.total_seconds()
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def latest(self, provider: str) -> ControlSnapshot | None:
        """The last snapshot, without fetching; None: the integration file decides."""
        entry = self._entries.get(provider)
        return entry.snapshot if entry else None

    def is_known(self, provider: str) -> bool:
        """Whether `latest` has what the control published two seconds ago."""
        entry = self._entries.get(provider)
        return entry is not None and self._is_fresh(entry)

    async def snapshot(self, provider: str) -> ControlSnapshot | None:
        """The last snapshot, reading the next one when the interval is over.

        Calls normally get the last one at once. They wait for the next one where the last does not
        count any more, at most `max_wait`; `is_known` says whether it was there in time.
        """
        entry = self._entries.setdefault(provider, _Entry())
        now = self._clock()
        if entry.looking is None and now - entry.looked_at >= self._every:
            entry.looked_at = now
            entry.looking = asyncio.create_task(self._look(provider, entry))
        if entry.looking is not None and not self._is_fresh(entry):
            await asyncio.wait([entry.looking], timeout=self._max_wait)
        return entry.snapshot

    async def prefetch(self, providers: Iterable[str], within: timedelta = PREFETCH_WITHIN) -> None:
        """Read the snapshots of providers; for one that cannot be had in time, its calls ask."""
        names = sorted(providers)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                await asyncio.gather(*map(self._until_known, names))
        for name in names:
            if not self.is_known(name):
                log.warning("control of %s: not known before the first call", name)

    async def close(self) -> None:
        tasks = [
            task
            for entry in self._entries.values()
            for task in (entry.looking, entry.fetching)
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_known(self, provider: str) -> None:
        while True:
            await self.snapshot(provider)
            if self.is_known(provider):
                return
            await asyncio.sleep(self._every / 4)

    def _is_fresh(self, entry: _Entry) -> bool:
        return self._clock() - entry.known_at < FRESH_FOR.total_seconds()

    async def _look(self, provider: str, entry: _Entry) -> None:
        """Ask the engine, and the ledger if the engine does not answer at once."""
        try:
            if entry.fetching is None or entry.fetching.done():
                fetching = self._read(self._fetch, provider, entry, is_complete=True)
                entry.fetching = asyncio.create_task(fetching)
            done, _ = await asyncio.wait([entry.fetching], timeout=HEAD_START.total_seconds())
            problem = next((task.result() for task in done), None)
            if not done or problem is not None:
                await self._look_elsewhere(provider, entry, problem)
            elif entry.is_failing:
                log.warning("control of %s answers again", provider)
                entry.is_failing = False
        finally:
            entry.looking = None

    async def _look_elsewhere(
        self, provider: str, entry: _Entry, problem: Exception | None
    ) -> None:
        """Read the ledger; log once that the engine fails, or that neither answers."""
        version = entry.snapshot and entry.snapshot.version
        source = f"its last snapshot, version {version}" if version else "the integration file"
        other = problem
        if self._stored is not None:
            other = await self._read(self._stored, provider, entry, is_complete=False)
            if other is None and problem is None:
                return
            source = source if other else "the ledger's copy"
        if not entry.is_failing:
            reason = "does not answer in time" if problem is None else _describe(problem)
            log.warning("control of %s: %s; using %s", provider, reason, source)
        entry.is_failing = True

    async def _read(
        self, fetch: Fetch, provider: str, entry: _Entry, *, is_complete: bool
    ) -> Exception | None:
        """Read one source; the error, if there is no answer.

        Args:
            is_complete: whether no snapshot means that the control has changed nothing.
        """
        began = self._clock()
        try:
            snapshot = await fetch(provider)
        except Exception as error:
            return error
        if snapshot is None and not is_complete:
            return AckbridgeError("it has no copy yet")
        entry.known_at = max(entry.known_at, began)
        if snapshot is not None and _is_newer(snapshot, entry.snapshot):
            entry.snapshot = snapshot
        return None


def _is_newer(snapshot: ControlSnapshot, known: ControlSnapshot | None) -> bool:
    return known is None or (snapshot.at, snapshot.version) >= (known.at, known.version)


def _describe(problem: Exception) -> object:
    return problem if isinstance(problem, AckbridgeError) else repr(problem)
