"""The errors of requests to the engine, as callers get them."""

from __future__ import annotations

import pytest
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.errors import (
    AckbridgeError,
    CallError,
    CallNotFoundError,
    EngineUnavailableError,
    InvalidRequestError,
)
from ackbridge.temporal.connect import rpc_errors

NOT_FOUND = CallNotFoundError("no such call")
ENDED = CallError("the call has ended")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (RPCStatusCode.NOT_FOUND, "workflow not found", NOT_FOUND),
        (RPCStatusCode.NOT_FOUND, "workflow execution already completed", ENDED),
        (RPCStatusCode.INVALID_ARGUMENT, "bad id", InvalidRequestError("bad id")),
        (
            RPCStatusCode.UNAVAILABLE,
            "connection refused",
            EngineUnavailableError("the engine did not answer (UNAVAILABLE): connection refused"),
        ),
    ],
)
def test_rpc_errors_become_ours(
    status: RPCStatusCode, message: str, expected: AckbridgeError
) -> None:
    """By status, and for workflows that have ended by message."""
    with (
        pytest.raises(type(expected), match=str(expected).replace("(", r"\(").replace(")", r"\)")),
        rpc_errors(not_found=NOT_FOUND, ended=ENDED),
    ):
        raise RPCError(message, status, b"")


def test_not_found_without_a_meaning_is_unavailable() -> None:
    """Such as a namespace that does not exist."""
    with pytest.raises(EngineUnavailableError, match="NOT_FOUND"), rpc_errors():
        raise RPCError("namespace not found", RPCStatusCode.NOT_FOUND, b"")


def test_other_exceptions_pass() -> None:
    """Only errors of requests are mapped."""
    with pytest.raises(ValueError, match="other"), rpc_errors():
        raise ValueError("other")
