"""The whole stack as child processes on free loopback ports, for `up`, `demo` and the tests."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, Self

from ackbridge.app import integrations_folder
from ackbridge.child import Child
from ackbridge.embedded import EmbeddedEngine
from ackbridge.errors import Unavailable
from ackbridge.loopback import HOST, LoopbackPort

from .parts import (
    Part,
    PartDied,
    PartPlan,
    gateway_plan,
    sandbox_plan,
    stripe_plan,
    worker_plan,
)

PARTS: Final = ("engine", "worker", "gateway", "sandbox", "stripe")
_STARTED_TOGETHER = (("engine", "sandbox", "stripe"), ("worker", "gateway"))
# Providers first, so that nothing new comes; the engine last, so that the others can finish.
_STOPPED_TOGETHER = (("sandbox", "stripe"), ("gateway", "worker"), ("engine",))
_STOPS_WITHIN = timedelta(seconds=10)
_SHUTDOWN_WITHIN = "5s"
# What a user has set for other deployments must not reach this one.
_NOT_INHERITED = ("ACKBRIDGE_", "SANDBOX_", "STRIPE_", "TEMPORAL_")


class Runnable(Protocol):
    """What the engine and the other parts have in common."""

    @property
    def child(self) -> Child:
        """The process."""

    def start(self) -> None:
        """Start it, and return when it is ready."""

    def stop(self, patience: timedelta) -> None:
        """Stop it within a bounded time."""

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts are.

    Attributes:
        engine: `host:port` of gRPC.
        ui, gateway, sandbox, stripe: URLs.
    """

    engine: str
    ui: str
    gateway: str
    sandbox: str
    stripe: str


class Stack:
    """Engine, worker, gateway, sandbox and localstripe; a context manager.

    It blocks while it starts, a few seconds. No process outlives it: they are stopped in order
    at its end, and on Linux killed when this process ends in any other way. One stack at a time
    for each state folder.

    Attributes:
        addresses: where the parts are.
        environment: the environment the parts run in; it lets a client of ours find them, and
            has the secrets of this run.
        logs: the folder with the log of each part.
    """

    def __init__(
        self,
        state: Path,
        *,
        environ: Mapping[str, str],
        integrations: Path | None = None,
        sandbox_options: Sequence[str] = (),
        parts: Iterable[str] = PARTS,
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
            parts: which parts, in any order; the engine is always one of them.
            wished_ports: by `engine`, `ui`, `gateway`, `sandbox`, `stripe`: these where they are
                free, and free ones instead where they are not.
            starts_within: how long each part may take to be ready.
        """
        self._state = state.absolute()
        self.logs = self._state / "logs"
        wished = wished_ports or {}
        # Kept, because they are held as long as these objects live.
        self._ports = {
            name: LoopbackPort(wished.get(name))
            for name in ("engine", "ui", "gateway", "sandbox", "stripe")
        }
        numbers = {name: port.number for name, port in self._ports.items()}
        self.addresses = Addresses(
            engine=f"{HOST}:{numbers['engine']}",
            **{
                name: f"http://{HOST}:{numbers[name]}"
                for name in ("ui", "gateway", "sandbox", "stripe")
            },
        )
        self.environment = self._environment(environ, integrations_folder(integrations))
        self._starts_within = starts_within
        plans = self._plans(numbers, sandbox_options)
        self._parts: dict[str, Runnable] = {
            "engine": EmbeddedEngine(
                self._state / "engine.db",
                port=numbers["engine"],
                ui_port=numbers["ui"],
                log=self.log("engine"),
                starts_within=starts_within,
            ),
            **{name: self._part(name, plans[name]) for name in parts if name != "engine"},
        }
        self._not_expected: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part, and return when all are ready.

        Raises:
            PartDied: one ended instead; the others are stopped.
            EngineUnavailable, Unavailable: one was not ready in time; the others are stopped.
        """
        self._prepare_state()
        try:
            for together in _STARTED_TOGETHER:
                self._together(together, lambda part: part.start())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every part in order; each within a bounded time."""
        for together in _STOPPED_TOGETHER:
            self._together(together, lambda part: part.stop(_STOPS_WITHIN))

    def check(self) -> None:
        """See that every part runs that nobody has killed on purpose.

        Raises:
            PartDied: one does not.
        """
        for name, part in self._parts.items():
            if name not in self._not_expected and not part.child.is_running:
                child = part.child
                raise PartDied(name, child.exit_status, child.log, child.tail())

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part; returns after its end if the signal is SIGKILL."""
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self._not_expected.add(part)
        self._parts[part].kill(number)

    def restart(self, part: str) -> None:
        """Start a part again, on its address and its state; stop it first if it runs.

        The providers keep their state in memory only.

        Raises:
            PartDied, EngineUnavailable, Unavailable: it did not become ready.
        """
        self._parts[part].stop(_STOPS_WITHIN)
        self._parts[part].start()
        self._not_expected.discard(part)

    def pid(self, part: str) -> int:
        """The process id of a part."""
        return self._parts[part].child.pid

    def log(self, part: str) -> Path:
        """The log of a part."""
        return self.logs / f"{part}.log"

    def _part(self, name: str, plan: PartPlan) -> Part:
        return Part(
            name,
            plan,
            environ=self.environment,
            log=self.log(name),
            # Not the user's folder: the `.env` there is of another deployment.
            folder=self._state,
            starts_within=self._starts_within,
        )

    def _plans(
        self, numbers: Mapping[str, int], sandbox_options: Sequence[str]
    ) -> dict[str, PartPlan]:
        webhook_url = f"{self.addresses.gateway}/callbacks/stripe"
        return {
            "worker": worker_plan(),
            "gateway": gateway_plan(numbers["gateway"]),
            "sandbox": sandbox_plan(numbers["sandbox"], sandbox_options),
            "stripe": stripe_plan(
                numbers["stripe"], webhook_url, self.environment["STRIPE_WEBHOOK_SECRET"]
            ),
        }

    def _environment(self, environ: Mapping[str, str], integrations: Path) -> dict[str, str]:
        inherited = {
            name: value for name, value in environ.items() if not name.startswith(_NOT_INHERITED)
        }
        return inherited | {
            "ACKBRIDGE_ENVIRONMENT": "dev",
            "ACKBRIDGE_INTEGRATIONS": str(integrations.absolute()),
            "ACKBRIDGE_LEDGER_URL": f"sqlite:///{self._state / 'ledger.db'}",
            "ACKBRIDGE_PUBLIC_URL": self.addresses.gateway,
            "ACKBRIDGE_SHUTDOWN_WITHIN": _SHUTDOWN_WITHIN,
            "SANDBOX_API_KEY": secrets.token_urlsafe(24),
            "SANDBOX_BASE_URL": self.addresses.sandbox,
            "SANDBOX_WEBHOOK_SECRET": secrets.token_urlsafe(24),
            "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(16)}",
            "STRIPE_BASE_URL": self.addresses.stripe,
            "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
            "TEMPORAL_ADDRESS": self.addresses.engine,
            # An empty file: the user's own may have another engine's certificates.
            "TEMPORAL_CONFIG_FILE": str(self._state / "temporal.toml"),
            "TEMPORAL_NAMESPACE": "default",
        }

    def _prepare_state(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        (self._state / "temporal.toml").write_text("")

    def _together(self, names: Iterable[str], act: Callable[[Runnable], None]) -> None:
        """Do something with several parts at once; the first error is raised after all are done."""
