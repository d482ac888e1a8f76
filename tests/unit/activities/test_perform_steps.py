"""Steps of many calls in one activity."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from typing import Any

from temporalio.testing import ActivityEnvironment

from ackbridge.contracts import names
from ackbridge.contracts.bulk import BatchedStep, StepBatch
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.steps import ReconsiderStep
from activities.perform_steps import PerformSteps, RunningStep
from tests.support.simulated_host import REQUEST


async def test_a_step_whose_result_is_delivered_is_forgotten() -> None:
    """Its argument and its result would else stay in memory for ten minutes."""
    nothing: Any = None
    steps = PerformSteps(nothing)
    performs = asyncio.Event()

    async def reconsider(_: ReconsiderStep) -> AdmissionState:
        performs.set()
        return AdmissionState()

    steps.__dict__["_performers"] = {names.RECONSIDER: (ReconsiderStep, reconsider)}
    steps.__dict__["_turns"] = defaultdict(lambda: asyncio.Semaphore(1))
    argument = ReconsiderStep(request=REQUEST).model_dump(mode="json")
    batch = StepBatch(
        steps=(BatchedStep(key=1, name=names.RECONSIDER, argument=argument, timeout=5),)
    )
    result = await ActivityEnvironment().run(steps.perform_steps, batch)
    assert performs.is_set()
    assert not result.results[0].is_pending
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, RunningStep)] == []
