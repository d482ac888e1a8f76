"""The exit codes of the command line, and which error maps to which."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from enum import IntEnum

import typer

from ackbridge.contracts.calls import CallStatus, Stage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import (
    AckbridgeError,
    BatchNotFoundError,
    CallCancelledError,
    CallEndedError,
    CallError,
    CallFailedError,
    CallNotFoundError,
    ConfigurationError,
    InvalidRequestError,
    KeyReusedError,
    UnavailableError,
)


class ExitCode(IntEnum):
    COMPLETED = 0
    FAILED = 1
    BAD_INPUT = 2
    PENDING = 3
    UNAVAILABLE = 4

    @classmethod
    def for_call(cls, status: CallStatus) -> ExitCode:
        """Failed also stands for cancelled."""
        if status.outcome is not None:
            is_completed = status.outcome.status == "completed"
            return cls.COMPLETED if is_completed else cls.FAILED
        return cls.FAILED if status.stage is Stage.FAILED else cls.PENDING

    @classmethod
    def for_error(cls, error: Exception) -> ExitCode | None:
        """None for an error that no user can cause."""
        return next((code for kinds, code in _ERRORS if isinstance(error, kinds)), None)


_ERRORS: tuple[tuple[tuple[type[Exception], ...], ExitCode], ...] = (
    ((CallFailedError, CallCancelledError), ExitCode.FAILED),
    (
        (
            *(ConfigurationError, InvalidRequestError, KeyReusedError, InvalidInputError),
            *(CallNotFoundError, CallEndedError, BatchNotFoundError),
        ),
        ExitCode.BAD_INPUT,
    ),
    ((UnavailableError,), ExitCode.UNAVAILABLE),
    ((CallError,), ExitCode.FAILED),
)


def exits_with_code(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a command's return value into its exit code: None is 0.

    An error that a user can cause is printed to standard error in one line, and mapped to its
    code; any other error is raised.
    """

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            code = command(*arguments, **options)
        except (AckbridgeError, InvalidInputError) as error:
            code = ExitCode.for_error(error)
            if code is None:
                raise
            print(f"ackbridge: {error}", file=sys.stderr)
        raise typer.Exit(code or ExitCode.COMPLETED)

    return run
