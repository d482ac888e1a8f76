"""What the exit status of the command line says."""

from __future__ import annotations

import sys
from enum import IntEnum

import click

from ackbridge.contracts import CallStatus, Invalid, Stage
from ackbridge.errors import (
    CallCancelledError,
    CallFailedError,
    CallNotFoundError,
    ConfigurationError,
    InvalidRequestError,
    KeyReusedError,
    Unavailable,
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
        if isinstance(error, click.ClickException):
            error.show()
            return cls.BAD_INPUT
        for kinds, exit_status in _EXITS:
            if isinstance(error, kinds):
                print(f"ackbridge: {error}", file=sys.stderr)
                return exit_status
        raise error


_EXITS: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((CallFailedError, CallCancelledError), Exit.FAILED),
    (
        (ConfigurationError, InvalidRequestError, KeyReusedError, CallNotFoundError, Invalid),
        Exit.BAD_INPUT,
    ),
    ((Unavailable,), Exit.UNAVAILABLE),
)
