"""up: the whole stack in the foreground, for people to play with."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.table import Table

from ackbridge.local.stack import Stack
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit

DEFAULT_STATE = Path(".ackbridge")
"""Where a stack keeps its files when nobody says otherwise."""

CHECK_EVERY = 1.0
"""Seconds between two looks whether every part still runs."""

WISHED_PORTS = {"engine": 7233, "ui": 8233, "gateway": 8080, "sandbox": 8701, "stripe": 8420}
"""Where people look first; others are taken where these are not free."""


def run_up(state: Path) -> int:
    """Run the stack until Ctrl-C or SIGTERM. Exit 0 then; an error if a part ends by itself."""
    with told_to_stop(), Stack(state, environ=os.environ, preferred_ports=WISHED_PORTS) as stack:
        output.console.print(addresses(stack, state))
        output.console.print(f"engine: {stack.engine_command}", style="dim", soft_wrap=True)
        output.console.print(_hints(stack), soft_wrap=True)
        try:
            while True:
                time.sleep(CHECK_EVERY)
                stack.check()
        except KeyboardInterrupt:
            output.console.print("Stopping. The state stays; the next start continues with it.")
    return Exit.COMPLETED


def addresses(stack: Stack, state: Path) -> Table:
    """Where everything is."""
    at = stack.addresses
    return output.facts(
        "The stack is up",
        {
            "Temporal UI": at.ui,
            "Temporal": at.engine,
            "gateway": at.gateway,
            "sandbox provider": at.sandbox,
            "localstripe": at.stripe,
            "state and logs": str(state),
        },
    )


@contextmanager
def told_to_stop() -> Iterator[None]:
    """Let SIGTERM end the stack as orderly as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hints(stack: Stack) -> str:
    return f"""
In another shell:

  export TEMPORAL_ADDRESS={stack.addresses.engine}
  .venv/bin/ackbridge call sandbox create_order --key o-1 --payload '{{"amount": 5, "currency": "EUR"}}'
  .venv/bin/ackbridge call stripe create_payment --key p-1 --payload '{{"amount": 1999, "currency": "eur"}}'
  .venv/bin/ackbridge list

Ctrl-C stops everything.
"""  # noqa: E501 -- commands to copy, a line each
