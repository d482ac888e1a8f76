"""worker, gateway, up, demo: the processes of a deployment, or a whole local stack."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp
from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog, require_keys, sensitive_fields
from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control_startup import watch_controls
from ackbridge.clock import utc_now
from ackbridge.demo.run import run_demo
from ackbridge.errors import ConfigurationError
from ackbridge.gateway.app import build_config, create_app
from ackbridge.gateway.codec import build_codec_app
from ackbridge.gateway.connections import allow_many_files
from ackbridge.gateway.rejections import NO_PROVIDER, Rejections
from ackbridge.ledger.database.migrate import migrate
from ackbridge.local.foreground import (
    DEFAULT_STATE,
    PREFERRED_PORTS,
    interrupted_by_sigterm,
    print_stack,
)
from ackbridge.local.stack import Stack
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
from ackbridge.telemetry.metrics.export import export_telemetry
from ackbridge.telemetry.metrics.gauges import GaugeSource
from ackbridge.temporal.connect import connect
from ackbridge.temporal.external_storage import bucket_of
from ackbridge.terminal import output

from .connections import open_ledger

State = Annotated[
    Path, typer.Option(help="The folder of the server's and the ledger's files, and of the logs.")
]

CHECK_INTERVAL = 1.0
"""Seconds between two checks that every process of the stack still runs."""


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


def up(state: State = DEFAULT_STATE) -> None:
    """Run a local stack until Ctrl-C: Temporal and its UI, worker, gateway, two providers."""
    with (
        interrupted_by_sigterm(),
        Stack(state, environ=os.environ, preferred_ports=PREFERRED_PORTS) as stack,
    ):
        print_stack(stack, state)
        output.console.print(_examples(stack), soft_wrap=True)
        try:
            while True:
                time.sleep(CHECK_INTERVAL)
                stack.check()
        except KeyboardInterrupt:
            output.console.print("Shutting down. The state is kept for the next start.")


def demo(
    calls: Annotated[int, typer.Option(min=1, help="Calls of the four-step protocol.")] = 300,
    payments: Annotated[int, typer.Option(min=0, help="Payments at localstripe.")] = 10,
    state: State = DEFAULT_STATE,
) -> int:
    """Make calls through a local stack, show them, and report. Exit 1 if any result is wrong."""
    return run_demo(state, calls, payments)


async def _serve_gateway(host: str, port: int) -> None:
    settings = load_settings()
    log_to_stderr(settings.log_level)
    allow_many_files()
    environ = environment()
    where = (settings.metrics_host, settings.metrics_port)
    with export_telemetry("ackbridge-gateway", environ, *where) as metrics:
        catalog = load_catalog(integrations_folder(settings.integrations), environ)
        require_keys(catalog, load_encryption(environ))
        await asyncio.to_thread(migrate, settings.ledger_url)
        ledger = open_ledger()
        client = await connect(environ, lazy=True)
        counters = Counters()
        rejections = Rejections(counters)
        auth = open_http_auth(settings.auth, utc_now, partial(rejections.note, NO_PROVIDER))
        control = watch_controls(client, catalog, ledger)
        app = create_app(
            catalog,
            Secrets(environ, settings.secrets_root),
            ledger,
            client,
            utc_now,
            signal_timeout=settings.signal_timeout,
            codec=_codec(settings, client, auth, catalog),
            counters=counters,
            rejections=rejections,
        )
        config = build_config(
            app,
            limits=settings.gateway,
            trusted_proxies=settings.trusted_proxies,
            rejections=rejections,
            host=host,
            port=port,
            log_level="warning",
        )
        # Objects that live as long as the process are exempt from garbage collection.
        gc.collect()
        gc.freeze()
        # The gateway reports the shared gauges: it has fewer instances than the workers.
        gauges = GaugeSource(catalog, ledger, control, settings.environment)
        try:
            async with metrics.updating(counters, gauges):
                await uvicorn.Server(config).serve()
        finally:
            await control.close()
            await ledger.close()
            if (bucket := bucket_of(client.data_converter.external_storage)) is not None:
                await bucket.aclose()
            if auth is not None:
                await auth.aclose()


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


def _examples(stack: Stack) -> str:
    return f"""
In another shell:

  export TEMPORAL_ADDRESS={stack.addresses.engine}
  .venv/bin/ackbridge call sandbox create_order --key o-1 --payload '{{"amount": 5, "currency": "EUR"}}'
  .venv/bin/ackbridge call stripe create_payment --key p-1 --payload '{{"amount": 1999, "currency": "eur"}}'
  .venv/bin/ackbridge list

Ctrl-C stops everything.
"""  # noqa: E501 -- commands to copy, one per line
