"""A call whose history no longer replays is reset, and completes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType

import worker
from ackbridge.contracts import names
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.workarounds.split_tasks import SplitTaskRepair
from ackbridge.workarounds.temporal_sdk import BoundedShutdown
from tests.support.replays import replay, replayer
from tests.support.stage import Stage, set_up
from workflows.call.sending import PollLoop, Sending

pytestmark = pytest.mark.slow

START_POLLING = Sending.start_polling


@asynccontextmanager
async def running_workers(stage: Stage) -> AsyncIterator[None]:
    """Workers of the stage, with nothing in their caches."""
    async with AsyncExitStack() as running:
        for one in worker.build_workers(stage.client, stage.deps.catalog, stage.deps):
            await running.enter_async_context(BoundedShutdown(one))
        yield


async def test_call_that_does_not_replay_is_reset(
    engine: EmbeddedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signals are applied again, and nothing is done twice at the provider."""

    def with_one_timer_more(self: Sending, *arguments: Any) -> PollLoop | None:
        timer = asyncio.create_task(workflow.sleep(timedelta(days=1)))
        timer.add_done_callback(lambda _: None)
        return START_POLLING(self, *arguments)

    async with set_up(engine, tmp_path, has_worker=False) as stage:
        request = stage.request(stuck=True)
        monkeypatch.setattr(Sending, "start_polling", with_one_timer_more)
        async with running_workers(stage):
            status = await stage.calls.start_and_wait(request, timedelta(milliseconds=500))
            assert status.stage is CallStage.AWAITING_RESPONSE
        monkeypatch.setattr(Sending, "start_polling", START_POLLING)
        message = {"kind": "response", "event_key": "e-1", "data": {"ok": True}}
        await stage.handle(request).signal(names.PROVIDER_MESSAGE, message)
        repair = SplitTaskRepair(stage.client, replayer)
        async with running_workers(stage), asyncio.timeout(100):
            reset: list[str] = []
            while not reset:
                await asyncio.sleep(0.5)
                reset = await repair.repair()
            outcome = await stage.calls.call(request.call_id).outcome()
            assert await repair.repair() == []
        assert reset == [request.call_id]
        assert outcome.status is OutcomeStatus.COMPLETED
        assert await stage.effects(request.call_id) == 1
        history = await stage.handle(request).fetch_history()
        kinds = [event.event_type for event in history.events]
        assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED in kinds
        await replay(history)
