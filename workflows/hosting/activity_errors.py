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
    from ackbridge.contracts.steps import FailedAttempt, FailureDetails, StepFailure


def classify(error: FailureError) -> StepError:
    """Classify the failure of an activity, local or not."""
    # A regular activity's failure is wrapped, a local one's is not.
    cause = error.cause if isinstance(error, ActivityError) else error
    match cause:
        case ApplicationError():
            return _from_activity(cause)
        case exceptions.TimeoutError():
            return _timed_out(cause)
        case exceptions.CancelledError():
            # An attempt that no worker had started did not reach the provider.
            was_started = not isinstance(error, ActivityError) or bool(error.started_event_id)
            reason = "interrupted while it waited for an attempt"
            return StepError(INTERRUPTED, reason, attempts=int(was_started), reached=was_started)
        case _:
            return StepError("Unknown", type(cause).__name__, reached=True)


def from_attempt(attempt: FailedAttempt) -> StepError:
    """The error of an attempt that was made by another step's activity."""
    return StepError(
        attempt.kind,
        attempt.reason[:MAX_ERROR_LENGTH],
        reached=attempt.reached,
        code=attempt.code,
        retry_after=attempt.again_after,
        throttled=attempt.throttled,
    )


def _timed_out(timeout: exceptions.TimeoutError) -> StepError:
    last = timeout.cause
    if timeout.type is TimeoutType.START_TO_CLOSE and _is_of(
        last, StepFailure.HELD_BACK, StepFailure.MISSING
    ):
        # It was held back before, and then it was sent.
        last = None
    if timeout.type is TimeoutType.SCHEDULE_TO_START and _is_of(last, StepFailure.MISSING):
        # The worker that lacked something has stopped, and there is no other.
        last = None
    if isinstance(last, ApplicationError):
        # Time ran out while it waited for another attempt: the last attempt's error counts.
        return _from_activity(last)
    if timeout.type is TimeoutType.SCHEDULE_TO_START and last is None:
        reason = "no worker took it up in time: nothing was sent"
        return StepError(StepFailure.UNAVAILABLE, reason, attempts=0)
    # The worker may have died after it had sent.
    reason = "the attempt did not report back in time"
    return StepError(StepFailure.NO_RECEIPT, reason, reached=True, retry_after=timedelta(0))


def _is_of(error: BaseException | None, *kinds: StepFailure) -> bool:
    return isinstance(error, ApplicationError) and error.type in kinds


def _from_activity(error: ApplicationError) -> StepError:
    details = _details(error.details)
    return StepError(
        error.type or "Unknown",
        error.message[:MAX_ERROR_LENGTH],
        attempts=details.attempt,
        reached=details.reached,
        code=details.code,
        retry_after=None if error.non_retryable else error.next_retry_delay or timedelta(0),
        throttled=details.throttled,
    )


def _details(details: Iterable[Any]) -> FailureDetails:
    for detail in details:
        if isinstance(detail, dict):
            return FailureDetails.model_validate(detail)
    return FailureDetails()
