"""The host of one call: a Temporal workflow."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from temporalio import exceptions, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType

from .host import Lane, Result, Step, StepFailed
from .story import tell

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import CallStatus, StepFailure, Trouble, Wire, names, search

LONGEST_REASON = 500
"""Characters of a reason that are kept: what providers say has no bound."""

LONGEST_RETRY = timedelta(minutes=5)
"""Retries back off to this and no further."""

ONCE = RetryPolicy(maximum_attempts=1)


class TemporalHost:
    """Activities, timers, current details and search attributes, for one workflow."""

    def __init__(self) -> None:
        self._beside: set[asyncio.Task[None]] = set()
        self._indexed = False

    def now(self) -> datetime:
        """The workflow's clock."""
        return workflow.now()

    async def perform(self, provider: str, step: Step[Result], argument: Wire) -> Result:
        """Do a step in the workflow task if it may, and through its queue if that fails.

        Raises:
            StepFailed: it was refused, or its attempts or its time ran out.
        """
        if not step.local_first:
            return await self._through_queue(provider, step, argument, tried=0)
        try:
            result: Result = await workflow.execute_local_activity(
                step.name,
                argument,
                result_type=step.result,
                start_to_close_timeout=step.timeout,
                retry_policy=ONCE,
                summary=step.summary,
            )
            return result  # noqa: TRY300 -- an else would sit far below, behind the fallback
        except FailureError as error:
            failed, delay = _explain(error, tried=0)
            if delay is None or step.attempts == 1:
                raise failed from None
        delay = max(delay, step.first_retry * (1 + workflow.random().random() / 2))
        if step.within is not None and delay >= step.within:
            raise failed
        await workflow.sleep(delay, summary=f"try again: {failed.reason}"[:200])
        return await self._through_queue(provider, step, argument, tried=1)

    async def _through_queue(
        self, provider: str, step: Step[Result], argument: Wire, tried: int
    ) -> Result:
        try:
            result: Result = await workflow.execute_activity(
                step.name,
                argument,
                result_type=step.result,
                task_queue=_queue(provider, step.lane),
                start_to_close_timeout=step.timeout,
                schedule_to_start_timeout=step.queue_within,
                schedule_to_close_timeout=step.within,
                retry_policy=RetryPolicy(
                    initial_interval=step.first_retry,
                    maximum_interval=LONGEST_RETRY,
                    maximum_attempts=0 if step.attempts is None else step.attempts - tried,
                ),
                summary=step.summary,
            )
        except FailureError as error:
            raise _explain(error, tried)[0] from None
        attempt = getattr(result, "attempt", None)
        return result.model_copy(update={"attempt": attempt + tried}) if attempt else result

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


def _queue(provider: str, lane: Lane) -> str:
    if lane is Lane.SEND:
        return names.send_queue(provider)
    return names.settle_queue(provider) if lane is Lane.SETTLE else names.TASK_QUEUE


def _explain(error: FailureError, tried: int) -> tuple[StepFailed, timedelta | None]:
    """What went wrong, and how long to wait before another try (None: there shall be none)."""
    # A regular activity's failure is wrapped, a local one's is not.
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        trouble = _trouble(cause)
        failed = StepFailed(
            cause.type or "Unknown",
            cause.message[:LONGEST_REASON],
            attempts=tried + trouble.attempt,
            reached=trouble.reached,
        )
        again = None if cause.non_retryable else cause.next_retry_delay or timedelta(0)
        return failed, again
    if isinstance(cause, exceptions.TimeoutError):
        if cause.type is TimeoutType.SCHEDULE_TO_START:
            reason = "no worker took it up in time: nothing was sent"
            return StepFailed(StepFailure.UNAVAILABLE, reason, attempts=tried), None
        # The worker may have died after it had sent.
        reason = "the attempt did not report back in time"
        failed = StepFailed(StepFailure.NO_RECEIPT, reason, attempts=tried + 1, reached=True)
        return failed, timedelta(0)
    return StepFailed("Unknown", f"{type(cause).__name__}", attempts=tried + 1), None


def _trouble(cause: ApplicationError) -> Trouble:
    for detail in cause.details:
        if isinstance(detail, dict):
            return Trouble.model_validate(detail)
    return Trouble()
