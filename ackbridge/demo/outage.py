"""An outage of the provider: bookings are parked, and a batch reprocesses them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ackbridge.client.batches import BatchHandle
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection
from ackbridge.errors import AckbridgeError
from ackbridge.terminal import output

from .load import TIMEOUT, LoadResult, booking
from .records import OPERATOR, PROVIDER, RecordSources
from .scenario_run import wait_until

BOOKINGS = 24
ATTEMPTS = 5
"""Attempts of a booking before it is parked: `receipt.attempts`."""
RATE = 8.0
"""Calls per second of the batch."""


@dataclass
class OutageResult:
    """What happened; without `progress`, the batch has not ended."""

    load: LoadResult
    progress: BatchProgress | None = None
    reasons: Sequence[str] = ()

    @property
    def problems(self) -> Iterator[str]:
        yield from self.load.errors
        if self.progress is not None and self.progress.counts.completed != BOOKINGS:
            counts = self.progress.counts
            yield f"{self.progress.batch}: {counts}, expected {BOOKINGS} completed"


async def run_outage(sources: RecordSources, run: str) -> OutageResult:
    """Make bookings that get no receipt, until all are parked; then reprocess them."""
    faults = {"receipt_failures": ATTEMPTS}
    requests = [
        booking(f"demo-{run}-outage-{number}", behaviour=faults) for number in range(BOOKINGS)
    ]
    result = OutageResult(LoadResult("sandbox: booking, in an outage", requests))
    selection = ParkedSelection(provider=PROVIDER, keys=tuple(one.key for one in requests))

    async def all_are_parked() -> bool:
        counts = await sources.ledger.batches.count_parked(selection)
        result.reasons = [count.reason for count in counts]
        return sum(count.calls for count in counts) == BOOKINGS

    try:
        await asyncio.gather(*(sources.calls.start(request) for request in requests))
        await wait_until(all_are_parked)
        batch = BatchRequest(
            selection=selection, rate=RATE, by=OPERATOR, reason="their API answers again"
        )
        result.progress = await _watch(await sources.calls.reprocess_parked(batch))
        for request in requests:
            await result.load.add_outcome(sources.calls.call(request.call_id))
    except (AckbridgeError, TimeoutError) as error:
        result.load.errors.append(f"outage: {error or type(error).__name__}")
    return result


async def _watch(batch: BatchHandle) -> BatchProgress:
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        return await output.watch(
            batch.progress,
            lambda progress: output.batch_table([progress]),
            lambda progress: progress.state.is_final,
        )
