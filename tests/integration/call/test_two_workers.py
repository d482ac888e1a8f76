"""Two worker processes share a provider: its rate, and the watch over it, whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType

from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState, SendRate
from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.local.dev_server import EmbeddedEngine
from tests.integration.provider_control.test_breaker import QUICK, edited
from tests.support.processes import ForkedProcess
from tests.support.stage import (
    Stage,
    reached,
    set_provider_state,
    set_up,
    until_ready,
    worker_process,
)

pytestmark = [pytest.mark.slow, pytest.mark.extended]

RATE = 5
"""Sends per second, as the integration file says."""
CALLS = 40
"""So many that those the engine lets through at once, a second's worth, do not matter."""
WITHIN = timedelta(seconds=60)


@asynccontextmanager
async def two_workers(
    engine: EmbeddedEngine, folder: Path
) -> AsyncIterator[tuple[Stage, list[ForkedProcess]]]:
    """Everything on stage, with two processes of workers that are ready."""
    limits = {"requests_per_second": RATE, "concurrent": CALLS}
    integrations = edited(folder, limits=limits, breaker={**QUICK, "open_for": "10m"})
    async with set_up(engine, folder, integrations, has_worker=False) as stage:
        workers = [
            worker_process(stage, integrations, folder / f"{name}.log") for name in ("one", "two")
        ]
        with contextlib.ExitStack() as running:
            for one in workers:
                running.callback(one.stop, timedelta(seconds=1))
                one.start()
            for one in workers:
                await until_ready(one)
            yield stage, workers


async def watching(stage: Stage, workers: list[ForkedProcess]) -> ForkedProcess:
    """The one whose process holds the watch over the provider."""
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    async with asyncio.timeout(WITHIN.total_seconds()):
        while True:
            described = await handle.describe()
            for pending in described.raw_description.pending_activities:
                for one in workers:
                    is_its = pending.last_worker_identity.startswith(f"{one.pid}@")
                    if pending.activity_type.name == names.OBSERVE and is_its:
                        return one
            await asyncio.sleep(0.1)


async def sends(stage: Stage, request: CallRequest) -> list[tuple[datetime, str]]:
    """When the engine has handed out the sends of a call, and to whom."""
    return [
        (event.event_time.ToDatetime(), event.activity_task_started_event_attributes.identity)
        async for event in stage.handle(request).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    ]


async def test_two_workers_share_a_rate_and_a_watch(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """The one that watches is killed and comes back: calls go on, no faster than the file says
    for both together, and the breaker opens by what is seen once the watch is taken over."""
    async with two_workers(quick_takeover_engine, tmp_path) as (stage, workers):
        control = stage.calls.control("sandbox")
        await reached(control, lambda seen: seen.rate == SendRate(per_second=RATE))
        killed = await watching(stage, workers)
        killed.send(signal.SIGKILL)
        killed.wait()
        killed.start()
        await until_ready(killed)

        requests = [stage.request("quote") for _ in range(CALLS)]
        calls = [await stage.calls.start(request) for request in requests]
        for call in calls:
            assert (await call.outcome(WITHIN)).status is OutcomeStatus.COMPLETED
        sent = sorted([one for request in requests for one in await sends(stage, request)])
        assert {who.split("@")[0] for _, who in sent} == {str(one.pid) for one in workers}
        # Slow machines only ever make it slower; if each had a rate of its own, it were twice.
        took = (sent[-1][0] - sent[0][0]) / timedelta(seconds=1)
        assert len(sent) / took < 1.5 * RATE

        await set_provider_state(stage, "broken")
        seen = await control.snapshot()
        async with asyncio.timeout(WITHIN.total_seconds()):
            while seen is None or seen.breaker.state is not BreakerState.OPEN:
                await stage.calls.start(stage.request("quote"))
                await asyncio.sleep(0.5)
                seen = await control.snapshot()
        assert "failed" in seen.breaker.reason
        await reached(control, lambda seen: seen.rate == SendRate(per_second=0))
