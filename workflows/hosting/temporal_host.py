"""The host of one call: a Temporal workflow."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

from .activity_errors import classify
from .host import (
    INTERRUPTED,
    Condition,
    OnInterrupt,
    Result,
    Step,
    StepError,
    TaskQueueKind,
)

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts import search_attributes as search
    from ackbridge.contracts.calls import CallRequest, CallStatus
    from ackbridge.contracts.deliveries import Delivery
    from ackbridge.contracts.wire import Wire

SHORT_HISTORY = 30
"""Events; a history this short does not continue as new for the sake of another version."""

ONCE = RetryPolicy(maximum_attempts=1)

_CANCELLATION = {
    OnInterrupt.AWAITED: workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    OnInterrupt.ABANDONED: workflow.ActivityCancellationType.TRY_CANCEL,
}


def should_continue_as_new() -> bool:
    """Whether the history is long, or the workflow's deployment version is not the target one."""
    info = workflow.info()
    is_outdated = (
        info.is_target_worker_deployment_version_changed()
        and info.get_current_history_length() > SHORT_HISTORY
    )
    return info.is_continue_as_new_suggested() or is_outdated


class TemporalHost:
    """Activities, timers, current details and search attributes of one workflow."""

    def __init__(self, render: Callable[[CallStatus], str]) -> None:
        """Host the protocol of one call.

        Args:
            render: the current details of a call, in Markdown.
        """
        self._render = render
        self._background: set[asyncio.Task[None]] = set()
        self._indexed = False

    def now(self) -> datetime:
        """The workflow's time."""
        return workflow.now()

    def should_continue_as_new(self) -> bool:
        """See the function of the same name."""
        return should_continue_as_new()

    def should_move_out(self) -> bool:
        """Never: the workflow is the call's own."""
        return False

    async def perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        interrupted: Condition | None = None,
    ) -> Result:
        """Perform a step: first as a local activity, if it may be one, then through its queue.

        Raises:
            StepError: it was refused, its attempts or its time ran out, or it was interrupted.
        """
        if not step.local_first:
            return await self._perform(provider, step, argument, step.attempts, interrupted)
        started_at = workflow.now()
        try:
            return await self._execute_locally(step, argument)
        except StepError as error:
            first = error
        if first.retry_after is None or step.attempts == 1:
            raise first
        await self._back_off(step, first, first.retry_after, interrupted or (lambda: False))
        if step.within is not None:
            spent = workflow.now() - started_at
            step = replace(step, within=max(step.within - spent, timedelta(seconds=1)))
        if step.after_first_attempt is not None:
            argument = step.after_first_attempt(argument, first)
        attempts = None if step.attempts is None else step.attempts - 1
        return await self._perform(provider, step, argument, attempts, interrupted)

    async def _execute_locally(self, step: Step[Result], argument: Wire) -> Result:
        try:
            result: Result = await workflow.execute_local_activity(
                step.name,
                argument,
                result_type=step.result,
                start_to_close_timeout=step.timeout,
                retry_policy=ONCE,
                summary=step.summary,
            )
        except FailureError as failure:
            raise classify(failure) from None
        return result

    async def _back_off(
        self, step: Step[Result], error: StepError, delay: timedelta, interrupted: Condition
    ) -> None:
        """Wait before the second attempt.

        Raises:
            StepError: the first one's, when there is no time for another; or interrupted.
        """
        delay = max(delay, step.first_retry * (1 + workflow.random().random() / 2))
        if step.within is not None and delay >= step.within:
            raise error
        until = workflow.now() + delay
        if await self.wait(interrupted, until, f"retry {step.name}: {error.reason}"):
            raise StepError(INTERRUPTED, error.reason, attempts=1, reached=error.reached) from error

    async def _perform(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        attempts: int | None,
        interrupted: Condition | None,
    ) -> Result:
        """Make all attempts through the queue; the engine repeats them."""
        try:
            return await self._execute(provider, step, argument, attempts, interrupted)
        except FailureError as failure:
            raise classify(failure) from None

    async def _execute(
        self,
        provider: str,
        step: Step[Result],
        argument: Wire,
        attempts: int | None,
        interrupted: Condition | None,
    ) -> Result:
        # The time in the queue is not part of the budget: only what follows it.
        schedule_to_close = step.within and step.within + (step.queue_within or timedelta(0))
        activity: workflow.ActivityHandle[Result] = workflow.start_activity(
            step.name,
            argument,
            result_type=step.result,
            task_queue=_task_queue(provider, step.queue),
            start_to_close_timeout=step.timeout,
            schedule_to_start_timeout=step.queue_within,
            schedule_to_close_timeout=schedule_to_close,
            heartbeat_timeout=step.heartbeat_timeout,
            retry_policy=RetryPolicy(
                initial_interval=step.first_retry,
                maximum_interval=step.longest_retry,
                maximum_attempts=attempts or 0,
                non_retryable_error_types=step.not_repeated or None,
            ),
            cancellation_type=_CANCELLATION[step.on_interrupt],
            priority=Priority(priority_key=step.priority, fairness_key=step.fairness),
            summary=step.summary,
            activity_id=self._next_activity_id(),
        )
        if interrupted is not None:
            await workflow.wait_condition(lambda: activity.done() or interrupted())
            if not activity.done():
                activity.cancel()
        return await activity

    def _next_activity_id(self) -> str | None:
        """Of an activity through a queue; None: the engine's own."""
        return None

    async def wait(self, condition: Condition, until: datetime | None, summary: str = "") -> bool:
        """Wait for a condition; false if it is still false at `until`."""
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

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the call."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

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
        # Its failure is nobody's concern here, and must be retrieved all the same.
        handle.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def pass_on(self, workflow_id: str, name: str, argument: Mapping[str, Any]) -> bool:
        """Send a signal to another workflow; false if that has ended."""
        try:
            await workflow.get_external_workflow_handle(workflow_id).signal(name, argument)
        except FailureError as error:
            workflow.logger.warning("%s to %s comes too late: %s", name, workflow_id, error)
            return False
        return True

    def show(self, status: CallStatus) -> None:
        """Set the current details of the Temporal UI."""
        workflow.set_current_details(self._render(status))

    def index_at_start(self, request: CallRequest) -> None:
        """Set what our own clients set at start, for a call that another client has started."""
        self._indexed = True
        if search.PROVIDER not in {pair.key for pair in workflow.info().typed_search_attributes}:
            workflow.upsert_search_attributes(
                [pair.key.value_set(pair.value) for pair in request.search_attributes]
            )

    def index(self, stage: str, parked_reason: str | None, deadline: datetime | None) -> None:
        """Upsert the stage, if our search attributes are registered."""
        if not self._indexed:
            return
        reason, until = search.PARKED_REASON, search.DEADLINE
        workflow.upsert_search_attributes(
            [
                search.STAGE.value_set(stage),
                reason.value_set(parked_reason) if parked_reason else reason.value_unset(),
                until.value_set(deadline) if deadline else until.value_unset(),
            ]
        )

    def index_pending_acknowledgements(self, *, are_pending: bool) -> None:
        """Upsert whether acknowledgements are pending, if our attributes are registered."""
        if self._indexed:
            workflow.upsert_search_attributes([search.OWED.value_set(are_pending)])


def _task_queue(provider: str, kind: TaskQueueKind) -> str:
    match kind:
        case TaskQueueKind.SEND:
            return names.send_queue(provider)
        case TaskQueueKind.SETTLE:
            return names.settle_queue(provider)
        case TaskQueueKind.MAIN:
            return names.TASK_QUEUE
