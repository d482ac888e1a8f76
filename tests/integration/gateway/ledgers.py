"""Ledgers that inject an event or a failure at one precise moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.database.transactions import open_database
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.rows import InboxEntry, InboxState

from .world import ENVIRON, now

L = TypeVar("L", bound=Ledger)


def open_as(kind: type[L], url: str) -> L:
    """Open a ledger of this class."""
    return kind(open_database(url, timedelta(seconds=10)), now)


class RacingLedger(Ledger):
    """The call commits its reference just before the gateway writes its row."""

    call_id: str

    async def keep(self, entry: InboxEntry) -> bool:
        """Commit the reference first."""
        assert entry.reference is not None
        await self.commit_reference(self.call_id, entry.provider, entry.reference)
        return await super().keep(entry)


class FailingOnceLedger(Ledger):
    """The first `keep` waits for `fail` to be set, and fails."""

    def begin(self) -> None:
        """Create the events, in the event loop of the test."""
        self.reached = asyncio.Event()
        self.fail = asyncio.Event()

    async def keep(self, entry: InboxEntry) -> bool:
        """Fail once."""
        if not self.reached.is_set():
            self.reached.set()
            await self.fail.wait()
            raise LedgerUnavailableError("the disk is full")
        return await super().keep(entry)


class ObservedLedger(Ledger):
    """Reports the arguments of the first `settle`."""

    recorded_meanwhile = False

    def begin(self) -> None:
        """Create the events, in the event loop of the test."""
        self.settled: asyncio.Future[tuple[InboxState, str | None]] = asyncio.Future()

    async def is_recorded(self, provider: str, event_key: str) -> bool:
        """Whether it is recorded, or pretended to be."""
        return self.recorded_meanwhile or await super().is_recorded(provider, event_key)

    async def settle(
        self, ids: Sequence[int], state: InboxState, reason: str | None = None
    ) -> None:
        """Settle, and report the first one."""
        await super().settle(ids, state, reason)
        if not self.settled.done():
            self.settled.set_result((state, reason))


class CountingEnviron(Mapping[str, str]):
    """The secrets, and an event that is set when a second callback is verified."""

    def __init__(self) -> None:
        self._lookups = 0
        self.twice = asyncio.Event()

    def __getitem__(self, name: str) -> str:
        if name == "ACME_SECRET":
            self._lookups += 1
            if self._lookups > 1:
                self.twice.set()
        return ENVIRON[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ENVIRON)

    def __len__(self) -> int:
        return len(ENVIRON)
