"""A flag switched off in the middle: calls are parked with a notice; switched on, they drain."""

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
from ackbridge.errors import AckbridgeError, CallError

from .caller_scripts import OPERATOR
from .load import PATIENCE, LoadTally
from .records import PROVIDER, Archive

OPERATION = "create_booking"
AT_FIRST = 10
"""Bookings before the flag is switched."""
KEPT_BACK = 10
"""Bookings that are parked before it is switched on again."""
RATE = 50.0
"""Calls per second that the batch takes up: a handful shall not take longer than the flag."""
LOOK_EVERY = 0.3
"""Seconds until the next batch, while a worker does not know yet that the flag is on."""


@dataclass
class Switching:
    """What happened, and what it was seen by.

    Attributes:
        tally: every booking.
        passed: how many were sent after the order was given, before every worker knew.
        known_within: from the order to the first booking that was parked.
        parked: by call id, the status of each that was parked.
        batch: the one that has taken the last of them up.
        drained_within: from switching it on to the end of the last of them.
        changes: what the control has answered.
        sent: ids of those that the provider had got while it was switched off; there must be none.
    """

    tally: LoadTally = field(default_factory=lambda: LoadTally("sandbox: booking", []))
    passed: int = 0
    known_within: timedelta = timedelta(0)
    parked: dict[str, CallStatus] = field(default_factory=dict)
    batch: str = ""
    drained_within: timedelta = timedelta(0)
    changes: list[ControlChange] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    @property
    def troubles(self) -> Iterator[str]:
        """What is not as it should be."""
        yield from self.tally.troubles
        if len(self.parked) < KEPT_BACK:
            yield f"only {len(self.parked)} bookings were parked while {OPERATION} was off"
        for call_id in self.sent:
            yield f"{call_id}: sent while {OPERATION} was off"


async def switch(archive: Archive, run: str, environment: str) -> Switching:
    """Book, switch the flag off, book on, switch it on, and drain what was parked."""
    played = Switching()
    try:
        # An interrupted run may have left it off.
        await _say(archive, played, environment, "default", "the demo begins")
        await _play(archive, run, environment, played)
        await _say(archive, played, environment, "default", "the demo is over")
    except (AckbridgeError, TimeoutError) as error:
        played.tally.troubles.append(f"switching: {error or type(error).__name__}")
    return played


async def _play(archive: Archive, run: str, environment: str, played: Switching) -> None:
    requests = (_request(run, number) for number in itertools.count())
    for _ in range(AT_FIRST):
        await _book(archive, next(requests), played)
    await _say(archive, played, environment, "off", "their reception does not answer")
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while len(played.parked) < KEPT_BACK:
            status = await _book(archive, next(requests), played)
            if status.stage is Stage.PARKED and not played.known_within:
                played.known_within = timedelta(seconds=time.monotonic() - began)
            played.passed += status.stage is not Stage.PARKED
    played.sent = [one for one in played.parked if await archive.works(one)]
    await _say(archive, played, environment, "on", "they are back")
    began = time.monotonic()
    await _drain(archive, played)
    played.drained_within = timedelta(seconds=time.monotonic() - began)


async def _book(archive: Archive, request: CallRequest, played: Switching) -> CallStatus:
    status = await archive.calls.start_and_wait(request, PATIENCE)
    played.tally.requests = [*played.tally.requests, request]
    if status.stage is Stage.PARKED:
        played.parked[request.call_id] = status
    else:
        await _end(archive, request.call_id, played)
    return status


async def _drain(archive: Archive, played: Switching) -> None:
    """Have the parked ones sent, by a batch that finds the flag on: workers know within seconds."""
    keys = tuple(names.split_call_id(call_id)[2] for call_id in played.parked)
    selection = ParkedSelection(provider=PROVIDER, operation=OPERATION, keys=keys)
    wanted = BatchRequest(selection=selection, rate=RATE, by=OPERATOR, reason="they are back")
    done = 0
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while done < len(played.parked):
            await asyncio.sleep(LOOK_EVERY)
            batch = await archive.calls.reprocess_parked(wanted)
            ended = await batch.result()
            done += ended.counts.completed
            played.batch = ended.batch
    for call_id in played.parked:
        await _end(archive, call_id, played)


async def _end(archive: Archive, call_id: str, played: Switching) -> None:
    try:
        played.tally.outcomes.append(
            await archive.calls.call(call_id).outcome(PATIENCE, settled=True)
        )
    except CallError as error:
        played.tally.troubles.append(f"{call_id}: {error}")


async def _say(
    archive: Archive, played: Switching, environment: str, state: str, reason: str
) -> None:
    order = SetFlag.model_validate(
        {
            "operation": OPERATION,
            "environment": environment,
            "state": state,
            "by": OPERATOR,
            "reason": reason,
        }
    )
    change = await archive.calls.control(PROVIDER).set_flag(order)
    if change is not None and change.before != change.after:
        played.changes.append(change)


def _request(run: str, number: int) -> CallRequest:
    return CallRequest(
        provider=PROVIDER,
        operation=OPERATION,
        key=f"demo-{run}-switched-{number}",
        payload={"room": "attic", "nights": 2},
    )
