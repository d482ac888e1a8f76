"""Failures that report an outcome have no stack trace; defects keep theirs."""

from __future__ import annotations

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultPayloadConverter
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER, EncodedOutcomeFailureConverter


def decline(kind: str) -> None:
    raise ApplicationError("declined", {"status": "failed"}, type=kind)


def failure_of(kind: str) -> Failure:
    """What the engine stores of an error that was raised."""
    failure = Failure()
    try:
        decline(kind)
    except ApplicationError as error:
        converter = DATA_CONVERTER.failure_converter
        converter.to_failure(error, DefaultPayloadConverter(), failure)
    return failure


@pytest.mark.parametrize("kind", [names.CALL_FAILED, names.CALL_CANCELLED, names.KEY_REUSED])
def test_an_outcome_has_no_stack_trace(kind: str) -> None:
    """The message and the outcome are what the Temporal UI shows."""
    failure = failure_of(kind)
    assert (failure.message, failure.stack_trace) == ("declined", "")
    assert len(failure.application_failure_info.details.payloads) == 1


def test_a_defect_keeps_its_stack_trace() -> None:
    """It is what finds it."""
    assert "test_failures.py" in failure_of("KeyError").stack_trace


def test_encrypted_attributes() -> None:
    """The message is a payload, which a codec can encrypt."""
    failure = Failure()
    error = ApplicationError("declined", type=names.CALL_FAILED)
    EncodedOutcomeFailureConverter().to_failure(error, DefaultPayloadConverter(), failure)
    assert failure.message == "Encoded failure"
    assert b"declined" in failure.encoded_attributes.data
