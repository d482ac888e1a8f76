"""The relay: start the calls that services have committed to an outbox."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import (
    AckbridgeError,
    InvalidRequestError,
    KeyReusedError,
    LedgerUnavailableError,
    UnavailableError,
)

from .rows import LEASE, OutboxRow, OutboxStore

log = logging.getLogger(__name__)

BATCH: Final = 100
"""Rows that one loop starts at the same time."""

LOOPS: Final = 2
"""While one waits for the engine, another reads and writes the database."""

POLL_INTERVAL: Final = timedelta(milliseconds=100)
"""How long an outbox that was empty is left alone."""

START_TIMEOUT: Final = LEASE * 2 / 3
"""A lease outlives the attempt to start its call."""

MIN_PAUSE: Final = timedelta(milliseconds=500)
MAX_PAUSE: Final = timedelta(seconds=10)
"""Between two attempts, while the engine or the database is away."""

DELETE_EVERY: Final = timedelta(minutes=1)

Start = Callable[[CallRequest], Awaitable[object]]
"""Starts a call, or finds the one with the same key and payload: `AckbridgeClient.start`."""


@dataclass
class RelayTotals:
    """What a relay has done since it started."""

    started: int = 0
    rejected: int = 0


@dataclass
class _Results:
    """What became of the rows of a batch."""

    started: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    postponed: dict[int, tuple[timedelta, str]] = field(default_factory=dict)
    is_engine_away: bool = False

    def postpone(self, row: OutboxRow, reason: str) -> None:
        self.postponed[row.id] = (_backoff(row.attempts), reason)


class Relay:
    """Starts the calls of one outbox; several relays may share it.

    A call is started first, and then its row is marked: whoever is killed between the two leaves
    the row to another relay, which finds the call under the same key.
    """

    def __init__(self, store: OutboxStore, start: Start, *, keep: timedelta) -> None:
        """Build it.

        Args:
            keep: rows whose calls were started are deleted after this.
        """
        self.totals = RelayTotals()
        self._store = store
        self._start = start
        self._keep = keep
        self._away: str | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set; the batches that have begun are finished."""
        await asyncio.gather(
            *(self._loop(stopping) for _ in range(LOOPS)), self._delete_regularly(stopping)
        )

    async def relay_batch(self, limit: int = BATCH) -> int:
        """Start the calls of the rows that are due, at most `limit`; returns how many rows.

        Raises:
            UnavailableError: the database does not answer, or the engine has started none of them.
        """
        if not await self._store.has_due():
            return 0
        if not (rows := await self._store.lease(limit)):
            return 0
        results = _Results()
        await asyncio.gather(*(self._relay(row, results) for row in rows))
        await self._store.store(results.started, results.rejected, results.postponed)
        self.totals.started += len(results.started)
        self.totals.rejected += len(results.rejected)
        if results.is_engine_away and not results.started:
            _, reason = next(iter(results.postponed.values()))
            raise UnavailableError(reason)
        return len(rows)

    async def _loop(self, stopping: asyncio.Event) -> None:
        failures = 0
        while not stopping.is_set():
            try:
                # One row asks for all whether the engine is back.
                number = await self.relay_batch(BATCH if failures == 0 else 1)
            except UnavailableError as error:
                self._note_away(str(error))
                await _sleep(_backoff(failures), stopping)
                failures += 1
                continue
            except Exception:
                # The relay runs as long as its process does.
                log.exception("relaying the outbox failed")
                await _sleep(MAX_PAUSE, stopping)
                continue
            if number:
                self._note_back()
                failures = 0
            else:
                await _sleep(POLL_INTERVAL, stopping)

    async def _relay(self, row: OutboxRow, results: _Results) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT.total_seconds()):
                await self._start(row.request())
        except (ValueError, InvalidRequestError, KeyReusedError) as error:
            # ValueError: of the request's fields, or a text that is not Unicode.
            results.rejected[row.id] = str(error)
            log.warning("not started: %s", error, extra={"call_id": row.call_id})
        except (UnavailableError, TimeoutError) as error:
            results.is_engine_away = True
            results.postpone(row, str(error) or "the engine did not answer in time")
        except AckbridgeError as error:
            results.postpone(row, str(error))
        except Exception as error:
            log.exception("a call cannot be started", extra={"call_id": row.call_id})
            results.postpone(row, f"internal error: {type(error).__name__}")
        else:
            results.started.append(row.id)

    async def _delete_regularly(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                while await self._store.delete_started(self._keep):
                    pass
            except LedgerUnavailableError as error:
                log.warning("started rows are not deleted: %s", error)
            await _sleep(min(DELETE_EVERY, max(self._keep, POLL_INTERVAL)), stopping)

    def _note_away(self, reason: str) -> None:
        if self._away is None:
            log.warning("rows wait in the outbox: %s", reason)
        self._away = reason

    def _note_back(self) -> None:
        if self._away is not None:
            log.info("the outbox is relayed again")
        self._away = None


def _backoff(failures: int) -> timedelta:
    return min(MIN_PAUSE * float(2 ** min(failures, 10)), MAX_PAUSE)


async def _sleep(pause: timedelta, stopping: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause.total_seconds()):
            await stopping.wait()
