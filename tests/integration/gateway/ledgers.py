"""Ledgers that inject an event or a failure at one precise moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from ackbridge.clock import Clock
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.database.engines import Database, open_database
from ackbridge.ledger.inbox import InboxEntry, InboxState
from ackbridge.ledger.ledger import Ledger

from .world import ENVIRON, now

L = TypeVar("L", bound=Ledger)


def open_as(kind: type[L], url: str) -> L:
    """Open a ledger of such a kind."""
    return kind(open_database(url, timedelta(seconds=10)), now)


class RacingLedger(Ledger):
    """The call commits its reference just before the gateway stores its message."""

    call_id: str

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, clock)
        store = self.inbox.store

        async def lose_the_race(entry: InboxEntry) -> bool:
            assert entry.reference is not None
            await self.calls.commit_reference(self.call_id, entry.provider, entry.reference)
            return await store(entry)

        self.inbox.store = lose_the_race  # type: ignore[method-assign]  # what the test is about


class FailingOnceLedger(Ledger):
    """The first message waits to be stored, and then fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, clock)
        self.reached = asyncio.Event()
        self.fail = asyncio.Event()
        store = self.inbox.store

        async def fail_once(entry: InboxEntry) -> bool:
            if not self.reached.is_set():
                self.reached.set()
                await self.fail.wait()
                raise LedgerUnavailableError("the disk is full")
            return await store(entry)

        self.inbox.store = fail_once  # type: ignore[method-assign]  # what the test is about


class ObservedLedger(Ledger):
    """Reports how the first message was settled; `recorded_meanwhile` simulates a faster call."""

    recorded_meanwhile = False

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, clock)
        self.settled: asyncio.Future[tuple[InboxState, str | None]] = asyncio.Future()
        is_event_recorded, settle = self.calls.is_event_recorded, self.inbox.settle

        async def is_recorded(provider: str, event_key: str) -> bool:
            return self.recorded_meanwhile or await is_event_recorded(provider, event_key)

        async def settle_and_report(
            ids: Sequence[int], state: InboxState, reason: str | None = None
        ) -> None:
            await settle(ids, state, reason)
            if not self.settled.done():
                self.settled.set_result((state, reason))

        self.calls.is_event_recorded = is_recorded  # type: ignore[method-assign]  # as above
        self.inbox.settle = settle_and_report  # type: ignore[method-assign]  # as above


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
