"""Requests to the Temporal server: their timeout, and what their errors mean to our callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from temporalio.service import RPCError, RPCStatusCode

from ackbridge.errors import AckbridgeError, EngineUnavailableError, InvalidRequestError

RPC_TIMEOUT: Final = timedelta(seconds=10)


@contextmanager
def rpc_errors(
    *, not_found: AckbridgeError | None = None, ended: AckbridgeError | None = None
) -> Iterator[None]:
    """Raise the `RPCError` of a request as one of our errors.

    Args:
        not_found: raised when there is no such workflow; None: as any other error.
        ended: raised when it takes no signals because it has ended; None: as `not_found`.

    Raises:
        InvalidRequestError: the server refuses an argument.
        EngineUnavailableError: any other error; the request may be repeated.
    """
    try:
        yield
    except RPCError as error:
        raise _translated(error, not_found, ended or not_found) from None


def _translated(
    error: RPCError, not_found: AckbridgeError | None, ended: AckbridgeError | None
) -> AckbridgeError:
    if error.status is RPCStatusCode.NOT_FOUND:
        known = ended if "already completed" in error.message else not_found
        if known is not None:
            return known
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(error.message)
    return EngineUnavailableError(
        f"the engine did not answer ({error.status.name}): {error.message}"
    )
