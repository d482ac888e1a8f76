"""What commands share that run a stack in the foreground: `up`, `demo` and the tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ackbridge.terminal import output

from .stack import Stack

DEFAULT_STATE = Path(".ackbridge")
"""The state folder of a stack where none is given."""

PREFERRED_PORTS = {"engine": 7233, "ui": 8233, "gateway": 8080, "sandbox": 8701, "stripe": 8420}
"""Used where they are free; free ones are chosen in place of the others."""


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, so that it shuts down as cleanly as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_stack(stack: Stack, state: Path) -> None:
    at = stack.addresses
    values = {
        "Temporal UI": at.ui,
        "Temporal": at.engine,
        "gateway": at.gateway,
        "sandbox provider": at.sandbox,
        "localstripe": at.stripe,
        "state and logs": str(state),
    }
    output.console.print(output.properties("The stack is up", values))
    output.console.print(f"engine: {stack.engine_command}", style="dim", soft_wrap=True)
