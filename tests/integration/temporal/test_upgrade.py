"""A rolling upgrade of the workers loses nothing: two versions, one deployment, one ledger."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHistory

from ackbridge.contracts.calls import CallRequest
from ackbridge.local.dev_server import EmbeddedEngine
from tests.replay.test_replay import replayer
from tests.support.stage import CHECKOUT, Stage, set_up
from tests.support.upgrade_cases import CROSSINGS, PARKED, PROVIDERS, Crossing, wait
from tests.support.versions import (
    BEFORE,
    NOW,
    Version,
    environment_of,
    parking_integrations,
    version_before,
)

pytestmark = pytest.mark.slow

LONG = 90
"""Events after which the engine suggests to continue as new; no call has so many by itself."""
PESTER = 20
"""Signals at once that do not validate, which only lengthen a history."""
SENT_WITHIN = 1.0
"""Seconds."""
TRAFFIC_EVERY = 0.4
"""Seconds between two calls that nothing special happens to, but for their faults."""
FAULTS: tuple[dict[str, Any], ...] = (
    {},
    {"duplicates": 2},
    {"early": True},
    {"receipt_failures": 1},
    {"delay_ms": 700},
)

KINDS = CROSSINGS.values()

Going = list[tuple[Crossing, CallRequest]]


async def orderly(before: Version, now: Version) -> None:
    """The new version is promoted, and the old one stopped when it gets no tasks any more."""
    await now.start()
    await now.promote()
    await before.stop()


async def killed(before: Version, now: Version) -> None:
    """The old version dies with its work in hand, and for a while there is no current worker."""
    await now.start()
    await before.kill()
    await now.promote()


@pytest.mark.parametrize("hand_over", [orderly, killed])
async def test_upgrade(
    tmp_path: Path, hand_over: Callable[[Version, Version], Awaitable[None]]
) -> None:
    """What the version before has begun ends on this one as it should, and its history replays."""
    integrations = parking_integrations(tmp_path / "integrations")
    suggestion = {"limit.historyCount.suggestContinueAsNew": str(LONG)}
    engine = EmbeddedEngine(tmp_path / "engine.db", headless=True, dynamic_config=suggestion)
    with engine:
        async with set_up(engine, tmp_path, integrations, has_worker=False) as stage:
            before, now = (
                Version(application, environment_of(stage, engine, build, integrations), tmp_path)
                for application, build in (
                    (version_before(tmp_path / BEFORE), BEFORE),
                    (CHECKOUT, NOW),
                )
            )
            await before.start()
            await before.promote()
            try:
                await _upgrade(stage, before, now, hand_over)
            finally:
                await before.kill()
                await now.stop()


async def _upgrade(
    stage: Stage,
    before: Version,
    now: Version,
    hand_over: Callable[[Version, Version], Awaitable[None]],
) -> None:
    async with _traffic(stage) as traffic:
        # Those that go on by themselves come last, or they would be over before the upgrade.
        crossing = await _begin(stage, [kind for kind in KINDS if kind.act is not wait])
        crossing += await _begin(stage, [kind for kind in KINDS if kind.act is wait])
        await hand_over(before, now)
        assert "version now of deployment ackbridge is not the current one" in now.log
        renewed, _ = await asyncio.gather(_renew(stage), _end(stage, crossing))
    await _end(stage, traffic)
    await _check_histories(stage, crossing, renewed, traffic)


async def _renew(stage: Stage) -> Going:
    """Park calls on this version, let them continue as new, and end them."""
    going = await _begin(stage, list(PARKED.values()))
    await asyncio.gather(*(_lengthen(stage, request) for _, request in going))
    await _end(stage, going)
    return going


async def _begin(stage: Stage, kinds: list[Crossing]) -> Going:
    """Start calls at every provider, and wait until each is where it has to be."""
    going = [(kind, kind.request(provider)) for kind in kinds for provider in PROVIDERS]

    async def begin(kind: Crossing, request: CallRequest) -> None:
        call = await stage.calls.start(request)
        # A query may split the workflow task that sends (decision 7); by then it is over.
        await asyncio.sleep(SENT_WITHIN)
        while not kind.reached(await call.status()):  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)

    await asyncio.gather(*(begin(kind, request) for kind, request in going))
    return going


async def _end(stage: Stage, going: Going) -> None:
    """Do to each call what its kind says, and see that it ends as it has to."""

    async def end(kind: Crossing, request: CallRequest) -> None:
        await kind.act(stage, request)
        await kind.check(stage, request)

    await asyncio.gather(*(end(kind, request) for kind, request in going))


async def _lengthen(stage: Stage, request: CallRequest) -> None:
    """Make a history so long that its call, which is parked, continues as new."""
    handle = stage.handle(request)
    first = (await handle.describe()).run_id
    while (await handle.describe()).run_id == first:
        await asyncio.gather(*(handle.signal("force_ack", {"by": "bo"}) for _ in range(PESTER)))
        # A run that is signalled all the time cannot end; the answer comes once it is quiet.
        await stage.calls.call(request.call_id).status()
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _traffic(stage: Stage) -> AsyncIterator[Going]:
    """Calls all the time, one after the other started."""
    started: Going = []

    async def go_on() -> None:
        for faults, provider in zip(
            itertools.cycle(FAULTS), itertools.cycle(PROVIDERS), strict=False
        ):
            kind = Crossing("create_order", faults, bool, wait)
            request = kind.request(provider)
            await stage.calls.start(request)
            started.append((kind, request))
            await asyncio.sleep(TRAFFIC_EVERY)

    going_on = asyncio.create_task(go_on())
    try:
        yield started
    finally:
        going_on.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going_on


async def _check_histories(stage: Stage, crossing: Going, renewed: Going, traffic: Going) -> None:
    """No workflow task has failed, every run replays, and every version has done its share."""
    crossed = {request.call_id for kind, request in crossing if kind.act is not wait}
    continued = {request.call_id for _, request in renewed}
    requests = [request for _, request in crossing + renewed + traffic]
    every = {request.call_id: await _runs(stage, request) for request in requests}
    for call_id, runs in every.items():
        builds = [build for run in runs for build in _builds(run)]
        assert not [cause for run in runs for cause in _failures(run)], call_id
        if call_id in crossed:
            assert (builds[0], builds[-1]) == (BEFORE, NOW), call_id
        if call_id in continued:
            assert len(runs) > 1, call_id

    async def histories() -> AsyncIterator[WorkflowHistory]:
        for runs in every.values():
            for run in runs:
                yield run

    replayed = await replayer().replay_workflows(histories(), raise_on_replay_failure=False)
    assert not replayed.replay_failures


async def _runs(stage: Stage, request: CallRequest) -> list[WorkflowHistory]:
    """The histories of a call, the first run's first."""
    runs: list[WorkflowHistory] = []
    run_id: str | None = None
    while True:
        handle = stage.client.get_workflow_handle(request.call_id, run_id=run_id)
        runs.insert(0, await handle.fetch_history())
        started = runs[0].events[0].workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
        if not run_id:
            return runs


def _builds(run: WorkflowHistory) -> list[str]:
    """Which version has completed each workflow task."""
    return [
        event.workflow_task_completed_event_attributes.deployment_version.build_id
        for event in run.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]


def _failures(run: WorkflowHistory) -> list[str]:
    """Why workflow tasks have failed, but for a signal that came as the call ended."""
    causes = [
        event.workflow_task_failed_event_attributes.cause
        for event in run.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    benign = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    return [WorkflowTaskFailedCause.Name(cause) for cause in causes if cause != benign]
