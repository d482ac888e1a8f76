"""The exit codes of the command line, and which error maps to which."""

from __future__ import annotations

import functools
import os
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
    CallFailedError,
    CallNotFoundError,
    ConfigurationError,
    InvalidRequestError,
    KeyReusedError,
    NamespaceNotFoundError,
    UnavailableError,
)


class ExitCode(IntEnum):
    COMPLETED = 0
    FAILED = 1
    BAD_INPUT = 2
    PENDING = 3
    UNAVAILABLE = 4
    INTERNAL = 5
    INTERRUPTED = 130
    CLOSED_PIPE = 141

    @classmethod
    def for_call(cls, status: CallStatus) -> ExitCode:
        """Failed also stands for cancelled."""
        if status.outcome is not None:
            is_completed = status.outcome.status == "completed"
            return cls.COMPLETED if is_completed else cls.FAILED
        return cls.FAILED if status.stage is Stage.FAILED else cls.PENDING

    @classmethod
    def for_error(cls, error: Exception) -> ExitCode:
        """The code of an error; `INTERNAL` for one that no user can cause."""
        return next((code for kinds, code in _ERRORS if isinstance(error, kinds)), cls.INTERNAL)


_ERRORS: tuple[tuple[tuple[type[Exception], ...], ExitCode], ...] = (
    ((CallFailedError, CallCancelledError), ExitCode.FAILED),
    (
        (
            *(ConfigurationError, InvalidRequestError, KeyReusedError, InvalidInputError),
            *(CallNotFoundError, CallEndedError, BatchNotFoundError, NamespaceNotFoundError),
        ),
        ExitCode.BAD_INPUT,
    ),
    ((UnavailableError,), ExitCode.UNAVAILABLE),
    ((AckbridgeError,), ExitCode.FAILED),
)


def exits_with_code(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a command's return value into its exit code: None is 0.

    An error is printed to standard error in one line, and mapped to its code.
    """

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            code = command(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader of our output has gone, as with `| head`.
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123 -- not a file of ours
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            code = ExitCode.CLOSED_PIPE
        except typer.Exit:
            raise
        except Exception as error:
            if _shows_traceback(error):
                raise
            code = ExitCode.for_error(error)
            report(_sentence(error))
        raise typer.Exit(code or ExitCode.COMPLETED)

    return run


def report(sentence: str) -> None:
    """Print a sentence to standard error, where it does not mix with the output."""
    print(f"ackbridge: {sentence}", file=sys.stderr)


def _is_known(error: Exception) -> bool:
    return ExitCode.for_error(error) is not ExitCode.INTERNAL


def _shows_traceback(error: Exception) -> bool:
    level = os.environ.get("ACKBRIDGE_LOG_LEVEL", "")
    return not _is_known(error) and level.upper() == "DEBUG"


def _sentence(error: Exception) -> str:
    if _is_known(error):
        return str(error)
    return (
        f"internal error: {type(error).__name__}: {error};"
        " the traceback: repeat it with ACKBRIDGE_LOG_LEVEL=DEBUG"
    )
