"""Child processes: they write to a log, stop when told to, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

from ackbridge.errors import AckbridgeError

from . import die_with_parent

TAIL = 2000
"""Bytes of a log that are repeated when its process has died."""


class ProcessNotStartedError(AckbridgeError):
    """The operating system refused to start a process, or it has not been started yet."""


class ManagedProcess:
    """One child process, which can be started again after it has ended.

    On Linux it is killed when this process ends, however this ends. It has a process group of
    its own, so that Ctrl-C in a terminal reaches only this process, which then stops it in order.
    """

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], log: Path, folder: Path
    ) -> None:
        """Prepare; nothing is started.

        Args:
            command: an absolute path, and its arguments.
            environ: the whole environment of the process; nothing else is inherited.
            log: the file that standard output and standard error are appended to.
            folder: the working directory.
        """
        self.command = tuple(command)
        self.log = log
        self._environ = dict(environ)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start the process; returns at once.

        Raises:
            ProcessNotStartedError: the operating system refuses.
        """
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel kills the child when the *thread* that forked it ends. So a thread is made
        # for it, which then lives exactly as long.
        threading.Thread(
            target=self._run, args=(started,), name=f"child {self.command[0]}", daemon=True
        ).start()
        try:
            self._process = started.result()
        except OSError as error:
            raise ProcessNotStartedError(f"{self.command[0]}: {error.strerror}") from None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ProcessNotStartedError: there is none yet.
        """
        return self._started().pid

    @property
    def exit_status(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._started().poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is left alone."""
        self._started().send_signal(number)

    def wait(self) -> int:
        """Wait for the end; gives the exit status."""
        return self._started().wait()

    def stop(self, patience: timedelta) -> None:
        """End it: SIGTERM, and SIGKILL when it has not ended within `patience`."""
        if not self.is_running:
            return
        self.send(signal.SIGTERM)
        # One that is stopped would not hear it.
        self.send(signal.SIGCONT)
        try:
            self._started().wait(patience.total_seconds())
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.wait()

    def output(self) -> str:
        """What it has written since it was started."""
        return self._read_from(self._log_start)

    def tail(self) -> str:
        """The end of what it has written since it was started, at most `TAIL` bytes."""
        size = self.log.stat().st_size if self.log.exists() else 0
        return self._read_from(max(self._log_start, size - TAIL)).strip()

    def _run(self, started: Future[subprocess.Popen[bytes]]) -> None:
        command = [
            sys.executable,
            "-I",
            "-S",
            die_with_parent.__file__,
            str(os.getpid()),
            *self.command,
        ]
        try:
            with self.log.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 -- the command is our caller's own, and no shell reads it
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=self._environ,
                    process_group=0,
                )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    def _read_from(self, position: int) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProcessNotStartedError(f"{self.command[0]} has not been started")
        return self._process
