"""A rolling upgrade of the workers loses nothing: two versions, one deployment, one ledger."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHistory

from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import EngineUnavailableError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.replays import replayer
from tests.support.stage import Stage, set_up
from tests.support.upgrade_cases import PARKED, PROVIDERS, UPGRADE_CASES, UpgradeCase, wait
from tests.support.version_before import BEFORE, NOW, knows_version_before
from tests.support.versions import Version, environment_of, parking_integrations

pytestmark = [pytest.mark.slow, pytest.mark.extended]

SUGGEST_AT = 90
"""Events after which the engine suggests to continue as new; no call has so many by itself."""
INVALID_SIGNALS = 20
"""Sent at once; they only lengthen a history."""
SENT_WITHIN = 1.0
"""Seconds."""
TRAFFIC_EVERY = 0.4
"""Seconds between two calls of the background traffic."""
FAULTS: tuple[dict[str, Any], ...] = (
    {},
    {"duplicates": 2},
    {"early": True},
    {"receipt_failures": 1},
    {"delay_ms": 700},
)

Calls = list[tuple[UpgradeCase, CallRequest]]


async def orderly(before: Version, now: Version) -> None:
    """The new version is promoted, and the old one stopped when it gets no tasks any more."""
    await now.start()
    await now.promote()
    await before.stop()


async def killed(before: Version, now: Version) -> None:
    """The old version is killed, and for a while there is no current worker."""
    await now.start()
    await before.kill()
    await now.promote()


@pytest.mark.parametrize("hand_over", [orderly, killed])
async def test_upgrade(
    tmp_path: Path, hand_over: Callable[[Version, Version], Awaitable[None]]
) -> None:
    """Calls that the version before has begun end on this one as they should, and replay."""
    integrations = parking_integrations(tmp_path / "integrations")
    suggestion = {"limit.historyCount.suggestContinueAsNew": str(SUGGEST_AT)}
    engine = EmbeddedEngine(tmp_path / "engine.db", headless=True, dynamic_config=suggestion)
    with engine:
        async with set_up(engine, tmp_path, integrations, has_worker=False) as stage:
            before, now = (
                Version(environment_of(stage, engine, build, integrations), tmp_path)
                for build in (BEFORE, NOW)
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
        # Those that end by themselves come last, or they would be over before the upgrade.
        cases = UPGRADE_CASES.values()
        upgraded = await _begin(stage, [case for case in cases if case.act is not wait])
        upgraded += await _begin(stage, [case for case in cases if case.act is wait])
        await hand_over(before, now)
        assert "version now of deployment ackbridge is not the current one" in now.log
        continued, _ = await asyncio.gather(_continue_as_new(stage), _end(stage, upgraded))
    await _end(stage, traffic)
    await _check_histories(stage, upgraded, continued, traffic)


async def _continue_as_new(stage: Stage) -> Calls:
    """Park calls on this version, let them continue as new, and end them."""
    calls = await _begin(stage, list(PARKED.values()))
    await asyncio.gather(*(_lengthen(stage, request) for _, request in calls))
    await _end(stage, calls)
    return calls


async def _begin(stage: Stage, cases: list[UpgradeCase]) -> Calls:
    """Start calls at every provider, and wait until each is where its case wants it."""
    calls = [(case, case.request(provider)) for case in cases for provider in PROVIDERS]

    async def begin(case: UpgradeCase, request: CallRequest) -> None:
        call = await stage.calls.start(request)
        # A query may split the workflow task that sends (decision 7); by then it is over.
        await asyncio.sleep(SENT_WITHIN)
        while not case.reached(await call.status()):  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)

    await asyncio.gather(*(begin(case, request) for case, request in calls))
    return calls


async def _end(stage: Stage, calls: Calls) -> None:
    """Act on each call as its case says, and check how it ends."""

    async def end(case: UpgradeCase, request: CallRequest) -> None:
        await case.act(stage, request)
        await case.check(stage, request)

    await asyncio.gather(*(end(case, request) for case, request in calls))


async def _lengthen(stage: Stage, request: CallRequest) -> None:
    """Make the history of a parked call so long that it continues as new."""
    handle = stage.handle(request)
    first = (await handle.describe()).run_id
    while (await handle.describe()).run_id == first:
        await asyncio.gather(
            *(handle.signal("force_ack", {"by": "bo"}) for _ in range(INVALID_SIGNALS))
        )
        # A run that is signalled all the time cannot end; the answer comes once it is quiet.
        with contextlib.suppress(EngineUnavailableError):  # a busy worker answers the next one
            await stage.calls.call(request.call_id).status()
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _traffic(stage: Stage) -> AsyncIterator[Calls]:
    """Calls all the time, one after the other started."""
    started: Calls = []

    async def start() -> None:
        for faults, provider in zip(
            itertools.cycle(FAULTS), itertools.cycle(PROVIDERS), strict=False
        ):
            case = UpgradeCase("create_order", faults, bool, wait)
            request = case.request(provider)
            await stage.calls.start(request)
            started.append((case, request))
            await asyncio.sleep(TRAFFIC_EVERY)

    starting = asyncio.create_task(start())
    try:
        yield started
    finally:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting


async def _check_histories(stage: Stage, upgraded: Calls, continued: Calls, traffic: Calls) -> None:
    """No workflow task has failed, every run replays, and every version has done its share."""
    by_both = {request.call_id for case, request in upgraded if case.act is not wait}
    by_several_runs = {request.call_id for _, request in continued}
    requests = [request for _, request in upgraded + continued + traffic]
    runs_of = {request.call_id: await _runs(stage, request) for request in requests}
    for call_id, runs in runs_of.items():
        builds = [build for run in runs for build in _builds(run)]
        assert not [cause for run in runs for cause in _failures(run)], call_id
        if call_id in by_both:
            assert (builds[0], builds[-1]) == (BEFORE, NOW), call_id
        if call_id in by_several_runs:
            assert len(runs) > 1, call_id
    with knows_version_before():
        assert not await _replay_failures(run for runs in runs_of.values() for run in runs)
    # Without the branch on the revision they do not: the commands of the versions differ.
    for call_id in by_both:
        assert await _replay_failures(runs_of[call_id][:1]), call_id


async def _replay_failures(runs: Iterable[WorkflowHistory]) -> Mapping[str, Exception]:
    async def histories() -> AsyncIterator[WorkflowHistory]:
        for run in runs:
            yield run

    replayed = await replayer().replay_workflows(histories(), raise_on_replay_failure=False)
    return replayed.replay_failures


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
