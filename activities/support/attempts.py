"""What is known of all attempts of a send: since when it is tried, and what may have arrived."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime, ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.clock import Clock
from ackbridge.contracts.steps import SendStep, StepFailure
from ackbridge.contracts.wire import Wire

from .retry import Cause, failure, patience


class AttemptRecord(Wire):
    """What a failed attempt leaves to the next one, as the activity's heartbeat details.

    Attributes:
        attempt: which one it was; should it not be the last, the last one's process has died.
        first_started_at: when the first attempt began, in the engine's time.
        reached: whether the provider may have got the request from any attempt so far.
        reason: why this one failed.
    """

    attempt: int
    first_started_at: AwareDatetime
    reached: bool
    reason: str


class AttemptHistory:
    """The attempt in hand, and all before it.

    Times are the engine's, which may differ from ours, and in tests runs faster.

    Attributes:
        reached: whether the provider may have got the request from any attempt so far.
    """

    def __init__(self, step: SendStep, clock: Clock) -> None:
        self._info = activity.info()
        self._clock = clock
        self._began_at = clock()
        self._tried = step.tried
        self._first_started_at = step.first_tried_at or self._info.started_time
        self.reached = step.reached
        self._last_reason = "the time for it was over before its turn came"
        if self._info.attempt > 1:
            self._take_over(step)

    def overdue(self, within: timedelta) -> Cause | None:
        """Why this attempt is one too many, if it begins when the time of them all is over."""
        if self._info.started_time <= self._first_started_at + within:
            return None
        return Cause(StepFailure.NO_RECEIPT, self._last_reason, final=True)

    def failed(self, cause: Cause, within: timedelta | None) -> ApplicationError:
        """The failure of this attempt, for the workflow and for the next attempt.

        Args:
            within: the time of all attempts, where it is known. None of them begins later.
        """
        self.reached = self.reached or cause.reached
        kind = cause.kind
        if kind is StepFailure.UNAVAILABLE and self.reached:
            # Something of ours is away; what matters is that the provider may have the request.
            kind = StepFailure.NO_RECEIPT
        delay = patience(self._tried + self._info.attempt, cause.retry_after)
        final = cause.final or (within is not None and self._is_over(delay, within))
        if not final:
            self._leave(cause.reason)
        return failure(kind, cause.reason, final=final, reached=self.reached, delay=delay)

    def _is_over(self, delay: timedelta, within: timedelta) -> bool:
        now = self._info.started_time + (self._clock() - self._began_at)
        return now + delay > self._first_started_at + within

    def _take_over(self, step: SendStep) -> None:
        left = _left(self._info)
        # Whoever says nothing has died, and may have sent before.
        self.reached = left is None or left.reached or left.attempt != self._info.attempt - 1
        self._last_reason = "the attempt did not report back in time"
        self._first_started_at = step.first_tried_at or self._info.scheduled_time
        if left is not None:
            self._first_started_at = left.first_started_at
            self._last_reason = left.reason

    def _leave(self, reason: str) -> None:
        if self._info.is_local:
            return  # the workflow gives the next attempt what it has to know
        left = AttemptRecord(
            attempt=self._info.attempt,
            first_started_at=self._first_started_at,
            reached=self.reached,
            reason=reason,
        )
        activity.heartbeat(left)


def _left(info: activity.Info) -> AttemptRecord | None:
    for details in info.heartbeat_details:
        try:
            return AttemptRecord.model_validate(details)
        except ValidationError:
            return None
    return None
