"""Many calls at once: what is made of them, and how long they take."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.errors import AckbridgeError
from ackbridge.terminal import output

AT_ONCE = 20
"""Calls in flight."""

PATIENCE = timedelta(minutes=2)


@dataclass
class LoadTally:
    """What became of one kind of calls.

    Attributes:
        latencies: seconds from start to outcome, as the caller sees them.
        troubles: what went wrong, a line a call.
    """

    title: str
    requests: Sequence[CallRequest]
    outcomes: list[CallOutcome] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def row(self) -> tuple[str, ...]:
        """For the table of the report."""
        return (
            self.title,
            str(len(self.requests)),
            str(len(self.outcomes)),
            str(len(self.troubles)),
            f"{_quantile(self.latencies, 50) * 1000:.0f} ms",
            f"{_quantile(self.latencies, 99) * 1000:.0f} ms",
            str(sum(outcome.attempts - 1 for outcome in self.outcomes)),
        )


def orders(run: str, count: int) -> LoadTally:
    """Calls of the four-step protocol."""
    requests = [
        CallRequest(
            provider="sandbox",
            operation="create_order",
            key=f"demo-{run}-{number}",
            payload={"amount": 100 + number, "currency": "EUR"},
        )
        for number in range(count)
    ]
    return LoadTally("sandbox: order, receipt, callback, acknowledgement", requests)


def payments(run: str, count: int) -> LoadTally:
    """Calls at a provider that we did not write."""
    requests = [
        CallRequest(
            provider="stripe",
            operation="create_payment",
            key=f"demo-{run}-{number}",
            payload={"amount": 1000 + number, "currency": "eur"},
        )
        for number in range(count)
    ]
    return LoadTally("localstripe: payment, signed webhook", requests)


async def make(client: AckbridgeClient, tallies: Sequence[LoadTally]) -> None:
    """Make all calls, showing how far they are."""
    with output.call_progress() as bars:
        at_once = asyncio.Semaphore(AT_ONCE)
        making = []
        for tally in tallies:
            bar = bars.add_task(tally.title, total=len(tally.requests))
            making += [
                _one(client, request, tally, at_once, partial(bars.advance, bar))
                for request in tally.requests
            ]
        await asyncio.gather(*making)


async def _one(
    client: AckbridgeClient,
    request: CallRequest,
    tally: LoadTally,
    at_once: asyncio.Semaphore,
    done: Callable[[], None],
) -> None:
    async with at_once:
        started = time.perf_counter()
        try:
            call = await client.start(request)
            tally.outcomes.append(await call.outcome(PATIENCE, settled=True))
        except (AckbridgeError, TimeoutError) as error:
            tally.troubles.append(f"{request.call_id}: {error or type(error).__name__}")
        tally.latencies.append(time.perf_counter() - started)
        done()


def _quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
