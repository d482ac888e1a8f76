"""The processes of a local stack: how each is started, and how to tell that it is ready."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx

from ackbridge.contracts.wire import duration_text
from ackbridge.errors import AckbridgeError, UnavailableError
from ackbridge.security.private_files import UMASK, open_private
from ackbridge.settings import WORKER_READY, app_folder

from . import die_with_parent
from .ports import HOST

STRIPE_EVENTS = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
)

_STRIPE_PROGRAM = Path(__file__).with_name("stripe_process.py")
_POLL_INTERVAL = 0.05
"""Seconds between two readiness checks."""
_REQUEST_TIMEOUT = 5.0
"""Seconds."""

_STUB_STARTS_WITHIN = 1.0
"""Seconds after which a stub that still runs has started."""

TAIL = 2000
"""Bytes of a log that are repeated in the error when its process has died."""


class ProcessNotStartedError(AckbridgeError):
    """The operating system refused to start a process, or it has not been started yet."""


class ManagedProcess:
    """A child process that writes to a log and can be started again after it has ended.

    On Linux it is killed when this process ends, however that happens. It has its own process
    group: Ctrl-C in a terminal reaches only this process, which then stops its children in order.
    """

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], log: Path, folder: Path
    ) -> None:
        """The command has an absolute path, and only `environ`; its output is appended to `log`."""
        self.command = tuple(command)
        self.log = log
        self._environ = dict(environ)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start the process and return at once; raises `ProcessNotStartedError`."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel kills the child when the *thread* that forked it ends, so each child gets a
        # thread that lives exactly as long.
        threading.Thread(
            target=self._run, args=(started,), name=f"child {self.command[0]}", daemon=True
        ).start()
        try:
            self._process = started.result()
        except OSError as error:
            raise ProcessNotStartedError(f"{self.command[0]}: {error.strerror}") from None

    def set_environment(self, environ: Mapping[str, str]) -> None:
        """The environment from the next start on."""
        self._environ = dict(environ)

    @property
    def pid(self) -> int:
        """Raises `ProcessNotStartedError` before the process was started."""
        return self._started().pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._started().poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is left alone."""
        self._started().send_signal(number)

    def wait(self) -> int:
        return self._started().wait()

    def stop(self, timeout: timedelta) -> None:
        """Send SIGTERM, then SIGKILL if it has not ended within `timeout`."""
        if not self.is_running:
            return
        self.send(signal.SIGTERM)
        # A suspended process would not receive SIGTERM.
        self.send(signal.SIGCONT)
        try:
            self._started().wait(timeout.total_seconds())
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.wait()

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; returns after the end if it is SIGKILL. `start` starts it again."""
        self.send(number)
        if number is signal.SIGKILL:
            self.wait()

    def output(self) -> str:
        """Its output since it was started."""
        return self._read_from(self._log_start)

    def tail(self) -> str:
        """The end of its output since it was started, at most `TAIL` bytes."""
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
            with open(self.log, "ab", opener=open_private) as log:
                process = subprocess.Popen(  # noqa: S603 -- the command is our caller's own, and no shell reads it
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=self._environ,
                    process_group=0,
                    umask=UMASK,
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


class ProcessDiedError(UnavailableError):
    """A process of the stack ended by itself; the text has the end of its log."""

    def __init__(self, part: str, process: ManagedProcess) -> None:
        self.part = part
        self.exit_status = process.exit_status
        super().__init__(
            f"{part} ended with {self.exit_status}; the end of its log, {process.log}:\n"
            f"{process.tail() or '(empty)'}"
        )


@dataclass(frozen=True)
class ProcessPlan:
    command: tuple[str, ...] = field(repr=False)
    is_ready: Callable[[str], bool]  # called with its output so far, until it returns true
    once_ready: Callable[[], None] = lambda: None  # called after that, at every start


class StackProcess(ManagedProcess):
    def __init__(
        self,
        name: str,
        plan: ProcessPlan,
        *,
        environ: Mapping[str, str],
        log: Path,
        folder: Path,
        start_timeout: timedelta,
    ) -> None:
        super().__init__(plan.command, environ=environ, log=log, folder=folder)
        self.name = name
        self._plan = plan
        self._start_timeout = start_timeout

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            ProcessDiedError: it ended instead.
            UnavailableError: it was not ready in time.
        """
        if self.is_running:
            return
        until = time.monotonic() + self._start_timeout.total_seconds()
        super().start()
        while not self._plan.is_ready(self.output()):
            if not self.is_running:
                raise ProcessDiedError(self.name, self)
            if time.monotonic() > until:
                raise UnavailableError(
                    f"{self.name} was not ready within {duration_text(self._start_timeout)};"
                    f" see {self.log}:\n{self.tail()}"
                )
            time.sleep(_POLL_INTERVAL)
        self._plan.once_ready()


def worker_plan() -> ProcessPlan:
    return ProcessPlan(
        command=(sys.executable, str(app_folder() / "worker.py")),
        is_ready=lambda output: WORKER_READY in output.splitlines(),
    )


def gateway_plan(port: int) -> ProcessPlan:
    return ProcessPlan(
        command=(sys.executable, "-m", "ackbridge", "gateway", "--host", HOST, "--port", str(port)),
        is_ready=_responds(f"http://{HOST}:{port}/readyz"),
    )


def api_plan(port: int, ready: str = "/readyz") -> ProcessPlan:
    """The calls API; `ready` is the path that says so."""
    return ProcessPlan(
        command=(sys.executable, "-m", "ackbridge", "api", "--host", HOST, "--port", str(port)),
        is_ready=_responds(f"http://{HOST}:{port}{ready}"),
    )


def sandbox_plan(port: int, options: Sequence[str]) -> ProcessPlan:
    """The simulated provider; options are its faults, as `--rates '{"duplicate": 0.1}'`."""
    return ProcessPlan(
        command=(sys.executable, "-m", "ackbridge.sandbox", "--port", str(port), *options),
        is_ready=_responds(f"http://{HOST}:{port}/healthz"),
    )


def shop_plan(port: int) -> ProcessPlan:
    """The example of a shop."""
    return ProcessPlan(
        command=(sys.executable, "-m", "ackbridge.demo.shop", "--host", HOST, "--port", str(port)),
        is_ready=_responds(f"http://{HOST}:{port}/"),
    )


def stripe_plan(port: int, webhook_url: str, webhook_secret: str) -> ProcessPlan:
    """localstripe, which keeps no state: its webhook is registered at every start."""

    def register_webhook() -> None:
        with httpx.Client(trust_env=False, timeout=_REQUEST_TIMEOUT) as client:
            client.post(
                f"http://{HOST}:{port}/_config/webhooks/ackbridge",
                json={"url": webhook_url, "secret": webhook_secret, "events": STRIPE_EVENTS},
            ).raise_for_status()

    return ProcessPlan(
        # By its path, with `-P`: it must not import this package.
        command=(sys.executable, "-P", str(_STRIPE_PROGRAM), "--port", str(port)),
        is_ready=_responds(f"http://{HOST}:{port}/js.stripe.com/v3/"),
        once_ready=register_webhook,
    )


def stub_plan(program: Path) -> ProcessPlan:
    """A provider of the user's own: a Python program that runs until it is stopped."""
    first_asked: list[float] = []

    def has_run_for_a_while(_output: str) -> bool:
        # It may have no address that could be asked; one that cannot start ends at once.
        first_asked.append(time.monotonic())
        return first_asked[-1] - first_asked[0] > _STUB_STARTS_WITHIN

    return ProcessPlan(
        command=(sys.executable, "-u", str(program.absolute())), is_ready=has_run_for_a_while
    )


def _responds(url: str) -> Callable[[str], bool]:
    def is_ready(_output: str) -> bool:
        try:
            return httpx.get(url, timeout=_REQUEST_TIMEOUT, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return is_ready
