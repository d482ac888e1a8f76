"""demo: real calls through the whole stack, shown live, and a report that adds up."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ackbridge.client import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import CallOutcome, CallRequest
from ackbridge.errors import AckbridgeError, EngineUnavailable
from ackbridge.ledger import Ledger

from . import show
from .exits import Exit
from .stack import Stack
from .up import addresses, told_to_stop

AT_ONCE = 20
"""Calls in flight."""

PATIENCE = timedelta(minutes=2)
SANDBOX_OPTIONS = ("--rates", '{"duplicate": 0.1, "early": 0.05, "delay_ms": 20}')
SETTLED_WITHIN = 10.0
"""Seconds the last duplicates have to arrive before they are counted."""


@dataclass
class Tally:
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


def run_demo(state: Path, calls: int, payments: int) -> int:
    """Start the stack, make the calls, reconcile. Exit 1 if anything failed or does not add up."""
    with told_to_stop(), _stack(state) as stack:
        show.console.print(addresses(stack, state))
        show.console.print(f"engine: {stack.engine_command}\n", style="dim", soft_wrap=True)
        return asyncio.run(_demonstrate(stack, calls, payments))


@contextmanager
def _stack(state: Path) -> Iterator[Stack]:
    """The stack on its usual state, or beside it when another stack is up on that."""
    stack = Stack(state, environ=os.environ, sandbox_options=SANDBOX_OPTIONS)
    try:
        stack.start()
    except EngineUnavailable as error:
        if "another embedded engine" not in str(error):
            raise
        beside = state.with_name(f"{state.name}-{os.getpid()}")
        stack = Stack(beside, environ=os.environ, sandbox_options=SANDBOX_OPTIONS)
        stack.start()
    try:
        yield stack
    finally:
        stack.stop()


async def _demonstrate(stack: Stack, calls: int, payments: int) -> int:
    run = uuid.uuid4().hex[:6]
    tallies = [
        Tally("sandbox: order, receipt, callback, acknowledgement", _orders(run, calls)),
        Tally("localstripe: payment, signed webhook", _payments(run, payments)),
    ]
    ledger = Ledger.open(stack.environment["ACKBRIDGE_LEDGER_URL"], utc_now)
    try:
        before = await ledger.counts()
        client = await AckbridgeClient.connect(stack.environment)
        await _make(client, tallies)
        provider = await _what_the_provider_saw(stack)
        after = await _settled_counts(ledger, before, provider)
    finally:
        await ledger.close()
    stack.check()
    return _report(tallies, provider, {name: after[name] - before[name] for name in after})


def _orders(run: str, count: int) -> list[CallRequest]:
    return [
        CallRequest(
            provider="sandbox",
            operation="create_order",
            key=f"demo-{run}-{number}",
            payload={"amount": 100 + number, "currency": "EUR"},
        )
        for number in range(count)
    ]


def _payments(run: str, count: int) -> list[CallRequest]:
    return [
        CallRequest(
            provider="stripe",
            operation="create_payment",
            key=f"demo-{run}-{number}",
            payload={"amount": 1000 + number, "currency": "eur"},
        )
        for number in range(count)
    ]


async def _make(client: AckbridgeClient, tallies: Sequence[Tally]) -> None:
    """Make all calls, showing how far they are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=show.console) as progress:
        at_once = asyncio.Semaphore(AT_ONCE)
        making = []
        for tally in tallies:
            bar = progress.add_task(tally.title, total=len(tally.requests))
            making += [
                _one(client, request, tally, at_once, _advance(progress, bar))
                for request in tally.requests
            ]
        await asyncio.gather(*making)


def _advance(progress: Progress, bar: TaskID) -> Callable[[], None]:
    return lambda: progress.advance(bar)


async def _one(
    client: AckbridgeClient,
    request: CallRequest,
    tally: Tally,
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


async def _what_the_provider_saw(stack: Stack) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        summary = await client.get(f"{stack.addresses.sandbox}/_summary")
    return dict(summary.json())


async def _settled_counts(
    ledger: Ledger, before: dict[str, int], provider: dict[str, Any]
) -> dict[str, int]:
    """The ledger's counts, once the duplicates that were sent have all come."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        counts = await ledger.counts()
        has_all = counts["suppressed"] - before["suppressed"] >= provider["duplicates_sent"]
        if has_all or time.monotonic() > deadline:
            return counts
        await asyncio.sleep(0.2)


def _report(tallies: Sequence[Tally], provider: dict[str, Any], ledger: dict[str, int]) -> int:
    columns = ("calls", "made", "completed", "failed", "p50", "p99", "retries")
    show.console.print(show.table("\nWhat happened", columns, [tally.row() for tally in tallies]))
    completed = sum(len(tally.outcomes) for tally in tallies)
    orders = len(tallies[0].outcomes)
    checks = {
        "recorded exactly once": (ledger["responses"], completed),
        "done once by the provider": (provider["effects"], orders),
        "acknowledged to the provider": (provider["acknowledged"]["success"], orders),
        "duplicates sent, and suppressed": (ledger["suppressed"], provider["duplicates_sent"]),
    }
    rows = [
        (what, str(found), str(expected), "yes" if found == expected else "NO")
        for what, (found, expected) in checks.items()
    ]
    rows.append(("callbacks that overtook their receipt", str(provider["early"]), "", ""))
    show.console.print(show.table("\nDoes it add up?", ("", "found", "expected", "adds up"), rows))
    troubles = [line for tally in tallies for line in tally.troubles]
    for line in troubles[:10]:
        show.console.print(f"failed: {line}")
    show.console.print(
        "\nEvery call is in the engine's file. To look at them in the Temporal UI: make up"
    )
    adds_up = all(found == expected for found, expected in checks.values())
    return Exit.COMPLETED if adds_up and not troubles else Exit.FAILED


def _quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
