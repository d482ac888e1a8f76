"""Everything that runs for the conformance of one integration file.

A simulated provider, the gateway, a worker and a Temporal server with time skipping, all made for
the run: a copy of the file that points to the simulated provider, secrets, ports, a ledger and a
database in a temporary folder, which is removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from temporalio.client import Client
from temporalio.testing import TimeSkipper

from ackbridge.catalog.examples import Example
from ackbridge.catalog.loading import load_catalog, load_examples, load_integration
from ackbridge.catalog.model import Integration
from ackbridge.client.calls import AckbridgeClient
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
from .sandboxed_copy import SandboxedCopy, make_copy

_START_TIMEOUT = timedelta(seconds=60)
_STOP_TIMEOUT = timedelta(seconds=5)
_SWEEP_INTERVAL = timedelta(milliseconds=500)
_MIGRATION_LOCK = threading.Lock()
_KEEP_ALIVE = 600
"""Seconds: a connection closed for idleness would be a fault that no scenario asked for."""


@dataclass
class Harness:
    """What all scenarios share."""

    integration: Integration  # the copy of the file, as worker and gateway have it
    examples: Sequence[Example]
    dialect: FileBasedProvider
    client: Client
    provider: httpx.AsyncClient  # an HTTP client of the provider's inspection routes
    ledger: Ledger  # the one of worker and gateway; `ledger_path` is its file
    ledger_path: Path

    def __post_init__(self) -> None:
        self.calls = AckbridgeClient(self.client)
        self.skipper = TimeSkipper(self.client)


@asynccontextmanager
async def conformance_harness(file: Path, environ: Mapping[str, str]) -> AsyncIterator[Harness]:
    """Start everything; stop it and remove its files at the end.

    Raises:
        IntegrationFileError: the file does not validate.
        UnavailableError: a process does not start; the text has the end of its log.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ackbridge-")))
        provider_at, gateway_at = (stack.enter_context(_listener()) for _ in range(2))
        provider_url, gateway_url = _url(provider_at), _url(gateway_at)
        copy = make_copy(file, environ, folder, provider_url=provider_url)
        catalog = load_catalog(copy.folder, {})
        (integration,) = catalog.integrations.values()
        secrets = Secrets(copy.environment, copy.secrets_root)
        secrets.use_in_task()
        original = load_integration(file, environ)
        examples = [one.example for one in load_examples(file, original)]
        dialect = FileBasedProvider(
            integration, secrets, gateway_url, utc_now, examples, _mover(original, provider_url)
        )
        provider = simulate(dialect, behaviour_for=dialect.behaviour_for)
        ledger_path = folder / "ledger.db"
        await asyncio.to_thread(_migrate, f"sqlite:///{ledger_path}")
        await stack.enter_async_context(_serve(provider, provider_at))
        settings = _settings(copy, folder, ledger_path, gateway_url)
        environment = {**inherited_environment(environ), **copy.environment, **settings}
        environment |= await _start_processes(stack, folder, environment)
        client = await connect(environment)
        ledger = await stack.enter_async_context(_ledger(ledger_path))
        gateway = create_app(
            catalog,
            secrets,
            await stack.enter_async_context(_ledger(ledger_path)),
            await connect(environment, lazy=True),
            utc_now,
            sweep_every=_SWEEP_INTERVAL,
            sweep_older_than=_SWEEP_INTERVAL,
        )
        await stack.enter_async_context(_serve(gateway, gateway_at))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=provider_url, trust_env=False)
        )
        yield Harness(integration, examples, dialect, client, http, ledger, ledger_path)


async def _start_processes(
    stack: contextlib.AsyncExitStack, folder: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Start engine and worker; `stack` stops them. Returns how to reach the engine."""
    server = EmbeddedEngine(folder / "engine.db", headless=True, time_skipping=True)
    stack.push_async_callback(asyncio.to_thread, server.stop, _STOP_TIMEOUT)
    await asyncio.to_thread(server.start)
    worker = StackProcess(
        "worker",
        worker_plan(),
        environ={**environment, **server.environment},
        log=folder / "worker.log",
        folder=folder,
        start_timeout=_START_TIMEOUT,
    )
    stack.push_async_callback(asyncio.to_thread, worker.stop, _STOP_TIMEOUT)
    await asyncio.to_thread(worker.start)
    return server.environment


def _settings(
    copy: SandboxedCopy, folder: Path, ledger_path: Path, gateway_url: str
) -> dict[str, str]:
    empty_temporal_config(folder).write_text("")
    return {
        "ACKBRIDGE_ENVIRONMENT": "dev",
        "ACKBRIDGE_INTEGRATIONS": str(copy.folder),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{ledger_path}",
        "ACKBRIDGE_LOG_LEVEL": "WARNING",
        "ACKBRIDGE_PUBLIC_URL": gateway_url,
        "ACKBRIDGE_SECRETS_ROOT": str(copy.secrets_root),
        "ACKBRIDGE_SHUTDOWN_WITHIN": "1s",
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(folder)),
    }


@asynccontextmanager
async def _ledger(path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger.open(f"sqlite:///{path}", utc_now)
    try:
        yield ledger
    finally:
        await ledger.close()


def _migrate(url: str) -> None:
    # Alembic keeps its context in a global: two runs in one process would mix theirs up.
    with _MIGRATION_LOCK:
        migrate(url)


class _Server(uvicorn.Server):
    """Leaves signal handling to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serve(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on this event loop; the socket listens already, so it is ready at once."""
    config = build_config(
        app, log_config=None, timeout_graceful_shutdown=1, timeout_keep_alive=_KEEP_ALIVE
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _mover(integration: Integration, provider_url: str) -> Callable[[str], str]:
    """Gives URLs of the provider, and of the hosts that its file allows, the simulated address."""

    def move(url: str) -> str:
        try:
            is_allowed = integration.access_to(url) is not None
        except ValueError:
            return url
        at = urlsplit(provider_url)
        moved = urlsplit(url)._replace(scheme=at.scheme, netloc=at.netloc)
        return moved.geturl() if is_allowed else url

    return move


def _listener() -> contextlib.closing[socket.socket]:
    return contextlib.closing(socket.create_server((HOST, 0), backlog=512))


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"
