"""The outage: calls start while the provider is broken, are parked for hours, and are drained.

The provider, the gateway and the subscriber answer from this process, over sockets; the engine and
the worker are processes of their own. Each call has its own clock in the engine, which is moved by
hours while it is parked: what a call, its deadlines and its outcome see is an outage of hours.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from ackbridge.client.batches import BatchHandle
from ackbridge.client.control import ControlHandle
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.errors import CallError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.chaos.provider_reader import read_provider
from tests.chaos.records import ProviderRecord
from tests.support.engine import running_engine
from tests.support.stage import (
    Stage,
    edited_integrations,
    reached,
    set_provider_state,
    set_up,
    worker_process,
)
from tests.support.subscribers import ReceivedNotice, Subscriber, configure, subscribing

AT_ONCE = 40
"""Requests to the engine at the same time."""

EVERYTHING = ParkedSelection(provider="sandbox")
TIMEOUT = timedelta(minutes=2)
ROUNDS = 5
"""Batches for what was parked again, because the provider was not well enough yet."""
DELAYED, COMPLETED_LATE = "call.delayed", "call.completed_late"
BREAKER = {
    "open_for": "2s",
    "open_at_most": "10s",
    "probe_every": "1s",
    "ramp": {"start": 10, "factor": 2, "every": "2s", "steps": 4},
}
"""Opens as any other, but its pauses are short: they pass in real time."""

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What is result.

    Attributes:
        calls: how many are made while the provider is broken.
        hours: the longest time one of them is parked, on its own clock; the shortest is an hour.
        rate: calls per second that the batch takes up.
        concurrency: of them under way at once.
        held: how long a call that was on its way when the breaker opened waits in the provider's
            queue before it is parked.
        seed: of how long each call is parked.
    """

    calls: int = 2000
    hours: float = 6
    rate: float = 200
    concurrency: int = 100
    held: timedelta = timedelta(seconds=30)
    seed: int = 14


@dataclass
class OutageResult:
    """What was observed during the outage.

    Attributes:
        requests: the calls, in the order they were made.
        parked_for: how long each one's clock was moved while it was parked.
        failed_requests: requests that the provider had answered when all calls were parked.
        waiting: why the batch waited while the provider was still away.
        batches: how each batch has ended, the breaker's own among them.
        outcomes: by call id; what else a caller got is in `raised`.
        notices: what the subscriber has accepted, by call id, each id once.
        repeated: accepted notices whose id had been accepted before.
        forged: what came to the subscriber with a bad signature.
        seen: the provider's record, by call id.
        left: calls that the ledger still has as parked.
        took: seconds, by what was done.
    """

    requests: list[CallRequest]
    parked_for: dict[str, timedelta] = field(default_factory=dict)
    failed_requests: int = 0
    waiting: BatchProgress | None = None
    batches: list[BatchProgress] = field(default_factory=list)
    outcomes: dict[str, CallOutcome] = field(default_factory=dict)
    raised: dict[str, CallError] = field(default_factory=dict)
    notices: dict[str, list[ReceivedNotice]] = field(default_factory=dict)
    repeated: int = 0
    forged: int = 0
    seen: dict[str, ProviderRecord] = field(default_factory=dict)
    left: int = 0
    took: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, what: str, say: Say) -> Iterator[None]:
        """Measure how long a phase takes, and print it."""
        began = time.perf_counter()
        yield
        self.took[what] = time.perf_counter() - began
        say(f"{what}: {self.took[what]:.0f} s")


async def simulate(options: Options, folder: Path, say: Say) -> OutageResult:
    """Simulate an outage from its beginning to the last confirmation."""

    def hold(operations: dict[str, Any]) -> None:
        seconds = options.held.total_seconds()
        operations["create_booking"]["queue_within"] = f"{seconds:.0f}s"

    integrations = edited_integrations(folder, hold, breaker=BREAKER)
    with running_engine(folder) as engine, subscribing() as shop:
        configure(integrations, "shop", shop.url)
        async with set_up(engine, folder, integrations, has_worker=False) as stage:
            worker = worker_process(stage, integrations, folder / "worker.log")
            worker.start()
            try:
                return await _play(options, stage, engine, shop, say)
            finally:
                worker.stop(timedelta(seconds=10))


async def _play(
    options: Options, stage: Stage, engine: EmbeddedEngine, shop: Subscriber, say: Say
) -> OutageResult:
    control = ControlHandle(stage.client, "sandbox")
    result = OutageResult([_booking(stage) for _ in range(options.calls)])

    await set_provider_state(stage, "broken")
    with result.timing("calls made while the provider is broken", say):
        await _each(result.requests, stage.calls.start)
        await _until_parked(stage, len(result.requests))
    result.failed_requests = (await _summary(stage))["requests"]
    await reached(control, lambda seen: seen.breaker.state is not BreakerState.CLOSED)

    with result.timing("hours pass for every call", say):
        await _skip_hours(options, stage, result)

    batch = await stage.calls.reprocess_parked(_wanted(options))
    result.waiting = await _until_waiting(batch)
    say(f"the batch waits: {result.waiting.why}")

    await set_provider_state(stage, "well")
    with result.timing("the provider is back, and the calls are taken up", say):
        await batch.result()
        for _ in range(ROUNDS):
            await _all_batches(stage, result)
            if not await stage.ledger.batches.count_parked(EVERYTHING):
                break
            again = await stage.calls.reprocess_parked(_wanted(options))
            await again.result()

    with result.timing("subscribers are notified", say):
        await _outcomes(stage, result)
        await _notices(shop, result)
    result.left = sum(one.calls for one in await stage.ledger.batches.count_parked(EVERYTHING))
    result.seen, _ = await read_provider(stage.provider_url)
    return result


def _booking(stage: Stage) -> CallRequest:
    more = {
        "operation": "create_booking",
        "payload": {"room": "attic", "nights": 2},
        "reply_to": "shop",
    }
    return stage.request().model_copy(update=more)


def _wanted(options: Options) -> BatchRequest:
    return BatchRequest(
        selection=EVERYTHING,
        rate=options.rate,
        concurrency=options.concurrency,
        ramp=Ramp(start=min(10, options.rate), over=timedelta(seconds=10)),
        by="ops",
        reason="the provider was broken",
    )


async def _each(things: Iterable[T], do: Callable[[T], Awaitable[Any]]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(thing: T) -> None:
        async with turn:
            await do(thing)

    await asyncio.gather(*(one(thing) for thing in things))


async def _until_parked(stage: Stage, count: int) -> None:
    while sum(one.calls for one in await stage.ledger.batches.count_parked(EVERYTHING)) < count:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.2)


async def _summary(stage: Stage) -> dict[str, Any]:
    reply = await stage.http.get(f"{stage.provider_url}/_summary")
    found: dict[str, Any] = reply.raise_for_status().json()
    return found


async def _skip_hours(options: Options, stage: Stage, result: OutageResult) -> None:
    draw = random.Random(options.seed)  # noqa: S311 -- it spreads calls over hours, and keeps no secret
    for request in result.requests:
        hours = draw.uniform(1, max(options.hours, 1))
        result.parked_for[request.call_id] = timedelta(hours=hours)

    async def passes(request: CallRequest) -> None:
        wait = result.parked_for[request.call_id]
        await stage.skipper.fast_forward(stage.handle(request), wait)

    await _each(result.requests, passes)


async def _until_waiting(batch: BatchHandle) -> BatchProgress:
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        while not (seen := await batch.progress()).why:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.2)
    return seen


async def _all_batches(stage: Stage, result: OutageResult) -> None:
    """Wait for the end of every batch: the operator's, and those of the breaker's recovery."""
    result.batches = [await one.result() async for one in stage.calls.batches("sandbox", 100)]


async def _outcomes(stage: Stage, result: OutageResult) -> None:
    async def ask(request: CallRequest) -> None:
        try:
            outcome = await stage.calls.call(request.call_id).outcome(TIMEOUT)
        except CallError as error:
            result.raised[request.call_id] = error
        else:
            result.outcomes[request.call_id] = outcome

    await _each(result.requests, ask)


async def _notices(shop: Subscriber, result: OutageResult) -> None:
    """Wait for the last notice, or until the timeout."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < until:
        result.notices = _by_call(shop.accepted)
        if sum(is_notified(notices) for notices in result.notices.values()) >= len(result.requests):
            break
        await asyncio.sleep(0.2)
    result.repeated = len(shop.accepted) - sum(map(len, result.notices.values()))
    result.forged = shop.forged


def is_notified(notices: list[ReceivedNotice]) -> bool:
    """Whether the subscriber was notified that the call has completed."""
    return any(notice.body["type"] == COMPLETED_LATE for notice in notices)


def _by_call(accepted: list[ReceivedNotice]) -> dict[str, list[ReceivedNotice]]:
    once = {notice.id: notice for notice in list(accepted)}
    found: dict[str, list[ReceivedNotice]] = {}
    for notice in sorted(once.values(), key=lambda notice: notice.position):
        found.setdefault(notice.body["data"]["call_id"], []).append(notice)
    return found
