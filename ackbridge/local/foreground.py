"""What commands share that run a stack in the foreground: `up`, `demo` and the tests."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ackbridge.terminal import output

from .stack import PARTS, Stack

DEFAULT_STATE = Path(".ackbridge")
"""The state folder of a stack where none is given."""

PREFERRED_PORTS = {
    "engine": 7233,
    "ui": 8233,
    "gateway": 8080,
    "sandbox": 8701,
    "stripe": 8420,
    "shop": 8081,
}
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


def print_stack(stack: Stack, state: Path, *, parts: Collection[str] = PARTS) -> None:
    at = stack_addresses(stack, state, parts=parts)
    values = {
        "Temporal UI": at["ui"],
        "Temporal": at["engine"],
        "gateway": at.get("gateway"),
        "sandbox provider": at.get("sandbox"),
        "localstripe": at.get("stripe"),
        "example shop": at.get("shop"),
        "state and logs": at["state"],
    }
    title = "The stack is up" if "worker" in parts else "The engine is up"
    output.console.print(output.properties(title, values))


def stack_addresses(stack: Stack, state: Path, *, parts: Collection[str] = PARTS) -> dict[str, str]:
    """Where the parts of a stack listen, and the folder of their state."""
    at = stack.addresses
    optional = {"gateway": at.gateway, "sandbox": at.sandbox, "stripe": at.stripe, "shop": at.shop}
    found = {name: address for name, address in optional.items() if name in parts}
    return {"engine": at.engine, "ui": at.ui, **found, "state": str(state)}


def taken_ports(stack: Stack, parts: Collection[str]) -> list[str]:
    """A sentence for each server that did not get its usual port."""
    at = stack.addresses
    servers = {"engine": at.engine, "ui": at.ui, "gateway": at.gateway}
    servers |= {"sandbox": at.sandbox, "stripe": at.stripe, "shop": at.shop}
    return [
        f"Port {PREFERRED_PORTS[name]} is taken: {name} listens at {address} instead."
        for name, address in servers.items()
        if name in (*parts, "engine", "ui") and not address.endswith(f":{PREFERRED_PORTS[name]}")
    ]
