"""Many calls at the same time: their outcomes and latencies."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.errors import AckbridgeError, CallError
from ackbridge.terminal import output

CONCURRENCY = 20
"""Calls in flight."""

TIMEOUT = timedelta(minutes=2)


@dataclass
class LoadResult:
    """The results of one kind of calls; latencies are seconds from start to outcome."""

    title: str
    requests: Sequence[CallRequest]
    outcomes: list[CallOutcome] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def add_outcome(self, call: Call) -> None:
        try:
            self.outcomes.append(await call.outcome(TIMEOUT, settled=True))
        except CallError as error:
            self.errors.append(f"{call.id}: {error}")

    def row(self) -> tuple[str, ...]:
        return (
            self.title,
            str(len(self.requests)),
            str(len(self.outcomes)),
            str(len(self.errors)),
            f"{_quantile(self.latencies, 50) * 1000:.0f} ms",
            f"{_quantile(self.latencies, 99) * 1000:.0f} ms",
            str(sum(outcome.attempts - 1 for outcome in self.outcomes)),
        )


def orders(run: str, count: int) -> LoadResult:
    payloads = [{"amount": 100 + number, "currency": "EUR"} for number in range(count)]
    requests = _requests(run, "sandbox", "create_order", payloads)
    return LoadResult("sandbox: order, receipt, callback, acknowledgement", requests)


def payments(run: str, count: int) -> LoadResult:
    payloads = [{"amount": 1000 + number, "currency": "eur"} for number in range(count)]
    requests = _requests(run, "stripe", "create_payment", payloads)
    return LoadResult("localstripe: payment, signed webhook", requests)


def _requests(
    run: str, provider: str, operation: str, payloads: Sequence[dict[str, Any]]
) -> list[CallRequest]:
    return [
        CallRequest(
            provider=provider, operation=operation, key=f"demo-{run}-{number}", payload=payload
        )
        for number, payload in enumerate(payloads)
    ]


def booking(key: str, **fields: Any) -> CallRequest:
    payload = {"room": "attic", "nights": 2, **fields}
    return CallRequest(provider="sandbox", operation="create_booking", key=key, payload=payload)


async def run_load(client: AckbridgeClient, loads: Sequence[LoadResult]) -> None:
    with output.call_progress() as progress:
        slots = asyncio.Semaphore(CONCURRENCY)
        calls = []
        for load in loads:
            bar = progress.add_task(load.title, total=len(load.requests))
            advance = partial(progress.advance, bar)
            calls += [_call(client, request, load, slots, advance) for request in load.requests]
        await asyncio.gather(*calls)


async def _call(
    client: AckbridgeClient,
    request: CallRequest,
    load: LoadResult,
    slots: asyncio.Semaphore,
    advance: Callable[[], None],
) -> None:
    async with slots:
        started = time.perf_counter()
        try:
            call = await client.start(request)
            load.outcomes.append(await call.outcome(TIMEOUT, settled=True))
        except (AckbridgeError, TimeoutError) as error:
            load.errors.append(f"{request.call_id}: {error or type(error).__name__}")
        load.latencies.append(time.perf_counter() - started)
        advance()


def _quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
