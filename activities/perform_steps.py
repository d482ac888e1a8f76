"""The activity `perform_steps`: steps of many calls, side by side."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from pydantic_core import to_json
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.bulk import BatchedResult, BatchedStep, BatchResult, StepBatch
from ackbridge.contracts.limits import MAX_RESULT_BYTES
from ackbridge.contracts.steps import (
    AcknowledgeStep,
    ConcludeStep,
    FailedAttempt,
    PrepareStep,
    ReconsiderStep,
    RecordStep,
    StepFailure,
)
from ackbridge.contracts.wire import Wire
from ackbridge.control.admission import RideLimiter
from activities.support.dependencies import Dependencies
from activities.support.retry import failed_attempt

from .acknowledge import Acknowledge
from .conclude import Conclude
from .prepare import Prepare
from .record import Record
from .send import Send

WAITS_AT_LEAST: Final = 0.25
WAITS_AT_MOST: Final = 2.0
"""Seconds that a batch waits for its steps. Steps that take longer than that, and twice as long as
most of them, hold up no other call; where the worker is busy, all take long."""

KEPT_FOR: Final = 600.0
"""Seconds that a result is kept for a host that does not ask for it any more."""

SOON: Final = timedelta(0)
"""After the usual delay."""

Perform = Callable[[Any], Awaitable[Wire]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningStep:
    """A step that has begun in this worker; `argument` as it arrived, as JSON.

    Attributes:
        forgetting: drops it when no host asks for its result any more.
    """

    argument: Any
    task: asyncio.Task[BatchedResult]
    forgetting: asyncio.TimerHandle


class PerformSteps:
    """Performs what hosts of many calls ask for, with the activities of the single calls.

    A step that takes longer than its batch goes on in this worker. The host asks for its result
    again; another worker, or this one after a crash, performs it again, as it does with any local
    activity whose workflow task was lost.
    """

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps
        self._running: dict[tuple[str, int], RunningStep] = {}

    @cached_property
    def _performers(self) -> Mapping[str, tuple[type[Wire], Perform]]:
        # Requests of hosted calls have a share of their own, beside those of single calls.
        rides = RideLimiter(len(self._deps.catalog.integrations))
        deps = replace(self._deps, rides=rides)
        acknowledge, prepare = Acknowledge(deps), Prepare(deps, Send(deps))
        return {
            names.PREPARE: (PrepareStep, prepare.prepare),
            names.RECONSIDER: (ReconsiderStep, prepare.reconsider),
            names.RECORD: (RecordStep, Record(deps, acknowledge).record),
            names.CONCLUDE: (ConcludeStep, Conclude(deps).conclude),
            names.ACKNOWLEDGE: (AcknowledgeStep, acknowledge.acknowledge),
        }

    @cached_property
    def _turns(self) -> defaultdict[str, asyncio.Semaphore]:
        # As many of a provider as may ride, so that none is refused a ride.
        share = RideLimiter(len(self._deps.catalog.integrations)).share
        return defaultdict(lambda: asyncio.Semaphore(share))

    @activity.defn(name=names.PERFORM_STEPS)
    async def perform_steps(self, batch: StepBatch) -> BatchResult:
        """Perform the steps; those that take long are pending in the result.

        A failed step is part of the result, and the others go on.
        """
        run_id = activity.info().workflow_run_id or ""
        running = [self._join(run_id, step) for step in batch.steps]
        new = [one.task for one, is_new in running if is_new]
        if new:
            await _wait_for_most(new)
        results, size = list[BatchedResult](), 0
        for step, (one, _) in zip(batch.steps, running, strict=True):
            result = one.task.result() if one.task.done() else BatchedResult(is_pending=True)
            length = len(to_json(result))
            if results and size + length > MAX_RESULT_BYTES:
                # The host asks again, and it is there.
                result, length = BatchedResult(is_pending=True), 0
            if not result.is_pending:
                # The timer would keep the step and its result until then.
                one.forgetting.cancel()
                self._running.pop((run_id, step.key), None)
            results.append(result)
            size += length
        return BatchResult(results=tuple(results), size=size)

    def _join(self, run_id: str, step: BatchedStep) -> tuple[RunningStep, bool]:
        """The step as it runs, and whether it has begun just now."""
        key = (run_id, step.key)
        known = self._running.get(key)
        if known is not None:
            if known.argument == step.argument:
                return known, False
            known.forgetting.cancel()
        task = asyncio.create_task(self._perform(step), name=f"step {step.name}")
        forgetting = asyncio.get_running_loop().call_later(KEPT_FOR, self._running.pop, key, None)
        started = self._running[key] = RunningStep(step.argument, task, forgetting)
        return started, True

    async def _perform(self, step: BatchedStep) -> BatchedResult:
        try:
            model, perform = self._performers[step.name]
            argument: Any = model.model_validate(step.argument)
            async with self._turns[argument.request.provider], asyncio.timeout(step.timeout):
                result = await perform(argument)
        except ApplicationError as error:
            return BatchedResult(failure=failed_attempt(error))
        except TimeoutError:
            return BatchedResult(failure=_timed_out(step))
        except Exception as error:
            log.exception("a step of a hosted call failed")
            kind = type(error).__name__
            reason = f"unexpected error: {kind}"
            return BatchedResult(failure=FailedAttempt(kind=kind, reason=reason, again_after=SOON))
        return BatchedResult(value=result.model_dump(mode="json", exclude_defaults=True))


async def _wait_for_most(tasks: Sequence[asyncio.Task[BatchedResult]]) -> None:
    """Wait for all tasks, but for those that take much longer than the others."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    pending = set(tasks)
    until = began + WAITS_AT_LEAST
    while pending and (left := until - loop.time()) > 0:
        done, pending = await asyncio.wait(
            pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        if done and len(pending) <= len(tasks) / 2:
            took = loop.time() - began
            until = max(until, min(began + 2 * took, began + WAITS_AT_MOST))


def _timed_out(step: BatchedStep) -> FailedAttempt:
    return FailedAttempt(
        kind=StepFailure.NO_RECEIPT,
        reason=f"{step.name} did not end within {step.timeout:g} s",
        reached=True,
        again_after=SOON,
    )
