"""The host of one call: a Temporal workflow."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

from workflows.call.ui_details import tell

from .activity_errors import explain
from .host import (
    INTERRUPTED,
    FirstAttempt,
    OnInterrupt,
    Result,
    Step,
    StepError,
    TaskQueueKind,
)

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts import search_attributes as search
    from ackbridge.contracts.calls import CallStatus
    from ackbridge.contracts.deliveries import Delivery
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.steps import StepFailure
    from ackbridge.contracts.wire import Wire

LONGEST_RETRY = timedelta(minutes=5)
"""Retries back off to this and no further."""

YOUNG = 30
"""Events of a history that another version does not have to begin anew."""

ONCE = RetryPolicy(maximum_attempts=1)

_CANCELLATION = {
    OnInterrupt.AWAITED: workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    OnInterrupt.ABANDONED: workflow.ActivityCancellationType.TRY_CANCEL,
}


class TemporalHost:
    """Activities, timers, current details and search attributes, for one workflow."""

    def __init__(self) -> None:
        self._beside: set[asyncio.Task[None]] = set()
        self._indexed = False

    def now(self) -> datetime:
        """The workflow's clock."""
        return workflow.now()

    def is_worn(self) -> bool:
        """Whether the history is long, or the call is pinned to a version that is outdated."""
        return is_worn()

    async def perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        interrupted: Callable[[], bool] | None = None,
    ) -> Result:
        """Do a step: first in the workflow task, if it may, and then through its queue.

        Raises:
            StepError: it was refused, its attempts or its time ran out, or it was interrupted.
        """
        began = workflow.now()
        try:
            if step.local_first:
                return await self._in_workflow_task(step, argument)
            if not step.waiting_counts:
                return await self._again(provider, step, argument, 0, step.within, interrupted)
            bounds = _bounds(step, 0, step.within)
            return await self._through_queue(provider, step, argument, bounds, 1, interrupted)
        except FailureError as error:
            failed, again_after = explain(error, tried=0)
        if not step.local_first:
            # It began when a worker took it up, shortly before it failed.
            began = workflow.now()
        first = FirstAttempt(failed, again_after, began)
        return await self.go_on(provider, step, argument, first, interrupted)

    async def go_on(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        first: FirstAttempt,
        interrupted: Callable[[], bool] | None = None,
    ) -> Result:
        """Do a step through its queue whose first attempt has failed.

        Raises:
            StepError: it was refused, its attempts or its time ran out, or it was interrupted.
        """
        failed, delay = first.failed, first.again_after
        if delay is None or step.attempts == 1:
            raise failed
        await self._pause(step, failed, delay, interrupted or _never)
        spent = workflow.now() - first.began
        left = step.within and max(step.within - spent, timedelta(seconds=1))
        if step.once_tried is not None:
            argument = step.once_tried(argument, failed, first.began)
        try:
            return await self._again(provider, step, argument, 1, left, interrupted)
        except StepError as again:
            was_taken_up = again.attempts > 1 or again.kind != StepFailure.UNAVAILABLE
            if step.waiting_counts and not was_taken_up:
                raise StepError(failed.kind, _held_up(failed), reached=failed.reached) from None
            if failed.reached and not again.reached:
                # No other attempt was made, or none that says more than the first one.
                reason, attempts = failed.reason, again.attempts
                raise StepError(failed.kind, reason, attempts=attempts, reached=True) from None
            raise

    async def _in_workflow_task(self, step: Step[Result], argument: Wire) -> Result:
        result: Result = await workflow.execute_local_activity(
            step.name,
            argument,
            result_type=step.result,
            start_to_close_timeout=step.timeout,
            retry_policy=ONCE,
            summary=step.summary,
        )
        return result

    async def _pause(
        self,
        step: Step[Result],
        failed: StepError,
        delay: timedelta,
        interrupted: Callable[[], bool],
    ) -> None:
        """Wait before the second attempt, which goes through the queue.

        Raises:
            StepError: the first one's failure, when there is no time for another; or interrupted.
        """
        delay = max(delay, step.first_retry * (1 + workflow.random().random() / 2))
        if step.within is not None and delay >= step.within:
            raise failed
        until = workflow.now() + delay
        if await self.wait(interrupted, until, f"try again: {failed.reason}"):
            raise StepError(INTERRUPTED, failed.reason, attempts=1, reached=failed.reached)

    async def _again(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        tried: int,
        within: timedelta | None,
        interrupted: Callable[[], bool] | None,
    ) -> Result:
        """All attempts that are left; the engine repeats them."""
        attempts = 0 if step.attempts is None else step.attempts - tried
        bounds = _bounds(step, tried, within)
        try:
            result = await self._through_queue(
                provider, step, argument, bounds, attempts, interrupted
            )
        except FailureError as error:
            raise explain(error, tried)[0] from None
        attempt = getattr(result, "attempt", None)
        return result.model_copy(update={"attempt": attempt + tried}) if attempt else result

    async def _through_queue(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        bounds: tuple[timedelta | None, timedelta | None],
        attempts: int,
        interrupted: Callable[[], bool] | None,
    ) -> Result:
        waits, altogether = bounds
        activity: workflow.ActivityHandle[Result] = workflow.start_activity(
            step.name,
            argument,
            result_type=step.result,
            task_queue=_queue(provider, step.lane),
            start_to_close_timeout=step.timeout,
            schedule_to_start_timeout=waits,
            schedule_to_close_timeout=altogether,
            heartbeat_timeout=step.silent_for,
            retry_policy=RetryPolicy(
                initial_interval=step.first_retry,
                maximum_interval=LONGEST_RETRY,
                maximum_attempts=attempts,
            ),
            cancellation_type=_CANCELLATION[step.interruption],
            priority=Priority(fairness_key=step.fairness) if step.fairness else Priority.default,
            summary=step.summary,
        )
        if interrupted is not None:
            await workflow.wait_condition(lambda: activity.done() or interrupted())
            if not activity.done():
                activity.cancel()
        return await activity

    async def wait(
        self, condition: Callable[[], bool], until: datetime | None, summary: str
    ) -> bool:
        """Wait for a condition; false when the time came first."""
        if condition():
            return True
        if until is None:
            await workflow.wait_condition(condition)
            return True
        left = until - workflow.now()
        if left <= timedelta(0):
            return False
        try:
            await workflow.wait_condition(condition, timeout=left, timeout_summary=summary[:200])
        except builtins.TimeoutError:
            return condition()
        return True

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the call."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def deliver(self, delivery: Delivery) -> None:
        """Start a workflow that delivers a notice; one that was started before is left alone."""
        body = delivery.body
        try:
            handle = await workflow.start_child_workflow(
                names.DELIVER_NOTICE,
                delivery,
                id=names.notice_id(body.id),
                task_queue=names.TASK_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"{body.type} to {delivery.subscriber}",
            )
        except WorkflowAlreadyStartedError:
            return
        # Nobody here waits for its end, which may be a failure.
        handle.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def show(self, status: CallStatus) -> None:
        """Tell the Temporal UI where the call is."""
        workflow.set_current_details(tell(status))

    def index_at_start(self, provider: str, operation: str) -> None:
        """Set what our own clients set at start, for a call that a foreign one has started."""
        self._indexed = True
        if search.PROVIDER not in {pair.key for pair in workflow.info().typed_search_attributes}:
            workflow.upsert_search_attributes(
                [pair.key.value_set(pair.value) for pair in search.at_start(provider, operation)]
            )

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        """Upsert the stage, if our search attributes are registered."""
        if not self._indexed:
            return
        workflow.upsert_search_attributes(
            [
                search.STAGE.value_set(stage),
                search.PARKED_REASON.value_set(parked_reason)
                if parked_reason
                else search.PARKED_REASON.value_unset(),
                search.DEADLINE.value_set(deadline) if deadline else search.DEADLINE.value_unset(),
            ]
        )

    def index_owed(self, is_owed: bool) -> None:
        """Upsert whether an acknowledgement is owed, if our search attributes are registered."""
        if self._indexed:
            workflow.upsert_search_attributes([search.OWED.value_set(is_owed)])


def is_worn() -> bool:
    """Whether a history is long, or its workflow is pinned to a version that is outdated."""
    info = workflow.info()
    is_outdated = (
        info.is_target_worker_deployment_version_changed()
        and info.get_current_history_length() > YOUNG
    )
    return info.is_continue_as_new_suggested() or is_outdated


def _held_up(failed: StepError) -> str:
    return f"{failed.reason}; then no worker could take it up in time"[:MAX_ERROR_LENGTH]


def _bounds(
    step: Step[Result], tried: int, within: timedelta | None
) -> tuple[timedelta | None, timedelta | None]:
    """How long it may wait for a worker, and how long everything may take."""
    waits = step.queue_within
    if within is None:
        return waits, None
    if tried and step.waiting_counts:
        return min(waits or within, within), within + step.timeout
    # Waiting for a worker is no trying: only what follows it counts.
    return waits, within + (waits or timedelta(0))


def _never() -> bool:
    return False


def _queue(provider: str, lane: TaskQueueKind) -> str:
    if lane is TaskQueueKind.SEND:
        return names.send_queue(provider)
    return names.settle_queue(provider) if lane is TaskQueueKind.SETTLE else names.TASK_QUEUE
