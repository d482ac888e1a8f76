"""One engine, one worker, and providers, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp

from ackbridge.client.calls import AckbridgeClient
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import ManagedProcess
from ackbridge.settings import WORKER_READY
from ackbridge.temporal.connect import connect

from .provider import READY

CHECKOUT = Path(__file__).resolve().parents[2]
STARTS_WITHIN = 60.0
"""Seconds."""
STOPS_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True)
class Setting:
    """What a measurement needs.

    Attributes:
        url: of the providers.
        worker: the process that is measured.
        providers: the process that they are in.
    """

    calls: AckbridgeClient
    http: aiohttp.ClientSession
    url: str
    worker: ManagedProcess
    providers: ManagedProcess
    engine: EmbeddedEngine


@asynccontextmanager
async def running(folder: Path, integrations: dict[str, str]) -> AsyncIterator[Setting]:
    """Start everything.

    Args:
        integrations: the text of an integration file by provider; `{url}` is where providers are.

    Raises:
        TimeoutError: a process did not start.
    """
    port = LoopbackPort()
    number = port.number
    url = f"http://127.0.0.1:{number}"
    files = folder / "integrations"
    files.mkdir()
    for name, text in integrations.items():
        (files / f"{name}.yaml").write_text(text.replace("{url}", url))
    async with AsyncExitStack() as stack:
        engine = EmbeddedEngine(folder / "engine.db", headless=True)
        await asyncio.to_thread(engine.start)
        stack.callback(engine.stop)
        environ = {
            **os.environ,
            **engine.environment,
            "ACKBRIDGE_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
            "ACKBRIDGE_INTEGRATIONS": str(files),
            "PYTHONPATH": str(CHECKOUT),
        }
        provider = [sys.executable, "-m", "benchmarks.isolation.provider", str(number)]
        providers = await _start(stack, folder, provider, environ, READY)
        port.release()
        worker = await _start(
            stack, folder, [sys.executable, str(CHECKOUT / "worker.py")], environ, WORKER_READY
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        calls = AckbridgeClient(await connect(engine.environment))
        yield Setting(calls, http, url, worker, providers, engine)


async def _start(
    stack: AsyncExitStack, folder: Path, command: list[str], environ: dict[str, str], ready: str
) -> ManagedProcess:
    name = Path(command[-1]).stem
    process = ManagedProcess(command, environ=environ, log=folder / f"{name}.log", folder=folder)
    process.start()
    stack.callback(process.stop, STOPS_WITHIN)
    until = time.monotonic() + STARTS_WITHIN
    while ready not in process.output():
        if not process.is_running or time.monotonic() > until:
            raise TimeoutError(f"{name} did not start:\n{process.tail()}")
        await asyncio.sleep(0.05)
    return process
