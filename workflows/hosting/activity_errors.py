"""Translate the engine's errors into `StepError`."""

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


def classify(error: FailureError, tried: int) -> tuple[StepError, timedelta | None]:
    """Classify the failure of an activity, local or not.

    Args:
        tried: attempts that were made before this activity was scheduled.

    Returns:
        The error, and how long to wait before another attempt; None if there must not be one.
    """
    # A regular activity's failure is wrapped, a local one's is not.
    cause = error.cause if isinstance(error, ActivityError) else error
    match cause:
        case ApplicationError():
            retry_after = cause.next_retry_delay or timedelta(0)
            return _from_activity(cause, tried), None if cause.non_retryable else retry_after
        case exceptions.TimeoutError():
            return _timed_out(cause, tried)
        case exceptions.CancelledError():
            # It waited for a worker or for its next attempt, and the engine does not say which:
            # an attempt may have reached the provider.
            reason = "interrupted while it waited for its next attempt"
            return StepError(INTERRUPTED, reason, attempts=tried, reached=True), None
        case _:
            return StepError("Unknown", type(cause).__name__, attempts=tried + 1), None


def _timed_out(timeout: exceptions.TimeoutError, tried: int) -> tuple[StepError, timedelta | None]:
    last = timeout.cause
    if isinstance(last, ApplicationError):
        # Time ran out while it waited for another attempt: the last attempt's error counts.
        return _from_activity(last, tried), None
    if timeout.type is TimeoutType.SCHEDULE_TO_START and last is None:
        reason = "no worker took it up in time: nothing was sent"
        return StepError(StepFailure.UNAVAILABLE, reason, attempts=tried), None
    # The worker may have died after it had sent.
    reason = "the attempt did not report back in time"
    error = StepError(StepFailure.NO_RECEIPT, reason, attempts=tried + 1, reached=True)
    return error, timedelta(0)


def _from_activity(error: ApplicationError, tried: int) -> StepError:
    details = _details(error.details)
    return StepError(
        error.type or "Unknown",
        error.message[:MAX_ERROR_LENGTH],
        attempts=tried + details.attempt,
        reached=details.reached,
    )


def _details(details: Iterable[Any]) -> FailureDetails:
    for detail in details:
        if isinstance(detail, dict):
            return FailureDetails.model_validate(detail)
    return FailureDetails()
