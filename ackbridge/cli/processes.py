"""worker, gateway, up, demo: the processes of a deployment, or a whole local stack."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated

import typer
import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp
from temporalio.client import Client

from ackbridge.api.access import ApiParts
from ackbridge.api.app import build_api, build_standalone, describe
from ackbridge.api.event_streams import Streams, open_streams
from ackbridge.catalog.catalog import Catalog, require_keys, sensitive_fields
from ackbridge.catalog.loading import integration_files, load_catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.control_startup import watch_controls
from ackbridge.clock import utc_now
from ackbridge.demo.run import run_demo
from ackbridge.errors import ConfigurationError
from ackbridge.gateway.app import build_config, create_app, serve_until_stopped
from ackbridge.gateway.codec import build_codec_app
from ackbridge.gateway.connections import allow_many_files
from ackbridge.gateway.rejections import NO_PROVIDER, Rejections
from ackbridge.gateway.signal_batching import EngineClient
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.foreground import (
    DEFAULT_STATE,
    PREFERRED_PORTS,
    interrupted_by_sigterm,
    print_stack,
    stack_addresses,
    taken_ports,
)
from ackbridge.local.stack import PARTS, SHOP, Stack, own_settings
from ackbridge.security.encryption import load_encryption
from ackbridge.security.http_auth import HttpAuth, open_http_auth
from ackbridge.security.secrets import Secrets
from ackbridge.settings import (
    Settings,
    app_folder,
    environment,
    integrations_folder,
    load_settings,
)
from ackbridge.stats.counters import Counters
from ackbridge.telemetry.logs import log_to_stderr
from ackbridge.telemetry.metrics.export import Metrics, export_telemetry
from ackbridge.telemetry.metrics.gauges import GaugeSource
from ackbridge.temporal.connect import connect
from ackbridge.temporal.external_storage import bucket_of
from ackbridge.terminal import output
from ackbridge.terminal.collector import collect_less
from ackbridge.terminal.exit_codes import report

from .connections import open_ledger
from .options import Json
from .stack_reload import StackReloader

State = Annotated[
    Path, typer.Option(help="The folder of the server's and the ledger's files, and of the logs.")
]

API_NEEDS_AUTH = "the calls API needs ACKBRIDGE_AUTH_*: see docs/security.md"


def worker(
    provider: Annotated[str | None, typer.Option(help="Serve only this provider's queues.")] = None,
) -> None:
    """Run a worker until SIGTERM, against the server that `TEMPORAL_*` say."""
    command = [sys.executable, str(app_folder() / "worker.py")]
    if provider is not None:
        command += ["--provider", provider]
    # Replaces this process, so that signals reach the worker itself.
    os.execv(command[0], command)  # noqa: S606 -- our own interpreter and our own file


def gateway(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8080,
) -> None:
    """Run the HTTP gateway: callbacks, calls API, health. Terminate TLS in front of it."""
    uvloop.run(_serve_gateway(host, port))


def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8090,
    openapi: Annotated[
        bool, typer.Option("--openapi", help="Print the OpenAPI document, and exit.")
    ] = False,
) -> None:
    """Run the calls API in a process of its own. Terminate TLS in front of it.

    It needs `ACKBRIDGE_AUTH_*`: nothing but health is served without a token or an API key.
    """
    if openapi:
        output.print_json(describe())
    else:
        uvloop.run(_serve_api(host, port))


def up(
    state: State = DEFAULT_STATE,
    engine_only: Annotated[
        bool, typer.Option("--engine-only", help="Only Temporal and its UI.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Run a local stack until Ctrl-C: Temporal and its UI, worker, gateway, providers, and a shop.

    With `ACKBRIDGE_INTEGRATIONS` (also in `.env`) it runs these integrations, with the settings and
    secrets of the environment and of `.env`, and loads the files and `.env` again when they change;
    beside them it runs `provider.py` of the current folder, if there is one. Without it: the
    integrations that ship with Ackbridge, the sandbox and localstripe.

    With `--json` it prints where everything listens, once all of it is ready.
    """
    folder = load_settings().integrations
    parts = _parts(folder, engine_only=engine_only)
    stub = Path("provider.py")
    has_stub = folder is not None and stub.is_file() and not engine_only
    stack = Stack(
        state,
        environ=os.environ,
        integrations=folder,
        parts=parts,
        preferred_ports=PREFERRED_PORTS,
        settings=own_settings(environment()) if folder else None,
        stub=stub if has_stub else None,
    )
    if folder is not None and "worker" in parts:
        load_catalog(folder, stack.environment)  # before anything is started
    say = report if json_output else output.say
    with interrupted_by_sigterm(), stack:
        if json_output:
            output.print_json(stack_addresses(stack, state, parts=parts))
            sys.stdout.flush()
        else:
            print_stack(stack, state, parts=parts)
        for sentence in taken_ports(stack, parts):
            say(sentence)
        if not json_output:
            output.console.print(_examples(stack, folder, parts), soft_wrap=True, markup=False)
        watched = folder if "worker" in parts else None
        reloader = StackReloader(stack, watched, stub if has_stub else None, _own_settings, say)
        try:
            reloader.run()
        except KeyboardInterrupt:
            say("Shutting down. The state is kept for the next start.")


def _own_settings() -> dict[str, str]:
    """Those of the parts; raises `ConfigurationError` where they are not valid."""
    load_settings()  # it names what is wrong
    return own_settings(environment())


def _parts(folder: Path | None, *, engine_only: bool) -> tuple[str, ...]:
    if engine_only:
        return ()
    if folder is None:
        installed = (part for part in PARTS if part != "stripe" or find_spec("localstripe"))
        return (*installed, SHOP)
    has_sandbox = any(path.stem == "sandbox" for path in integration_files(folder))
    return ("engine", "worker", "gateway", *(("sandbox",) if has_sandbox else ()))


def demo(
    calls: Annotated[int, typer.Option(min=1, help="Calls of the four-step protocol.")] = 300,
    payments: Annotated[int, typer.Option(min=0, help="Payments at localstripe.")] = 10,
    state: State = DEFAULT_STATE,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every step.")] = False,
) -> int:
    """Make calls through a local stack, show them, and report. Exit 1 if any result is wrong."""
    return run_demo(state, calls, payments, is_verbose=verbose)


@dataclass(frozen=True)
class _HttpProcess:
    """What the processes that serve HTTP have in common."""

    name: str
    settings: Settings
    environ: Mapping[str, str]
    metrics: Metrics
    catalog: Catalog
    ledger: Ledger
    client: Client
    counters: Counters
    rejections: Rejections
    auth: HttpAuth | None

    async def serve(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        streams: Streams | None,
        gauges: GaugeSource | None = None,
    ) -> None:
        """Serve until SIGTERM."""
        config = build_config(
            app,
            limits=self.settings.gateway,
            trusted_proxies=self.settings.trusted_proxies,
            rejections=self.rejections,
            host=host,
            port=port,
            # Its warnings are logged as ours are.
            log_level="warning",
            log_config=None,
        )
        collect_less()
        async with self.metrics.updating(self.counters, gauges):
            await serve_until_stopped(
                config,
                streams.hub.close_all if streams else None,
                partial(print, f"{self.name} ready at http://{host}:{port}", flush=True),
            )


@asynccontextmanager
async def _http_process(
    settings: Settings, name: str, identity: str | None = None
) -> AsyncIterator[_HttpProcess]:
    """Open what a process that serves HTTP needs, migrate the ledger, and close it at the end.

    Args:
        name: in traces and metrics, after `ackbridge-`.
        identity: what histories say about who sent its requests; None: process and host.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    allow_many_files()
    environ = environment()
    where = (settings.metrics_host, settings.metrics_port)
    with export_telemetry(f"ackbridge-{name}", environ, *where) as metrics:
        catalog = load_catalog(integrations_folder(settings.integrations), environ)
        require_keys(catalog, load_encryption(environ))
        await asyncio.to_thread(migrate, settings.ledger_url)
        ledger = open_ledger()
        client = await connect(environ, lazy=True, identity=identity)
        counters = Counters()
        rejections = Rejections(counters)
        auth = open_http_auth(settings.auth, utc_now, partial(rejections.note, NO_PROVIDER))
        try:
            yield _HttpProcess(
                *(name, settings, environ, metrics, catalog, ledger),
                *(client, counters, rejections, auth),
            )
        finally:
            await ledger.close()
            if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
                await bucket.aclose()
            if auth is not None:
                await auth.aclose()


async def _serve_gateway(host: str, port: int) -> None:
    async with _http_process(load_settings(), "gateway") as process:
        settings, catalog, ledger = process.settings, process.catalog, process.ledger
        streams = _streams(settings, ledger) if settings.api else None
        app = create_app(
            catalog,
            Secrets(process.environ, settings.secrets_root),
            ledger,
            process.client,
            utc_now,
            signal_timeout=settings.signal_timeout,
            codec=_codec(settings, process.client, process.auth, catalog),
            api=_api(process, streams) if settings.api else None,
            counters=process.counters,
            rejections=process.rejections,
        )
        control = watch_controls(process.client, catalog, ledger)
        # The gateway reports the shared gauges: it has fewer instances than the workers.
        gauges = GaugeSource(catalog, ledger, control, settings.environment)
        try:
            await process.serve(app, host, port, streams, gauges)
        finally:
            await control.close()


async def _serve_api(host: str, port: int) -> None:
    settings = load_settings()
    if not settings.auth.is_configured:
        raise ConfigurationError(API_NEEDS_AUTH)
    identity = f"ackbridge-api@{socket.gethostname()}"
    async with _http_process(settings, "api", identity) as process:
        streams = _streams(settings, process.ledger)
        engine = EngineClient(process.client, settings.signal_timeout)
        app = build_standalone(_api(process, streams), engine, process.ledger)
        await process.serve(app, host, port, streams)


def _streams(settings: Settings, ledger: Ledger) -> Streams | None:
    """Streams of events, where they are switched on; raises `ConfigurationError`."""
    secrets = Secrets(environment(), settings.secrets_root)
    return open_streams(settings.streams, secrets, ledger.call_events, utc_now)


def _api(process: _HttpProcess, streams: Streams | None) -> FastAPI:
    """The calls API; raises `ConfigurationError` without authentication."""
    if process.auth is None:
        raise ConfigurationError(API_NEEDS_AUTH)
    calls, where = AckbridgeClient(process.client), process.settings.environment
    return build_api(
        ApiParts(
            *(process.client, calls, process.ledger, process.catalog, process.auth),
            *(utc_now, where, streams),
        )
    )


def _codec(
    settings: Settings, client: Client, auth: HttpAuth | None, catalog: Catalog
) -> ASGIApp | None:
    """The codec endpoint, where it is switched on; raises `ConfigurationError`."""
    if not settings.codec:
        return None
    codec = client.data_converter.payload_codec
    if codec is None or auth is None:
        missing = "ACKBRIDGE_ENCRYPTION_KEYS" if codec is None else "ACKBRIDGE_AUTH_*"
        raise ConfigurationError(f"ACKBRIDGE_CODEC: needs {missing}, too")
    origins = [origin.strip().rstrip("/") for origin in settings.codec_origins.split(",")]
    sensitive = [path for one in catalog.integrations.values() for path in sensitive_fields(one)]
    return build_codec_app(
        codec,
        auth,
        [origin for origin in origins if origin],
        sensitive=sensitive,
        storage=client.data_converter.external_storage,
    )


def _examples(stack: Stack, folder: Path | None, parts: Sequence[str]) -> str:
    command = "ackbridge" if which("ackbridge") else sys.argv[0]
    lines = ["", "In another shell:", "", f"  export TEMPORAL_ADDRESS={stack.addresses.engine}"]
    if folder is not None and "worker" in parts:
        lines.append(f"  {command} call PROVIDER OPERATION --key KEY --payload JSON")
    elif parts:
        order = '{"amount": 5, "currency": "EUR"}'
        payment = '{"amount": 1999, "currency": "eur"}'
        lines.append(f"  {command} call sandbox create_order --key o-1 --payload '{order}'")
        if "stripe" in parts:
            lines.append(f"  {command} call stripe create_payment --key p-1 --payload '{payment}'")
    if parts:
        lines.append(f"  {command} list")
    return "\n".join((*lines, "", "Ctrl-C stops everything.", ""))
