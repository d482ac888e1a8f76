"""What the engine's errors mean to the protocol of a call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType

from .host import INTERRUPTED, StepError

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.steps import FailureDetails, StepFailure


def explain(error: FailureError, tried: int) -> tuple[StepError, timedelta | None]:
    """What went wrong with an activity, local or not.

    Args:
        tried: attempts that were made before this activity was scheduled.

    Returns:
        The failure, and how long to wait before another try; None when there shall be none.
    """
    # A regular activity's failure is wrapped, a local one's is not.
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, ApplicationError):
        trouble = _trouble(cause.details)
        failed = StepError(
            cause.type or "Unknown",
            cause.message[:MAX_ERROR_LENGTH],
            attempts=tried + trouble.attempt,
            reached=trouble.reached,
        )
        again = None if cause.non_retryable else cause.next_retry_delay or timedelta(0)
        return failed, again
    if isinstance(cause, exceptions.TimeoutError):
        return _timed_out(cause, tried)
    if isinstance(cause, exceptions.CancelledError):
        # It was waiting for a worker or for its next attempt, and the engine does not say which:
        # the provider may have got an attempt.
        reason = "it was interrupted while it waited for its next attempt"
        return StepError(INTERRUPTED, reason, attempts=tried, reached=True), None
    return StepError("Unknown", f"{type(cause).__name__}", attempts=tried + 1), None


def _timed_out(timeout: exceptions.TimeoutError, tried: int) -> tuple[StepError, timedelta | None]:
    before = timeout.cause
    if isinstance(before, ApplicationError):
        # Time ran out while it waited for another attempt: what the last one said counts.
        trouble = _trouble(before.details)
        attempts = tried + trouble.attempt
        reason = before.message[:MAX_ERROR_LENGTH]
        kind = before.type or "Unknown"
        return StepError(kind, reason, attempts=attempts, reached=trouble.reached), None
    if timeout.type is TimeoutType.SCHEDULE_TO_START and before is None:
        reason = "no worker took it up in time: nothing was sent"
        return StepError(StepFailure.UNAVAILABLE, reason, attempts=tried), None
    # The worker may have died after it had sent.
    reason = "the attempt did not report back in time"
    failed = StepError(StepFailure.NO_RECEIPT, reason, attempts=tried + 1, reached=True)
    return failed, timedelta(0)


def _trouble(details: Iterable[Any]) -> FailureDetails:
    for detail in details:
        if isinstance(detail, dict):
            return FailureDetails.model_validate(detail)
    return FailureDetails()
