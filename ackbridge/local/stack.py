"""The whole stack as child processes on free loopback ports, for `up`, `demo` and the tests."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, Self

from .application import integrations_folder
from .dev_server import EmbeddedEngine
from .environment import Addresses, Ports, empty_temporal_config, environment_for
from .managed_process import ManagedProcess
from .stack_processes import (
    ProcessDiedError,
    ProcessPlan,
    StackProcess,
    gateway_plan,
    sandbox_plan,
    stripe_plan,
    worker_plan,
)

__all__ = ["PARTS", "Addresses", "ProcessDiedError", "Stack", "worker_names"]

PARTS: Final = ("engine", "sandbox", "stripe", "worker", "gateway")
_STARTED_TOGETHER = (("engine", "sandbox", "stripe"), ("worker", "gateway"))
# Providers first, so that nothing new comes; the engine last, so that the others can finish.
_STOPPED_TOGETHER = (("sandbox", "stripe"), ("gateway", "worker"), ("engine",))
_STOPS_WITHIN = timedelta(seconds=10)
_ENDING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT})


def worker_names(count: int) -> tuple[str, ...]:
    """What the workers of a stack are called."""
    return ("worker", *(f"worker-{number}" for number in range(2, count + 1)))


class Runnable(Protocol):
    """What the engine and the other parts have in common."""

    @property
    def child(self) -> ManagedProcess:
        """The process."""

    def start(self) -> None:
        """Start it, and return when it is ready."""

    def stop(self, patience: timedelta) -> None:
        """Stop it within a bounded time."""

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""


class Stack:
    """Engine, worker, gateway, sandbox and localstripe; a context manager.

    It blocks while it starts, a few seconds. No process outlives it: they are stopped in order
    at its end, and on Linux killed when this process ends in any other way. One stack at a time
    for each state folder.

    Attributes:
        addresses: where the parts are.
        environment: what the parts run in, with the secrets of this run; a client of ours that
            is given it finds the engine.
    """

    def __init__(
        self,
        state: Path,
        *,
        environ: Mapping[str, str],
        integrations: Path | None = None,
        sandbox_options: Sequence[str] = (),
        parts: Iterable[str] = PARTS,
        workers: int = 1,
        wished_ports: Mapping[str, int] | None = None,
        starts_within: timedelta = timedelta(seconds=60),
    ) -> None:
        """Choose ports and secrets; nothing is started.

        Args:
            state: the folder of the engine's and the ledger's files, and of the logs.
            environ: what the parts inherit, such as the environment of this process; settings
                and secrets of other deployments are left out.
            integrations: the folder of integration files; None for those we ship.
            sandbox_options: command-line options of the simulated provider.
            parts: which of `PARTS` to run; the engine always runs.
            workers: how many of that part: `worker`, `worker-2`, `worker-3` and so on.
            wished_ports: by `engine`, `ui`, `gateway`, `sandbox`, `stripe`: these where they are
                free, and free ones instead where they are not.
            starts_within: how long each part may take to be ready.
        """
        self._state = state.absolute()
        self._ports = Ports(wished_ports or {})
        self.addresses: Addresses = self._ports.addresses()
        self.environment = environment_for(
            self.addresses,
            environ,
            state=self._state,
            integrations=integrations_folder(integrations),
        )
        self._starts_within = starts_within
        self._ended_on_purpose: set[str] = set()
        plans = self._plans(sandbox_options)
        self._parts: dict[str, Runnable] = {
            name: self._part(name, plans[part])
            for part in parts
            if part != "engine"
            for name in (worker_names(workers) if part == "worker" else (part,))
        }
        self._parts["engine"] = self._engine()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part, and return when all are ready.

        Raises:
            ProcessDiedError: one ended instead; the others are stopped.
            Unavailable: one was not ready in time; the others are stopped.
        """
        self.log("engine").parent.mkdir(parents=True, exist_ok=True)
        empty_temporal_config(self._state).write_text("")
        try:
            for kinds in _STARTED_TOGETHER:
                self._together(kinds, lambda part: part.start())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every part in order, each within a bounded time."""
        for kinds in _STOPPED_TOGETHER:
            self._ended_on_purpose.update(self._names(kinds))
            self._together(kinds, lambda part: part.stop(_STOPS_WITHIN))

    def check(self) -> None:
        """See that every part runs that nobody has ended on purpose.

        Raises:
            ProcessDiedError: one does not; says which, with the end of its log.
        """
        for name, part in self._parts.items():
            child = part.child
            if name not in self._ended_on_purpose and not child.is_running:
                raise ProcessDiedError(name, child.exit_status, child.log, child.tail())

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part; returns after its end if the signal is SIGKILL."""
        if number in _ENDING:
            self._ended_on_purpose.add(part)
        self._parts[part].kill(number)

    def restart(self, part: str) -> None:
        """Start a part again, on its address and its state; stop it first if it runs.

        The providers keep their state in memory only.

        Raises:
            ProcessDiedError, Unavailable: it did not become ready.
        """
        self._ended_on_purpose.add(part)
        self._parts[part].stop(_STOPS_WITHIN)
        self._parts[part].start()
        self._ended_on_purpose.discard(part)

    def is_running(self, part: str) -> bool:
        """Whether a part was started and has not ended."""
        return self._parts[part].child.is_running

    def pid(self, part: str) -> int:
        """The process id of a part."""
        return self._parts[part].child.pid

    def log(self, part: str) -> Path:
        """The log of a part."""
        return self._state / "logs" / f"{part}.log"

    @property
    def engine_command(self) -> str:
        """How the engine is started, for people who want to do the same."""
        return shlex.join(self._engine().command)

    def _names(self, kinds: Iterable[str]) -> list[str]:
        """The parts of these kinds that there are: every worker is of the kind `worker`."""
        return [name for name in self._parts if name.partition("-")[0] in kinds]

    def _engine(self) -> EmbeddedEngine:
        return EmbeddedEngine(
            self._state / "engine.db",
            port=self._ports.engine.number,
            ui_port=self._ports.ui.number,
            log=self.log("engine"),
            starts_within=self._starts_within,
        )

    def _part(self, name: str, plan: ProcessPlan) -> StackProcess:
        return StackProcess(
            name,
            plan,
            environ=self.environment,
            log=self.log(name),
            # Not the user's folder: the `.env` there is of another deployment.
            folder=self._state,
            starts_within=self._starts_within,
        )

    def _plans(self, sandbox_options: Sequence[str]) -> dict[str, ProcessPlan]:
        ports = self._ports
        secret = self.environment["STRIPE_WEBHOOK_SECRET"]
        return {
            "worker": worker_plan(),
            "gateway": gateway_plan(ports.gateway.number),
            "sandbox": sandbox_plan(ports.sandbox.number, sandbox_options),
            "stripe": stripe_plan(ports.stripe.number, self.addresses.stripe_webhook, secret),
        }

    def _together(self, kinds: Iterable[str], act: Callable[[Runnable], None]) -> None:
        """Do something with several parts at once; the first error ends the waiting."""
        parts = [self._parts[name] for name in self._names(kinds)]
        threads = ThreadPoolExecutor(len(parts) or 1)
        try:
            doing = [threads.submit(act, part) for part in parts]
            for done in wait(doing, return_when=FIRST_EXCEPTION).done:
                done.result()
        finally:
            # Not awaited: what still waits for a part gives up when that part is stopped.
            threads.shutdown(wait=False, cancel_futures=True)
