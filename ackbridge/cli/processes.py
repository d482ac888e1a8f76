"""worker, gateway, up, demo: the processes of a deployment, and all of them at once."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.control_startup import watch_controls
from ackbridge.clock import utc_now
from ackbridge.demo.run import run_demo
from ackbridge.gateway.app import build_config, create_app
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.secrets import Secrets
from ackbridge.settings import app_folder, environment, integrations_folder, load_settings
from ackbridge.telemetry.logs import log_to_stderr
from ackbridge.telemetry.metrics.export import export_telemetry
from ackbridge.telemetry.metrics.gauges import GaugeSource
from ackbridge.temporal.connect import connect
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .up import DEFAULT_STATE, run_up

State = Annotated[
    Path, typer.Option(help="Where the engine's and the ledger's files and the logs are kept.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(worker))
    app.command()(exits_with_its_answer(gateway))
    app.command()(exits_with_its_answer(up))
    app.command()(exits_with_its_answer(demo))


def worker(
    provider: Annotated[str | None, typer.Option(help="Serve only this one's queues.")] = None,
) -> int:
    """Run a worker until SIGTERM, against whatever `TEMPORAL_*` says."""
    command = [sys.executable, str(app_folder() / "worker.py")]
    if provider is not None:
        command += ["--provider", provider]
    # Replaced, not started: signals then reach the worker itself.
    os.execv(command[0], command)  # noqa: S606 -- our own interpreter and our own file


def gateway(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8080,
) -> int:
    """Run the HTTP edge: callbacks in, health out. Put your TLS in front of it."""
    uvloop.run(_serve_gateway(host, port))
    return Exit.COMPLETED


def up(state: State = DEFAULT_STATE) -> int:
    """Run the whole stack here until Ctrl-C: engine with its UI, worker, gateway, providers."""
    return run_up(state)


def demo(
    calls: Annotated[int, typer.Option(min=1, help="Calls of the four-step protocol.")] = 300,
    payments: Annotated[int, typer.Option(min=0, help="Payments at localstripe.")] = 10,
    state: State = DEFAULT_STATE,
) -> int:
    """Run real calls through the whole stack, show them, and report. Exit 1 if any fails."""
    return run_demo(state, calls, payments)


async def _serve_gateway(host: str, port: int) -> None:
    settings = load_settings()
    log_to_stderr(settings.log_level)
    environ = environment()
    where = (settings.metrics_host, settings.metrics_port)
    with export_telemetry("ackbridge-gateway", environ, *where) as metrics:
        catalog = load_catalog(integrations_folder(settings.integrations), environ)
        await asyncio.to_thread(migrate, settings.ledger_url)
        ledger = Ledger.open(settings.ledger_url, utc_now)
        client = await connect(environ, lazy=True)
        control = watch_controls(client, catalog)
        app = create_app(
            catalog,
            Secrets(environ, settings.secrets_root),
            ledger,
            client,
            utc_now,
            signal_timeout=settings.signal_timeout,
        )
        config = build_config(app, host=host, port=port, log_level="warning")
        # What lives as long as the process need not be looked through for garbage again and again.
        gc.collect()
        gc.freeze()
        # The gateway tells how things stand for everybody: there are fewer of it than of workers.
        facts = GaugeSource(catalog, ledger, control, settings.environment)
        try:
            async with metrics.updating(gauges=facts):
                await uvicorn.Server(config).serve()
        finally:
            await control.close()
            await ledger.close()
