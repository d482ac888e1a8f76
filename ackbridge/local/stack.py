"""The whole stack as child processes on free loopback ports, for `up`, `demo` and the tests."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from ackbridge.clock import utc_now
from ackbridge.security.http_auth import new_api_key, write_api_keys
from ackbridge.security.private_files import make_private_file, make_private_folder
from ackbridge.settings import integrations_folder

from .dev_server import EmbeddedEngine
from .ports import HOST, LoopbackPort
from .processes import (
    ManagedProcess,
    ProcessDiedError,
    ProcessPlan,
    StackProcess,
    gateway_plan,
    sandbox_plan,
    shop_plan,
    stripe_plan,
    stub_plan,
    worker_plan,
)

PARTS: Final = ("engine", "sandbox", "stripe", "worker", "gateway")
"""`stub`, a provider of the user's own, comes on top where one is given."""
SHOP: Final = "shop"
"""A part that only runs where it is asked for: an example of a shop, and the calls API for it."""
_SERVERS: Final = ("engine", "ui", "gateway", "sandbox", "stripe", SHOP)
_STARTED_TOGETHER = (("engine", "sandbox", "stripe", "stub"), ("worker", "gateway", SHOP))
# What makes calls first, so that nothing new arrives; the engine last: the others can finish.
_STOPPED_TOGETHER = ((SHOP, "sandbox", "stripe", "stub"), ("gateway", "worker"), ("engine",))
_STOP_TIMEOUT = timedelta(seconds=10)
_SHUTDOWN_WITHIN = "5s"
_KEY_LIFETIME = timedelta(days=30)
_SHOP_MAY = frozenset({"steer:sandbox"})
# Settings of other deployments must not reach this one.
_NOT_INHERITED = ("ACKBRIDGE_", "SANDBOX_", "STRIPE_", "TEMPORAL_")
_FATAL_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT})


def worker_names(count: int) -> tuple[str, ...]:
    return ("worker", *(f"worker-{number}" for number in range(2, count + 1)))


StackPart = EmbeddedEngine | StackProcess


def _process(part: StackPart) -> ManagedProcess:
    return part.child if isinstance(part, EmbeddedEngine) else part


@dataclass(frozen=True)
class Addresses:
    """`host:port` of the engine's gRPC, and the URLs of the other servers, without a path."""

    engine: str
    ui: str
    gateway: str
    sandbox: str
    stripe: str
    shop: str = ""

    @classmethod
    def at(cls, ports: Mapping[str, int]) -> Self:
        """Those of servers on these loopback ports."""
        urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
        return cls(**{**urls, "engine": f"{HOST}:{ports['engine']}"})


def inherited_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of our environment that a process of a stack inherits."""
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_INHERITED)}


def environment_for(
    addresses: Addresses, environ: Mapping[str, str], *, state: Path, integrations: Path
) -> dict[str, str]:
    """The environment of every part, with secrets made for this run; `state` is the folder."""
    return inherited_environment(environ) | {
        "ACKBRIDGE_ENVIRONMENT": "dev",
        "ACKBRIDGE_INTEGRATIONS": str(integrations.absolute()),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{state / 'ledger.db'}",
        "ACKBRIDGE_PUBLIC_URL": addresses.gateway,
        "ACKBRIDGE_SHUTDOWN_WITHIN": _SHUTDOWN_WITHIN,
        "SANDBOX_API_KEY": secrets.token_urlsafe(24),
        "SANDBOX_BASE_URL": addresses.sandbox,
        "SANDBOX_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(16)}",
        "STRIPE_BASE_URL": addresses.stripe,
        "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
        "TEMPORAL_ADDRESS": addresses.engine,
        # An empty file: the user's own may have another engine's certificates.
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(state)),
        "TEMPORAL_NAMESPACE": "default",
    }


def shop_environment(addresses: Addresses, state: Path) -> dict[str, str]:
    """What the calls API and the shop need, with secrets made for this run."""
    expires_at = utc_now() + _KEY_LIFETIME
    key, entry = new_api_key(SHOP, "the example shop", _SHOP_MAY, expires_at)
    write_api_keys(state / "api-keys.json", (entry,))
    return {
        "ACKBRIDGE_API": "true",
        "ACKBRIDGE_AUTH_API_KEYS": str(state / "api-keys.json"),
        "ACKBRIDGE_STREAMS_SECRETS": "env:STREAMS_SECRET",
        "ACKBRIDGE_STREAMS_ORIGINS": addresses.shop,
        "STREAMS_SECRET": secrets.token_urlsafe(32),
        "SHOP_API_KEY": key,
        "SHOP_API_URL": addresses.gateway,
    }


_OF_THE_STACK: Final = frozenset(
    {
        *("ACKBRIDGE_LEDGER_URL", "ACKBRIDGE_INTEGRATIONS", "ACKBRIDGE_PUBLIC_URL"),
        # Both processes would listen there; unversioned workers need nobody who promotes them.
        *("ACKBRIDGE_METRICS_PORT", "ACKBRIDGE_DEPLOYMENT", "ACKBRIDGE_BUILD_ID"),
        "SANDBOX_BASE_URL",
    }
)
"""Settings that depend on the addresses and the state of a stack."""


def own_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's settings and secrets, but for what the stack decides.

    A public URL counts where providers outside of this machine can reach it.
    """
    own = {
        name: value
        for name, value in environ.items()
        if name not in _OF_THE_STACK and not name.startswith("TEMPORAL_")
    }
    public = environ.get("ACKBRIDGE_PUBLIC_URL", "")
    if public and not is_loopback_url(public):
        own["ACKBRIDGE_PUBLIC_URL"] = public
    root = Path(environ.get("ACKBRIDGE_SECRETS_ROOT", "."))
    return own | {"ACKBRIDGE_SECRETS_ROOT": str(root.absolute())}


def is_loopback_url(url: str) -> bool:
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def empty_temporal_config(state: Path) -> Path:
    return state / "temporal.toml"


class Stack:
    """Engine, worker, gateway, sandbox and localstripe; a context manager.

    Starting blocks for a few seconds. No process outlives the stack: they are stopped in order
    at its end, and on Linux killed when this process ends in any other way. One stack at a time
    per state folder.

    Attributes:
        environment: of the parts, with the secrets of this run; clients connect with it.
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
        preferred_ports: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        stub: Path | None = None,
        start_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        """Choose ports and secrets; nothing is started yet.

        Args:
            state: the folder of the engine's and the ledger's files, and of the logs.
            environ: what the parts inherit, such as the environment of this process, without
                the settings and secrets of other deployments.
            integrations: the folder of integration files; None for those that ship with Ackbridge.
            parts: which of `PARTS` to run, and `SHOP`; the engine always runs.
            workers: how many workers: `worker`, `worker-2`, `worker-3` and so on.
            preferred_ports: by `engine`, `ui`, `gateway`, `sandbox`, `stripe`, `shop`; another port
                is chosen where one is taken.
            settings: of the parts, in place of those that the stack sets itself, and what they
                refer to, such as `ACKBRIDGE_ENCRYPTION_KEYS`.
            stub: a Python program that is a provider, and listens where `settings` say.
        """
        self._state = state.absolute()
        wanted = preferred_ports or {}
        # Reserved as long as this object lives.
        self._reserved = {name: LoopbackPort(wanted.get(name)) for name in _SERVERS}
        ports = {name: port.number for name, port in self._reserved.items()}
        self._ports = ports
        self.addresses = Addresses.at(ports)
        self._defaults = environment_for(
            self.addresses,
            environ,
            state=self._state,
            integrations=integrations_folder(integrations),
        )
        if SHOP in (parts := tuple(parts)):
            make_private_folder(self._state)
            self._defaults |= shop_environment(self.addresses, self._state)
        self._settings = dict(settings or {})
        self.environment = self.environment_with(None)
        self._stub = stub
        self._start_timeout = start_timeout
        self._stopped: set[str] = set()
        plans = self._plans(sandbox_options)
        self._parts: dict[str, StackPart] = {
            name: self._part(name, plans[part])
            for part in (*parts, *(("stub",) if stub else ()))
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
            UnavailableError: one was not ready in time; the others are stopped.
        """
        make_private_folder(self.log("engine").parent)
        make_private_file(empty_temporal_config(self._state))
        try:
            for kinds in _STARTED_TOGETHER:
                self._run_parallel(kinds, lambda part: part.start())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every part in order, each within a bounded time."""
        for kinds in _STOPPED_TOGETHER:
            self._stopped.update(self._names(kinds))
            self._run_parallel(kinds, lambda part: part.stop(_STOP_TIMEOUT))

    def check(self) -> None:
        """Raise `ProcessDiedError` unless all parts run that `kill` or `stop` have not stopped."""
        for name, part in self._parts.items():
            process = _process(part)
            if name not in self._stopped and not process.is_running:
                raise ProcessDiedError(name, process)

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part; returns after its end if the signal is SIGKILL."""
        if number in _FATAL_SIGNALS:
            self._stopped.add(part)
        self._parts[part].kill(number)

    def restart(self, part: str) -> None:
        """Stop a part if it runs, and start it again with its address and state.

        The simulated providers keep their state in memory only.

        Raises:
            ProcessDiedError, UnavailableError: it did not become ready.
        """
        self._stopped.add(part)
        self._parts[part].stop(_STOP_TIMEOUT)
        self._parts[part].start()
        self._stopped.discard(part)

    def environment_with(self, settings: Mapping[str, str] | None) -> dict[str, str]:
        """The environment of the parts with other settings; None: with those that they have."""
        return self._defaults | (self._settings if settings is None else dict(settings))

    def configure(self, settings: Mapping[str, str]) -> None:
        """Give other settings to the parts that are started from now on."""
        self._settings = dict(settings)
        self.environment = self.environment_with(None)
        for part in self._parts.values():
            if isinstance(part, StackProcess):
                part.set_environment(self.environment)

    def is_running(self, part: str) -> bool:
        return _process(self._parts[part]).is_running

    def pids(self, part: str) -> tuple[int, ...]:
        """The processes of a part; there may be several workers."""
        return tuple(self.pid(name) for name in self._names((part,)))

    def pid(self, part: str) -> int:
        return _process(self._parts[part]).pid

    def log(self, part: str) -> Path:
        return self._state / "logs" / f"{part}.log"

    def _names(self, kinds: Iterable[str]) -> list[str]:
        return [name for name in self._parts if name.partition("-")[0] in kinds]

    def _engine(self) -> EmbeddedEngine:
        return EmbeddedEngine(
            self._state / "engine.db",
            port=self._ports["engine"],
            ui_port=self._ports["ui"],
            log=self.log("engine"),
            start_timeout=self._start_timeout,
        )

    def _part(self, name: str, plan: ProcessPlan) -> StackProcess:
        return StackProcess(
            name,
            plan,
            environ=self.environment,
            log=self.log(name),
            # Not the working directory: its `.env` belongs to another deployment.
            folder=self._state,
            start_timeout=self._start_timeout,
        )

    def _plans(self, sandbox_options: Sequence[str]) -> dict[str, ProcessPlan]:
        ports = self._ports
        webhook = f"{self.addresses.gateway}/callbacks/stripe"
        secret = self.environment["STRIPE_WEBHOOK_SECRET"]
        return {
            **({"stub": stub_plan(self._stub)} if self._stub else {}),
            "worker": worker_plan(),
            "gateway": gateway_plan(ports["gateway"]),
            "sandbox": sandbox_plan(ports["sandbox"], sandbox_options),
            "stripe": stripe_plan(ports["stripe"], webhook, secret),
            SHOP: shop_plan(ports[SHOP]),
        }

    def _run_parallel(self, kinds: Iterable[str], act: Callable[[StackPart], None]) -> None:
        # The first error ends the waiting.
        parts = [self._parts[name] for name in self._names(kinds)]
        threads = ThreadPoolExecutor(len(parts) or 1)
        try:
            futures = [threads.submit(act, part) for part in parts]
            for done in wait(futures, return_when=FIRST_EXCEPTION).done:
                done.result()
        finally:
            # Not awaited: a start that is still waiting gives up when its part is stopped.
            threads.shutdown(wait=False, cancel_futures=True)
