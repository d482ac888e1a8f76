"""The lanes on Temporal: ours, the engine's floor and the textbook, tuned and as they come."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import yaml
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.local.dev_server import find_binary
from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.local.stack import Stack
from ackbridge.settings import integrations_folder
from ackbridge.temporal.connect import connect

from .bulk_lane import BULK, ManyCalls
from .checks import recorded_in_file
from .lanes import PAYLOAD, Lane
from .orchestration import FLOOR, TASK_QUEUE, TEXTBOOK
from .testbed import Ground
from .textbook import READY

PATIENCE = timedelta(minutes=5)
LIMITED = "limited"
"""The provider with a rate limit; the sandbox under another name."""
SLOW_RECEIPT = "slow-receipt"
"""The sandbox with receipts of up to 10 s, so that no request is sent within `prepare`."""
BULK_STARTS = "bulk-starts"
"""The sandbox with `lane: bulk`, so that calls that are started one by one share workflows."""
SHARED = "SHARED_"
"""The prefix of the variables of a provider that two stacks share."""
PARTS = ("engine", "sandbox", "worker", "gateway")
_RECORDED = "SELECT call_id FROM responses WHERE provider = '{provider}'"
_ENGINE_STARTED = "Temporal Server:"


def lanes_stack(
    folder: Path,
    rates: Mapping[str, float],
    settings: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Stack:
    """A stack, not started yet, whose integrations have a name for each lane.

    Args:
        rates: the faults and delays of the sandbox.
    """
    return Stack(
        folder,
        environ=os.environ,
        integrations=write_integrations(folder / "integrations"),
        sandbox_options=("--rates", json.dumps(rates)),
        parts=PARTS,
        settings=settings,
        workers=workers,
    )


def write_integrations(folder: Path) -> Path:
    """The sandbox's integration, under a name for each lane, with what is special about it."""
    folder.mkdir(parents=True)
    original = (integrations_folder(None) / "sandbox.yaml").read_text()
    for provider in ("sandbox", LIMITED, SLOW_RECEIPT, BULK, BULK_STARTS):
        integration = {**yaml.safe_load(original), "provider": provider}
        if provider == LIMITED:
            integration["limits"] = {"requests_per_second": 10_000}
        if provider == SLOW_RECEIPT:
            integration["operations"]["create_order"].setdefault("receipt", {})["timeout"] = "10s"
        if provider == BULK_STARTS:
            integration["operations"]["create_order"]["lane"] = "bulk"
        text = yaml.safe_dump(integration, sort_keys=False)
        (folder / f"{provider}.yaml").write_text(text)
    return folder


@asynccontextmanager
async def ours(ground: Ground) -> AsyncIterator[list[Lane]]:
    """Ackbridge, with its worker and its gateway; also for a limited provider, and a slow one."""
    many = ManyCalls(AckbridgeClient(ground.client))
    bulk = Lane(
        "bulk",
        many.run,
        processes_of(ground.stack),
        partial(recorded_in_file, ground.folder / "ledger.db", _RECORDED.format(provider=BULK)),
        ground.client,
        host_type=names.BULK_CALLS,
    )
    async with many.running():
        yield [*call_lanes(ground.stack, ground.client, ground.folder), bulk]


def call_lanes(stack: Stack, client: Client, folder: Path) -> list[Lane]:
    """Calls through a stack with the files of `write_integrations`.

    Args:
        folder: of its state.
    """
    return [
        _call_lane(name, provider, stack, client, folder)
        for name, provider in (
            ("ours", "sandbox"),
            ("ours-limited", LIMITED),
            ("ours-slow-receipt", SLOW_RECEIPT),
            ("bulk-starts", BULK_STARTS),
        )
    ]


@asynccontextmanager
async def ours_encrypted(ground: Ground) -> AsyncIterator[list[Lane]]:
    """The same with a key, in an engine, a worker, a gateway and a ledger of its own."""
    folder = ground.folder / "encrypted"
    folder.mkdir()
    shared = {
        name.replace("SANDBOX_", SHARED): value
        for name, value in ground.stack.environment.items()
        if name.startswith("SANDBOX_")
    }
    integrations = write_integrations(folder / "integrations")
    for file in integrations.iterdir():
        file.write_text(file.read_text().replace("SANDBOX_", SHARED))
    keys = {"ACKBRIDGE_ENCRYPTION_KEYS": f"bench=file:{folder / 'key'}"}
    (folder / "key").write_text(base64.b64encode(os.urandom(32)).decode())
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in keys.items()))
    stack = Stack(
        folder,
        environ={**os.environ, **shared},
        integrations=integrations,
        parts=("engine", "worker", "gateway"),
    )
    try:
        await asyncio.to_thread(stack.start)
        client = await connect({**stack.environment, **keys})
        yield [_call_lane("ours-encrypted", "sandbox", stack, client, folder)]
    finally:
        await asyncio.to_thread(stack.stop)


def _call_lane(name: str, provider: str, stack: Stack, client: Client, folder: Path) -> Lane:
    calls = AckbridgeClient(client)

    async def run(key: str) -> str:
        request = CallRequest(provider=provider, operation="create_order", key=key, payload=PAYLOAD)
        await (await calls.start(request)).outcome(PATIENCE, settled=True)
        return request.call_id

    return Lane(
        name,
        run,
        processes_of(stack),
        partial(recorded_in_file, folder / "ledger.db", _RECORDED.format(provider=provider)),
        client,
        host_type=names.BULK_CALLS if provider == BULK_STARTS else None,
        history_only=provider == LIMITED,
    )


def processes_of(stack: Stack) -> dict[str, tuple[int, ...]]:
    """What works for our lanes, by role."""
    return {part: stack.pids(part) for part in ("engine", "worker", "gateway")}


@asynccontextmanager
async def on_tuned_engine(ground: Ground) -> AsyncIterator[list[Lane]]:
    """The floor and the textbook on our own engine, with our worker's settings."""
    pid, address = ground.stack.pid("engine"), ground.stack.addresses.engine
    async with _served(ground, "tuned", address, "--tuned") as (worker, database):
        yield _floor_and_textbook(
            "", ground.client, {"engine": (pid,), "worker": (worker,)}, database
        )


@asynccontextmanager
async def on_default_engine(ground: Ground) -> AsyncIterator[list[Lane]]:
    """The floor and the textbook on an engine and with a worker as they come."""
    port = LoopbackPort()
    command = (
        *(str(find_binary()), "server", "start-dev", "--headless"),
        *("--ip", HOST, "--port", str(port.number), "--db-filename", "engine.db"),
    )
    address = f"{HOST}:{port.number}"
    async with (
        ground.running("default-engine", command, ready=_ENGINE_STARTED) as engine,
        _served(ground, "default", address) as (worker, database),
    ):
        client = await Client.connect(address)
        yield _floor_and_textbook(
            "-default", client, {"engine": (engine.pid,), "worker": (worker,)}, database
        )


@asynccontextmanager
async def _served(
    ground: Ground, name: str, engine: str, *options: str
) -> AsyncIterator[tuple[int, Path]]:
    """The process that serves both; gives its id and its database."""
    port = LoopbackPort()
    database = ground.folder / f"{name}.db"
    command = (
        *(sys.executable, "-m", "benchmarks.textbook", "--engine", engine, *options),
        *("--provider", ground.provider_url, "--database", str(database)),
        *("--port", str(port.number)),
    )
    async with ground.running(f"{name}-worker", command, ready=READY) as worker:
        yield worker.pid, database


def _floor_and_textbook(
    suffix: str, client: Client, processes: dict[str, tuple[int, ...]], database: Path
) -> list[Lane]:
    async def floor(key: str) -> str:
        handle = await client.start_workflow(FLOOR, id=key, task_queue=TASK_QUEUE)
        await handle.result()
        return key

    async def textbook(key: str) -> str:
        request = {"key": key, "payload": PAYLOAD}
        handle = await client.start_workflow(TEXTBOOK, request, id=key, task_queue=TASK_QUEUE)
        await handle.result()
        return key

    recorded = partial(recorded_in_file, database)
    return [
        Lane(f"floor{suffix}", floor, processes, None, client),
        Lane(f"textbook{suffix}", textbook, processes, recorded, client),
    ]
