"""What is said of a request that a call has not taken."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ackbridge.client.operator_requests import raise_if_too_late
from ackbridge.contracts import names
from ackbridge.contracts.calls import (
    CallOutcome,
    CallStatus,
    Intervention,
    OutcomeStatus,
    Stage,
    Timings,
)
from ackbridge.errors import CallEndedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CANCELLED = CallOutcome(
    call_id="c",
    status=OutcomeStatus.CANCELLED,
    cancelled=Intervention(by="ann", reason="by mistake"),
    timings=Timings(started_at=NOW),
)
ENDED = CallStatus(call_id="c", stage=Stage.CANCELLED, since=NOW, outcome=CANCELLED)


@pytest.mark.parametrize(("name", "by"), [(names.FORCE_ACK, "ann"), (names.CANCEL, "bo")])
def test_a_call_that_ends_without_a_request_has_not_taken_it(name: str, by: str) -> None:
    """It may not have come to it when it told its status, so that it has no error of it."""
    with pytest.raises(CallEndedError, match="too late, the call is cancelled"):
        raise_if_too_late(ENDED, name, by)


def test_what_a_call_has_taken_is_not_too_late() -> None:
    """Nor is what an open call may still take; what it rejects says why."""
    raise_if_too_late(ENDED, names.CANCEL, "ann")
    is_open = ENDED.model_copy(update={"stage": Stage.ACKNOWLEDGING})
    raise_if_too_late(is_open, names.FORCE_ACK, "bo")
    rejected = is_open.model_copy(update={"last_error": "force_ack by bo: too late"})
    with pytest.raises(CallEndedError, match="force_ack by bo: too late"):
        raise_if_too_late(rejected, names.FORCE_ACK, "bo")
