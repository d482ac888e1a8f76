"""A flag is switched off and on again: calls are parked with a notice, and then reprocessed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchRequest, ParkedSelection
from ackbridge.contracts.calls import CallRequest, CallStatus, Stage
from ackbridge.contracts.control import ControlChange, SetFlag
from ackbridge.errors import AckbridgeError

from .load import TIMEOUT, LoadResult, booking
from .records import OPERATOR, PROVIDER, RecordSources

OPERATION = "create_booking"
CALLS_BEFORE = 10
"""Bookings before the flag is switched off."""
PARKED_CALLS = 10
"""Bookings that are parked before it is switched on again."""
RATE = 50.0
"""Calls per second of the batch: faster than the change of the flag takes effect."""
BATCH_INTERVAL = 0.3
"""Seconds until the next batch, while a worker does not have the new flag yet."""


@dataclass
class FlagSwitchResult:
    load: LoadResult = field(default_factory=lambda: LoadResult("sandbox: booking", []))
    passed: int = 0  # bookings that were sent after the change, before every worker had it
    # From the change to the first booking that was parked.
    effective_after: timedelta = timedelta(0)
    # By call id, the status of each parked booking.
    parked: dict[str, CallStatus] = field(default_factory=dict)
    batch: str = ""  # the batch that reprocessed the last of them
    # From switching it on to the end of the last parked booking.
    reprocessed_after: timedelta = timedelta(0)
    changes: list[ControlChange] = field(default_factory=list)
    # Call ids that the provider received while the flag was off; there must be none.
    sent: list[str] = field(default_factory=list)

    @property
    def problems(self) -> Iterator[str]:
        yield from self.load.errors
        if len(self.parked) < PARKED_CALLS:
            yield f"only {len(self.parked)} bookings were parked while {OPERATION} was off"
        for call_id in self.sent:
            yield f"{call_id}: sent while {OPERATION} was off"


async def run_flag_switch(sources: RecordSources, run: str, environment: str) -> FlagSwitchResult:
    """Make bookings, also while the flag is off, and reprocess those that were parked."""
    result = FlagSwitchResult()
    try:
        # An interrupted run may have left it off.
        await _set_flag(sources, result, environment, "default", "the demo begins")
        await _run(sources, run, environment, result)
        await _set_flag(sources, result, environment, "default", "the demo is over")
    except (AckbridgeError, TimeoutError) as error:
        result.load.errors.append(f"flag: {error or type(error).__name__}")
    return result


async def _run(
    sources: RecordSources, run: str, environment: str, result: FlagSwitchResult
) -> None:
    requests = (booking(f"demo-{run}-switched-{number}") for number in itertools.count())
    for _ in range(CALLS_BEFORE):
        await _book(sources, next(requests), result)
    await _set_flag(sources, result, environment, "off", "their API does not answer")
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        while len(result.parked) < PARKED_CALLS:
            status = await _book(sources, next(requests), result)
            if status.stage is Stage.PARKED and not result.effective_after:
                result.effective_after = timedelta(seconds=time.monotonic() - began)
            result.passed += status.stage is not Stage.PARKED
    result.sent = [call_id for call_id in result.parked if await sources.works(call_id)]
    await _set_flag(sources, result, environment, "on", "their API answers again")
    began = time.monotonic()
    await _reprocess(sources, result)
    result.reprocessed_after = timedelta(seconds=time.monotonic() - began)


async def _book(
    sources: RecordSources, request: CallRequest, result: FlagSwitchResult
) -> CallStatus:
    status = await sources.calls.start_and_wait(request, TIMEOUT)
    result.load.requests = [*result.load.requests, request]
    if status.stage is Stage.PARKED:
        result.parked[request.call_id] = status
    else:
        await result.load.add_outcome(sources.calls.call(request.call_id))
    return status


async def _reprocess(sources: RecordSources, result: FlagSwitchResult) -> None:
    """Start batches until one finds the flag on: workers have it within seconds."""
    keys = tuple(names.split_call_id(call_id)[2] for call_id in result.parked)
    selection = ParkedSelection(provider=PROVIDER, operation=OPERATION, keys=keys)
    request = BatchRequest(
        selection=selection, rate=RATE, by=OPERATOR, reason="their API answers again"
    )
    done = 0
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        while done < len(result.parked):
            await asyncio.sleep(BATCH_INTERVAL)
            batch = await sources.calls.reprocess_parked(request)
            progress = await batch.result()
            done += progress.counts.completed
            result.batch = progress.batch
    for call_id in result.parked:
        await result.load.add_outcome(sources.calls.call(call_id))


async def _set_flag(
    sources: RecordSources, result: FlagSwitchResult, environment: str, state: str, reason: str
) -> None:
    request = SetFlag.model_validate(
        {
            "operation": OPERATION,
            "environment": environment,
            "state": state,
            "by": OPERATOR,
            "reason": reason,
        }
    )
    change = await sources.calls.control(PROVIDER).set_flag(request)
    if change is not None and change.before != change.after:
        result.changes.append(change)
