"""An outage: bookings are parked, and a batch takes them up again, with a progress bar."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ackbridge.client.batches import BatchHandle
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection
from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import AckbridgeError, CallError
from ackbridge.terminal import output

from .caller_scripts import OPERATOR
from .load import PATIENCE, LoadTally
from .records import PROVIDER, Archive
from .scenario_run import until

OPERATION = "create_booking"
BOOKINGS = 24
SENDS = 5
"""How often a booking is sent before it is parked: `receipt.attempts`."""
RATE = 8.0
"""Calls per second."""
LOOK_EVERY = 0.3
"""Seconds between two looks at the batch."""


@dataclass
class Outage:
    """What happened.

    Attributes:
        tally: every booking.
        done: how the batch has ended; None: it has not.
        reasons: why the bookings were parked, as the ledger had it.
    """

    tally: LoadTally
    done: BatchProgress | None = None
    reasons: Sequence[str] = ()

    @property
    def troubles(self) -> Iterator[str]:
        """What is not as it should be."""
        yield from self.tally.troubles
        if self.done is not None and self.done.counts.completed != BOOKINGS:
            yield f"{self.done.batch}: {self.done.counts}, expected {BOOKINGS} completed"


async def strike(archive: Archive, run: str) -> Outage:
    """Book while nobody answers, until all are parked; then take them up again."""
    requests = [_request(run, number) for number in range(BOOKINGS)]
    outage = Outage(LoadTally("sandbox: booking, in an outage", requests))
    selection = ParkedSelection(provider=PROVIDER, keys=tuple(one.key for one in requests))

    async def all_are_parked() -> bool:
        kinds = await archive.ledger.batches.count_parked(selection)
        outage.reasons = [kind.reason for kind in kinds]
        return sum(kind.calls for kind in kinds) == BOOKINGS

    try:
        await asyncio.gather(*(archive.calls.start(request) for request in requests))
        await until(all_are_parked)
        wanted = BatchRequest(selection=selection, rate=RATE, by=OPERATOR, reason="they are back")
        outage.done = await _follow(await archive.calls.reprocess_parked(wanted))
        for request in requests:
            await _end(archive, request, outage)
    except (AckbridgeError, TimeoutError) as error:
        outage.tally.troubles.append(f"outage: {error or type(error).__name__}")
    return outage


async def _follow(batch: BatchHandle) -> BatchProgress:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        return await output.watch(
            batch.progress,
            lambda progress: output.batch_table([progress]),
            lambda progress: progress.state.is_final,
            interval=LOOK_EVERY,
            transient=False,
        )


async def _end(archive: Archive, request: CallRequest, outage: Outage) -> None:
    try:
        call = archive.calls.call(request.call_id)
        outage.tally.outcomes.append(await call.outcome(PATIENCE, settled=True))
    except CallError as error:
        outage.tally.troubles.append(f"{request.call_id}: {error}")


def _request(run: str, number: int) -> CallRequest:
    return CallRequest(
        provider=PROVIDER,
        operation=OPERATION,
        key=f"demo-{run}-outage-{number}",
        payload={"room": "attic", "nights": 2, "behaviour": {"receipt_failures": SENDS}},
    )
