"""Processes that start fast: forked from a server that has imported the application once.

Importing the application takes two seconds of CPU time, more than most of these processes need for
their work. What runs in them is the same code as in `python worker.py` or `python -m ackbridge`;
the tests of the local stack, of the demo and of the wheel start those.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn, cast

from ackbridge.local.processes import ManagedProcess

PRELOADED = ["worker", "ackbridge.cli", "tests.support.processes"]
PR_SET_PDEATHSIG = 1
BOUND = 120
"""Seconds after which a command is killed."""

Main = Callable[[list[str]], object]
"""Runs in the new process, with its arguments; must be importable."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class ForkedProcess(ManagedProcess):
    """A process of our own code, started like a managed one, but without importing anything."""

    def __init__(
        self,
        main: Main,
        arguments: list[str],
        *,
        environ: Mapping[str, str],
        log: Path,
        folder: Path,
    ) -> None:
        super().__init__([main.__module__, *arguments], environ=environ, log=log, folder=folder)
        self._main = main
        self._arguments = arguments

    def start(self) -> None:
        """Start the process; returns at once."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        started = _Forked(
            self._main, self._arguments, self._environ, self._folder, self.log, self.log
        )
        self._process = cast("subprocess.Popen[bytes]", started)


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command during the block, with the options of `Popen`; killed after two minutes.

    Leaving the block waits for its end, which would hide why a test has failed, and never come.
    """
    process = subprocess.Popen(command, **options)
    too_long = threading.Timer(BOUND, process.kill)
    too_long.start()
    try:
        with process:
            yield process
    finally:
        too_long.cancel()


def run_command(
    environ: Mapping[str, str], *arguments: str, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `ackbridge` with these arguments in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ackbridge-command-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        running = _Forked(_command, list(arguments), environ, Path.cwd(), out, err)
        try:
            status = running.wait(timeout)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(
            ["ackbridge", *arguments], status, out.read_text(), err.read_text()
        )


def _command(arguments: list[str]) -> NoReturn:
    from ackbridge import cli
    from ackbridge.terminal.output import console

    sys.argv = ["ackbridge", *arguments]
    # Consoles read their width when they are made, which was in the server.
    console.width = int(os.environ.get("COLUMNS", "80"))
    cli.run()


class _Forked:
    """What is needed of `subprocess.Popen`."""

    def __init__(
        self,
        main: Main,
        arguments: list[str],
        environ: Mapping[str, str],
        folder: Path,
        out: Path,
        err: Path,
    ) -> None:
        self._process = _context.Process(
            target=_become, args=(main, arguments, dict(environ), folder, out, err), daemon=True
        )
        self._process.start()
        self._reading = threading.Lock()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        with self._reading:
            return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        wait([self._process.sentinel], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return status


def _become(
    main: Main, arguments: list[str], environ: dict[str, str], folder: Path, out: Path, err: Path
) -> None:
    """Be the new process: its signals, files, environment and folder, then its work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    # As our processes end: threads of the engine's client would disturb the interpreter's end.
    os._exit(status if isinstance(status, int) else 0)
