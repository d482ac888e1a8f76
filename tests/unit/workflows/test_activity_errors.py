"""What the engine's failures of activities mean for a call."""

from __future__ import annotations

import pytest
from temporalio import exceptions
from temporalio.exceptions import ApplicationError, TimeoutType

from ackbridge.contracts.steps import StepFailure
from workflows.hosting.activity_errors import classify


@pytest.mark.parametrize(
    ("before", "timeout", "kind", "reached"),
    [
        # It was held back, and then an attempt was made that did not report back.
        (StepFailure.HELD_BACK, TimeoutType.START_TO_CLOSE, StepFailure.NO_RECEIPT, True),
        (StepFailure.MISSING, TimeoutType.START_TO_CLOSE, StepFailure.NO_RECEIPT, True),
        # It was held back, and no worker took it up again.
        (StepFailure.HELD_BACK, TimeoutType.SCHEDULE_TO_START, StepFailure.HELD_BACK, False),
        (StepFailure.MISSING, TimeoutType.SCHEDULE_TO_START, StepFailure.UNAVAILABLE, False),
        # Its time was over.
        (StepFailure.MISSING, TimeoutType.SCHEDULE_TO_CLOSE, StepFailure.MISSING, False),
    ],
)
def test_attempt_after_being_held_back_may_have_arrived(
    before: StepFailure, timeout: TimeoutType, kind: StepFailure, reached: bool
) -> None:
    """The engine names the failure before it as the cause, which says nothing of the attempt."""
    error = exceptions.TimeoutError("timed out", type=timeout, last_heartbeat_details=[])
    error.__cause__ = ApplicationError("3 of 3 are in flight", type=before)
    found = classify(error)
    assert (found.kind, found.reached) == (kind, reached)
