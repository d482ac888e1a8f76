"""The breaker on the real engine: a provider fails while calls are in progress, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.client import WorkflowExecutionStatus

import worker
from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control import ControlHandle
from ackbridge.client.control_startup import start_controls, watch_controls
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState, ForceBreaker, SendRate, SetLimit
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.stats.reporter import report_stats
from ackbridge.workarounds.temporal_sdk import BoundedShutdown
from benchmarks.control import EVENTS_PER_WATCH
from tests.support.replays import replay
from tests.support.stage import INTEGRATIONS, Stage, reached, set_provider_state, set_up

pytestmark = pytest.mark.slow

QUICK = {
    "min_volume": 4,
    "consecutive": 4,
    "open_for": "4s",
    "probes": 2,
    "probe_every": "1s",
    "ramp": {"start": 5, "factor": 2, "every": "2s", "steps": 3},
}
WITHIN = timedelta(seconds=60)
STOPPED = SendRate(per_second=0)


def edited(folder: Path, **top: Any) -> Path:
    """A folder with only the sandbox's integration: quick, and parking what cannot be sent."""
    file = yaml.safe_load((INTEGRATIONS / "sandbox.yaml").read_text())
    file |= {"breaker": QUICK, "health": {"path": "/healthz", "every": "5s"}, **top}
    file["operations"]["create_order"]["when_off"] = "park"
    file["operations"]["create_booking"]["receipt"]["within"] = "8s"
    integrations = folder / "integrations"
    integrations.mkdir()
    (integrations / "sandbox.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    return integrations


@asynccontextmanager
async def played(
    engine: EmbeddedEngine, folder: Path, **top: Any
) -> AsyncIterator[tuple[Stage, ControlHandle]]:
    """A stage, and the control of its provider."""
    async with set_up(engine, folder, edited(folder, **top)) as stage:
        yield stage, ControlHandle(stage.client, "sandbox")


@asynccontextmanager
async def working(stage: Stage, integrations: Path) -> AsyncIterator[None]:
    """A worker for all queues."""
    catalog = load_catalog(integrations, stage.environ)
    snapshots = watch_controls(stage.client, catalog, stage.ledger)
    deps = worker.build_dependencies(
        stage.settings,
        stage.environ,
        catalog,
        stage.ledger,
        stage.http,
        snapshots,
        has_search_attributes=True,
    )
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(report_stats(deps.counters, stage.ledger.stats, utc_now))
        for one in worker.build_workers(stage.client, catalog, deps):
            await running.enter_async_context(BoundedShutdown(one))
        await start_controls(stage.client, catalog, stage.ledger)
        yield
    await snapshots.close()


async def test_breaker_opens_and_closes(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """It opens, new calls are parked with a notice, what is owed is paid, probes close it, and
    what was parked drains; and every bit of it can be read in the control's history."""
    async with played(engine, tmp_path) as (stage, control):
        # One is under way while the provider breaks: it is answered and acknowledged.
        slow = stage.request(delay_ms=6000)
        await stage.calls.start(slow)
        await stage.until(slow, "awaiting_response")
        await set_provider_state(stage, "broken")
        doomed = [stage.request() for _ in range(6)]
        for request in doomed:
            await stage.calls.start(request)
        opened = await reached(control, lambda seen: seen.breaker.state is BreakerState.OPEN)
        assert "calls failed" in opened.breaker.reason
        stopped = await reached(control, lambda seen: seen.rate == STOPPED)
        assert stopped.is_throttled

        kept_back = stage.request()
        await asyncio.sleep(2.5)  # a worker trusts what it has read for up to two seconds
        await stage.calls.start(kept_back)
        await stage.until(kept_back, "parked")
        status = await stage.calls.call(kept_back.call_id).status()
        assert status.notice is not None
        assert status.notice.kind == "delayed"
        assert "breaker of sandbox is open" in (status.deadline_reason or "")
        assert await stage.effects(kept_back.call_id) == 0
        outcome = await stage.calls.call(slow.call_id).outcome(WITHIN)
        assert outcome.status == "completed"
        assert await stage.acknowledged(slow.call_id) == ["success"]

        await set_provider_state(stage, "well")
        await reached(control, lambda seen: seen.breaker.step is not None)
        for request in (*doomed, kept_back):
            outcome = await stage.calls.call(request.call_id).outcome(WITHIN)
            assert outcome.status == "completed"
            assert await stage.effects(request.call_id) == 1
        await reached(control, lambda seen: not seen.is_throttled)
        handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
        await replay(await handle.fetch_history())
        told = [change.after for change in (await control.status()).changes]
        assert {"open", "half_open", "closed, step 1", "closed"} <= set(told)


async def test_queued_retry_times_out(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """A call that has been tried once when its provider is stopped waits no longer for a receipt
    than `receipt.within` says, and its user hears of it; then it is sent again, under its key."""
    async with played(engine, tmp_path) as (stage, control):
        behaviour = {"throttle": 1, "retry_after": 3}
        payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
        more = {"operation": "create_booking", "payload": payload}
        held_up = stage.request().model_copy(update=more)
        call = await stage.calls.start(held_up)
        await control.set_limit(SetLimit(per_second=0, by="ann", reason="a quiet hour"))
        await reached(control, lambda seen: seen.rate == STOPPED)

        await stage.until(held_up, "parked")
        status = await call.status()
        assert status.notice is not None
        assert status.notice.kind == "delayed"
        assert "429; then no worker could take it up in time" in (status.deadline_reason or "")
        assert len(await stage.seen(held_up.call_id, "request")) == 1

        await control.set_limit(SetLimit(per_second=None, by="ann", reason="over"))
        await reached(control, lambda seen: seen.rate != STOPPED)
        await call.reprocess(by="ops")
        assert (await call.outcome(WITHIN)).status == "completed"
        requests = await stage.seen(held_up.call_id, "request")
        assert {one["idempotency_key"] for one in requests} == {f"{held_up.call_id}:1"}
        await replay(await stage.handle(held_up).fetch_history())


async def test_control_adds_no_events_per_call_and_blocks_none(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Fifty calls leave no event in a calm control's history. An order bounds the sends of a
    provider without limits; calls go on when the control is terminated, by what it last said, and
    the next worker's look starts it again with all of that."""
    async with played(engine, tmp_path) as (stage, control):
        await reached(control, lambda seen: seen.rate is not None)
        handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
        before = (await handle.describe()).history_length
        for _ in range(50):
            await stage.calls.start(stage.request("quote"))
        await asyncio.sleep(4)
        after = (await handle.describe()).history_length
        assert after - before <= EVENTS_PER_WATCH

        await control.set_limit(SetLimit(per_second=0, by="ann", reason="a quiet hour"))
        stopped = await reached(control, lambda seen: seen.rate == STOPPED)
        await asyncio.sleep(2.5)  # a worker trusts what it has read for up to two seconds
        held_up = stage.request("quote")
        call = await stage.calls.start(held_up)
        await handle.terminate("to see what happens")
        await asyncio.sleep(2)
        assert await stage.effects(held_up.call_id) == 0
        # The next call looks at the control, and finds none.
        await stage.calls.start(stage.request("quote"))
        while (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
        again = await reached(control, lambda seen: seen.rate == STOPPED)
        assert again.limit == stopped.limit
        await control.set_limit(SetLimit(per_second=None, by="ann", reason="over"))
        assert (await call.outcome(WITHIN)).status == "completed"


async def test_monitoring_survives_its_worker_and_a_forced_breaker_stays(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """The worker that watches stops in the middle of an outage; the next one goes on with what it
    has counted. What is held closed stays closed, whatever fails."""
    slow = {"breaker": {**QUICK, "min_volume": 1000, "consecutive": 2, "open_for": "10m"}}
    integrations = edited(tmp_path, **slow)
    async with set_up(engine, tmp_path, integrations, has_worker=False) as stage:
        control = stage.calls.control("sandbox")
        await set_provider_state(stage, "broken")
        async with working(stage, integrations):
            await reached(control, lambda seen: seen.rate is not None)
            await stage.calls.start(stage.request("quote"))
            await asyncio.sleep(4)
        async with working(stage, integrations):
            await stage.calls.start(stage.request("quote"))
            opened = await reached(control, lambda seen: seen.breaker.state is BreakerState.OPEN)
            assert "in a row" in opened.breaker.reason
            await control.force_breaker(
                ForceBreaker(state=BreakerState.CLOSED, by="ann", reason="send all the same")
            )
            for _ in range(3):
                await stage.calls.start(stage.request("quote"))
            await asyncio.sleep(6)
            held = await reached(control, lambda seen: not seen.rate or not seen.rate.per_second)
            assert held.breaker.state is BreakerState.CLOSED
            assert held.breaker.forced_by == "ann"


@pytest.mark.extended
async def test_parked_calls_are_probes_where_no_new_ones_come(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Without a health request, and without traffic, they close the breaker all the same."""
    async with played(engine, tmp_path, health=None) as (stage, control):
        hold = ForceBreaker(state=BreakerState.OPEN, by="ann", reason="maintenance")
        await control.force_breaker(hold)
        # Whether it is sent or not: a worker reads the control when there are calls.
        await stage.calls.start(stage.request())
        await asyncio.sleep(2)
        kept_back = [stage.request() for _ in range(4)]
        async with asyncio.timeout(30):
            for request in kept_back:
                await stage.calls.start(request)
                await stage.until(request, "parked")
        await control.force_breaker(hold.model_copy(update={"state": None}))
        for request in kept_back:
            outcome = await stage.calls.call(request.call_id).outcome(WITHIN)
            assert outcome.status == "completed"
        await reached(control, lambda seen: seen.breaker.state is BreakerState.CLOSED)
