"""Run commands in this process, many at once: each gets its output to itself.

A process for each would import the application again, which takes a second of CPU time.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ackbridge import cli

_out: contextvars.ContextVar[IO[str] | None] = contextvars.ContextVar("out", default=None)
_err: contextvars.ContextVar[IO[str] | None] = contextvars.ContextVar("err", default=None)


class _Routed:
    """A standard stream that is another one in each context."""

    def __init__(self, current: contextvars.ContextVar[IO[str] | None], otherwise: IO[str]) -> None:
        self._current = current
        self._otherwise = otherwise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current.get() or self._otherwise, name)


@dataclass(frozen=True)
class Ran:
    """What a command did.

    Attributes:
        seconds: how long it took.
        raised: an exception that would have been a traceback.
    """

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str
    seconds: float
    raised: BaseException | None = None

    @property
    def completed(self) -> subprocess.CompletedProcess[str]:
        """The same as of a process."""
        return subprocess.CompletedProcess(self.arguments, self.status, self.out, self.err)


@contextmanager
def routed_output() -> Iterator[None]:
    """Commands that run inside do not write to the streams of this process."""
    before = sys.stdout, sys.stderr
    routed: Any = (_Routed(_out, sys.stdout), _Routed(_err, sys.stderr))
    sys.stdout, sys.stderr = routed
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def run_here(arguments: Sequence[str], out: IO[str] | None = None) -> Ran:
    """Run one command; within `routed_output`, in a thread without an event loop."""
    written, complained = out or io.StringIO(), io.StringIO()
    _out.set(written)
    _err.set(complained)
    started, status, raised = time.monotonic(), -1, None
    try:
        status = cli.main(list(arguments))
    except BaseException as error:
        raised = error
    took = time.monotonic() - started
    text = written.getvalue() if isinstance(written, io.StringIO) else ""
    return Ran(tuple(arguments), status, text, complained.getvalue(), took, raised)


async def run_all(
    commands: Sequence[Sequence[str]], *, into: Callable[[], IO[str] | None] = lambda: None
) -> list[Ran]:
    """Run commands at the same time, in threads that a worker in this process does not need."""
    loop = asyncio.get_running_loop()
    with routed_output(), ThreadPoolExecutor(len(commands)) as threads:
        return await asyncio.gather(
            *(
                loop.run_in_executor(threads, contextvars.copy_context().run, run_here, one, into())
                for one in commands
            )
        )
