"""A flag switched while calls run in two worker processes, and `kill -9` of all of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.control import FlagState
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.engine import TAKEOVER, running_engine
from tests.support.processes import ForkedProcess, run_command
from tests.support.replays import replay
from tests.support.stage import (
    Stage,
    edited_integrations,
    set_up,
    until_ready,
    worker_environment,
    worker_process,
)

PATIENCE = timedelta(seconds=60)
EVERY = 0.05
"""Seconds between two calls."""
KNOWN_BY = 2.0
"""Seconds after a change from which it holds for every call that is prepared."""
OPERATION = "quote"


@pytest.mark.slow
@pytest.mark.extended
async def test_flag_reaches_every_worker_and_survives_all(tmp_path: Path) -> None:
    """While it is off no worker sends, not even one restarted after all were killed."""

    def edit(operations: dict[str, Any]) -> None:
        operations[OPERATION] |= {"when_off": "park", "on_failure": "park"}
        operations[OPERATION] |= {"without_control": "park"}

    integrations = edited_integrations(tmp_path, edit)
    with running_engine(tmp_path, task_timeout=TAKEOVER) as engine:
        async with set_up(engine, tmp_path, integrations, has_worker=False) as stage:
            environ = worker_environment(stage, integrations)
            workers = [
                worker_process(stage, integrations, tmp_path / f"worker-{n}.log") for n in (1, 2)
            ]
            try:
                await _start(workers)
                kept_back = await _switch_off(stage, environ)
                await _kill_everything(engine, workers)
                await _start(workers)
                kept_back += await _still_off(stage)
                await _switch_on(stage, environ, kept_back)
            finally:
                _kill(workers)


async def _switch_off(stage: Stage, environ: dict[str, str]) -> list[CallRequest]:
    """Switch the provider off under load, and return the calls that were parked."""
    slow = stage.request("create_order", delay_ms=6000)
    in_flight = await stage.calls.start(slow)
    await stage.until(slow, CallStage.AWAITING_RESPONSE)
    async with _load(stage) as before:
        await asyncio.sleep(1)
        change = await _flag(environ, "off", "their API answers 500")
        assert (change["before"], change["after"]) == ("on (integration file)", "off")
        assert change["by"] == "ada"
        await asyncio.sleep(KNOWN_BY)
    async with _load(stage) as after:
        await asyncio.sleep(1.5)
    # In flight when the order came: it finishes.
    assert (await in_flight.outcome(PATIENCE)).status is OutcomeStatus.COMPLETED
    assert await _stages(stage, after) == {CallStage.PARKED: len(after)}
    assert len(await _prepared_by(stage, after)) == 2
    counted = await _stages(stage, before)
    assert set(counted) == {CallStage.COMPLETED, CallStage.PARKED}
    return [r for r in (*before, *after) if await _stage(stage, r) is CallStage.PARKED]


async def _still_off(stage: Stage) -> list[CallRequest]:
    snapshot = await stage.calls.control("sandbox").snapshot()
    assert snapshot is not None
    assert snapshot.flags["dev"][""].state is FlagState.OFF
    async with _load(stage) as calls:
        await asyncio.sleep(1)
    assert await _stages(stage, calls) == {CallStage.PARKED: len(calls)}
    return calls


async def _switch_on(stage: Stage, environ: dict[str, str], waiting: list[CallRequest]) -> None:
    """Switch it on and drain: each call is sent and answered once; the histories replay."""
    assert await _sent(stage, waiting) == 0
    await _flag(environ, "on", "they are back")
    left = list(waiting)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while left:
            for request in left:
                await stage.calls.call(request.call_id).reprocess(by="ops")
            await asyncio.sleep(0.5)
            left = [r for r in left if await _stage(stage, r) is CallStage.PARKED]
    for request in waiting:
        outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
        assert outcome.status is OutcomeStatus.COMPLETED
        assert len(await stage.ledger.calls.responses(request.call_id)) == 1
    assert await _sent(stage, waiting) == len(waiting)
    for handle in (
        stage.handle(waiting[0]),
        stage.client.get_workflow_handle("control.sandbox"),
    ):
        await replay(await handle.fetch_history())


@asynccontextmanager
async def _load(stage: Stage) -> AsyncIterator[list[CallRequest]]:
    """Start calls one after the other while the block runs, and await them at its end."""
    made: list[CallRequest] = []
    waiting: list[asyncio.Task[Any]] = []

    async def keep_calling() -> None:
        for _ in itertools.count():
            request = stage.request(OPERATION)
            made.append(request)
            waiting.append(asyncio.create_task(stage.calls.start_and_wait(request, PATIENCE)))
            await asyncio.sleep(EVERY)

    calling = asyncio.create_task(keep_calling())
    try:
        yield made
    finally:
        calling.cancel()
        await asyncio.gather(*waiting)


async def _stage(stage: Stage, request: CallRequest) -> CallStage:
    return (await stage.calls.call(request.call_id).status()).stage


async def _stages(stage: Stage, requests: Iterable[CallRequest]) -> Counter[CallStage]:
    return Counter([await _stage(stage, request) for request in requests])


async def _sent(stage: Stage, requests: Iterable[CallRequest]) -> int:
    """How many of these calls the provider has received."""
    events = (await stage.http.get(f"{stage.provider_url}/_events")).json()
    keys = {event.get("idempotency_key") for event in events if event["kind"] == "request"}
    return sum(f"{request.call_id}:1" in keys for request in requests)


async def _prepared_by(stage: Stage, requests: Iterable[CallRequest]) -> set[str]:
    """The worker processes whose workflow tasks have prepared these calls."""
    found = set()
    for request in requests:
        history = await stage.handle(request).fetch_history()
        tasks = [
            e for e in history.events if e.HasField("workflow_task_completed_event_attributes")
        ]
        found.add(tasks[0].workflow_task_completed_event_attributes.identity)
    return found


async def _start(workers: list[ForkedProcess]) -> None:
    for worker in workers:
        worker.start()
    await asyncio.gather(*(until_ready(worker) for worker in workers))


def _kill(workers: list[ForkedProcess]) -> None:
    for worker in workers:
        worker.send(signal.SIGKILL)
        worker.wait()


async def _kill_everything(engine: EmbeddedEngine, workers: list[ForkedProcess]) -> None:
    """`kill -9` of both workers and the engine, which comes back at once."""
    _kill(workers)
    await asyncio.to_thread(engine.kill)
    await asyncio.to_thread(engine.start)


async def _flag(environ: dict[str, str], setting: str, reason: str) -> dict[str, Any]:
    """Set the provider's flag from another process, as an operator does."""
    arguments = ("flag", "sandbox", setting, "--reason", reason, "--by", "ada", "--json")
    done = await asyncio.to_thread(run_command, environ, *arguments)
    assert done.returncode == 0, done.stderr
    change: dict[str, Any] = json.loads(done.stdout)
    return change
