"""The ledger's side of a batch: which calls it has taken, and what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ackbridge.clock import Clock
from ackbridge.contracts.batches import BatchCounts, ParkedSelection, Survey
from ackbridge.ledger.database.transactions import Database

from . import batch_claims, parked


class Batches:
    """Every method may be repeated, as those of `Ledger`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def survey(self, selection: ParkedSelection) -> Survey:
        """See what a batch that begins now will find; what dead batches have held is free again."""
        now = self._clock()
        await self._database.write(batch_claims.release_abandoned, selection.provider, now)
        kinds = await self._database.read(parked.count, selection, now)
        total = sum(kind.calls for kind in kinds)
        return Survey(total=min(total, selection.at_most or total), as_of=now)

    async def mark(
        self,
        batch: str,
        selection: ParkedSelection,
        as_of: datetime,
        limit: int,
        closed: frozenset[str] = frozenset(),
    ) -> list[str]:
        """Take calls for a batch, the oldest first; none that it had before, none that others have.

        Args:
            as_of: calls parked after this are left alone.
            limit: how many; the selection's own `at_most` is the caller's business.
            closed: operations to leave alone.
        """
        return await self._database.write(
            batch_claims.mark, batch, selection, as_of, closed, limit, self._clock()
        )

    async def pending(self, batch: str) -> list[str]:
        """The calls that are marked and not told yet, after a batch was interrupted."""
        return await self._database.write(batch_claims.pending, batch, self._clock())

    async def told(self, batch: str, ids: Sequence[str]) -> None:
        """The calls have the signal."""
        await self._database.write(batch_claims.told, batch, ids, self._clock())

    async def skip(self, batch: str, call_id: str) -> None:
        """The engine knows no such open call."""
        await self._database.write(batch_claims.skip, batch, call_id, self._clock())

    async def settle(self, batch: str) -> int:
        """See which calls have ended or are parked again; how many are still under way."""
        now = self._clock()
        under_way, ended = await self._database.read(batch_claims.under_way, batch, now)
        if ended:
            await self._database.write(batch_claims.keep_ends, batch, ended, now)
        return under_way

    async def release(self, batch: str) -> None:
        """Give back the calls that were marked and not told."""
        await self._database.write(batch_claims.release, batch, self._clock())

    async def counts(self, batch: str) -> BatchCounts:
        """How far a batch is."""
        return await self._database.read(batch_claims.counts, batch)
