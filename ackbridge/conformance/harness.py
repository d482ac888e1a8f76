"""A stage for one integration file: engine, worker, gateway, and a provider that is simulated.

Everything is made for the run and nothing outlives it: a copy of the file that leads to the
simulated provider, secrets, ports, a ledger and an engine in a temporary folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import Integration
from ackbridge.clock import utc_now
from ackbridge.gateway.app import create_app
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.ports import HOST
from ackbridge.local.processes import StackProcess, worker_plan
from ackbridge.local.stack import empty_temporal_config, inherited_environment
from ackbridge.sandbox.provider import simulate
from ackbridge.sandbox.serving import build_config
from ackbridge.security.secrets import Secrets
from ackbridge.temporal.connect import connect

from .file_based_provider import FileBasedProvider
from .sandboxed_copy import SandboxedCopy, make_stand_in

_STARTS_WITHIN = timedelta(seconds=60)
_STOPS_WITHIN = timedelta(seconds=5)
_SWEEPS_EVERY = timedelta(milliseconds=500)
_MIGRATING = threading.Lock()
_KEEPS_ALIVE = 600
"""Seconds: a connection that closes by itself would be a fault that nobody has asked for."""


@dataclass(frozen=True)
class ConformanceStack:
    """What a run has.

    Attributes:
        integration: the copy of the file, as worker and gateway know it.
        mimic: how the provider speaks.
        provider_url, gateway_url: where they are.
        client: of the engine.
        ledger: the one that worker and gateway write.
        ledger_path: its file.
    """

    integration: Integration
    mimic: FileBasedProvider
    provider_url: str
    gateway_url: str
    client: Client
    ledger: Ledger
    ledger_path: Path


@asynccontextmanager
async def rehearse(file: Path, environ: Mapping[str, str]) -> AsyncIterator[ConformanceStack]:
    """Set everything up, and leave nothing behind.

    Raises:
        IntegrationFileError: the file does not validate.
        Unavailable: a part does not start; the text has the end of its log.
    """
    with contextlib.ExitStack() as kept:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="ackbridge-")))
        provider_at, gateway_at = (kept.enter_context(_listener()) for _ in range(2))
        stand_in = make_stand_in(file, environ, folder, provider_url=_url(provider_at))
        async with _run(stand_in, environ, folder, provider_at, gateway_at) as rehearsal:
            yield rehearsal


@asynccontextmanager
async def _run(
    stand_in: SandboxedCopy,
    environ: Mapping[str, str],
    folder: Path,
    provider_at: socket.socket,
    gateway_at: socket.socket,
) -> AsyncIterator[ConformanceStack]:
    gateway_url = _url(gateway_at)
    catalog = load_catalog(stand_in.folder, {})
    integration = next(iter(catalog.integrations.values()))
    secrets = Secrets(stand_in.environment, stand_in.secrets_root)
    mimic = FileBasedProvider(integration, secrets, gateway_url, utc_now)
    provider = simulate(mimic, behaviour_for=mimic.behaviour_for)
    ledger_path = folder / "ledger.db"
    await asyncio.to_thread(_migrate, f"sqlite:///{ledger_path}")
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(_served(provider, provider_at))
        engine = EmbeddedEngine(folder / "engine.db", headless=True, time_skipping=True)
        running.push_async_callback(asyncio.to_thread, engine.stop, _STOPS_WITHIN)
        await asyncio.to_thread(engine.start)
        surroundings = {
            **inherited_environment(environ),
            **stand_in.environment,
            **_settings(stand_in, folder, ledger_path, gateway_url),
            **engine.environment,
        }
        worker = _worker(surroundings, folder)
        running.push_async_callback(asyncio.to_thread, worker.stop, _STOPS_WITHIN)
        await asyncio.to_thread(worker.start)
        client = await connect(surroundings)
        ledger = await running.enter_async_context(_ledger(ledger_path))
        gateway = create_app(
            catalog,
            secrets,
            await running.enter_async_context(_ledger(ledger_path)),
            await connect(surroundings, lazy=True),
            utc_now,
            sweep_every=_SWEEPS_EVERY,
            sweep_older_than=_SWEEPS_EVERY,
        )
        await running.enter_async_context(_served(gateway, gateway_at))
        yield ConformanceStack(
            integration=integration,
            mimic=mimic,
            provider_url=_url(provider_at),
            gateway_url=gateway_url,
            client=client,
            ledger=ledger,
            ledger_path=ledger_path,
        )


def _settings(
    stand_in: SandboxedCopy, folder: Path, ledger_path: Path, gateway_url: str
) -> dict[str, str]:
    empty_temporal_config(folder).write_text("")
    return {
        "ACKBRIDGE_ENVIRONMENT": "dev",
        "ACKBRIDGE_INTEGRATIONS": str(stand_in.folder),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{ledger_path}",
        "ACKBRIDGE_LOG_LEVEL": "WARNING",
        "ACKBRIDGE_PUBLIC_URL": gateway_url,
        "ACKBRIDGE_SECRETS_ROOT": str(stand_in.secrets_root),
        "ACKBRIDGE_SHUTDOWN_WITHIN": "1s",
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(folder)),
    }


def _worker(environ: Mapping[str, str], folder: Path) -> StackProcess:
    return StackProcess(
        "worker",
        worker_plan(),
        environ=environ,
        log=folder / "worker.log",
        folder=folder,
        start_timeout=_STARTS_WITHIN,
    )


@asynccontextmanager
async def _ledger(path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger.open(f"sqlite:///{path}", utc_now)
    try:
        yield ledger
    finally:
        await ledger.close()


def _migrate(url: str) -> None:
    # Alembic keeps what it works on in a global: two runs in one process would mix theirs up.
    with _MIGRATING:
        migrate(url)


class _Server(uvicorn.Server):
    """Leaves the signals to whoever started the run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _served(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve in this event loop; the port listens already, so there is nothing to wait for."""
    config = build_config(
        app, log_config=None, timeout_graceful_shutdown=1, timeout_keep_alive=_KEEPS_ALIVE
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _listener() -> contextlib.closing[socket.socket]:
    return contextlib.closing(socket.create_server((HOST, 0), backlog=512))


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"
