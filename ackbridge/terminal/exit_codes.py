"""What the exit status of the command line says."""

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
    CallFailedError,
    CallNotFoundError,
    ConfigurationError,
    InvalidRequestError,
    KeyReusedError,
    UnavailableError,
)


class Exit(IntEnum):
    """0 completed, 1 failed or cancelled, 2 bad input, 3 pending, 4 something does not answer."""

    COMPLETED = 0
    FAILED = 1
    BAD_INPUT = 2
    PENDING = 3
    UNAVAILABLE = 4

    @classmethod
    def of(cls, status: CallStatus) -> Exit:
        """The exit status for where a call stands."""
        if status.outcome is not None:
            is_completed = status.outcome.status == "completed"
            return cls.COMPLETED if is_completed else cls.FAILED
        return cls.FAILED if status.stage is Stage.FAILED else cls.PENDING

    @classmethod
    def report(cls, error: Exception) -> Exit:
        """Say on standard error what went wrong, and answer with the exit status for it.

        Raises:
            Exception: the error itself, when it is none that a user could cause.
        """
        for kinds, exit_status in _EXITS:
            if isinstance(error, kinds):
                print(f"ackbridge: {error}", file=sys.stderr)
                return exit_status
        raise error


def exits_with_its_answer(command: Callable[..., int]) -> Callable[..., None]:
    """Let a command answer with its exit status, and raise what a user could have caused."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            status = command(*arguments, **options)
        except (AckbridgeError, InvalidInputError) as error:
            status = Exit.report(error)
        raise typer.Exit(status)

    return run


_EXITS: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((CallFailedError, CallCancelledError), Exit.FAILED),
    (
        (
            *(ConfigurationError, InvalidRequestError, KeyReusedError, InvalidInputError),
            *(CallNotFoundError, BatchNotFoundError),
        ),
        Exit.BAD_INPUT,
    ),
    ((UnavailableError,), Exit.UNAVAILABLE),
)
