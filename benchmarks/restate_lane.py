"""The lane on Restate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from ackbridge.local.ports import HOST, LoopbackPort
from benchmarks.peers.http_server import READY

from .checks import recorded_in_file
from .environments import python_of, restate_server
from .lanes import PAYLOAD, Lane
from .testbed import STARTS_WITHIN, Ground, NotReadyError


@asynccontextmanager
async def restate(ground: Ground) -> AsyncIterator[list[Lane]]:
    """Restate's server on its own files, and the service it calls."""
    binary = await asyncio.to_thread(restate_server)
    python = await asyncio.to_thread(python_of, "restate")
    ingress, admin, node, service = (LoopbackPort() for _ in range(4))
    records = ground.folder / "restate-records.db"
    ingress_url = f"http://{HOST}:{ingress.number}"
    command = (
        *(str(python), "-m", "benchmarks.peers.restate_service"),
        *("--provider", ground.provider_url, "--ingress", ingress_url),
        *("--records", f"sqlite:///{records}", "--port", str(service.number)),
    )
    addresses = {
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"{HOST}:{node.number}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress.number}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin.number}",
        "RESTATE_BASE_DIR": str(ground.folder / "restate-state"),
        "RESTATE_DISABLE_TELEMETRY": "true",
    }
    # Not the port itself: Restate does not share it with whoever holds it.
    for port in (ingress, admin, node):
        port.release()
    server = (str(binary), "--no-logo")
    async with (
        ground.running("restate", server, ready="", environ=addresses) as engine,
        ground.running("restate-service", command, ready=READY) as worker,
    ):
        await _register(ground, f"http://{HOST}:{admin.number}", f"http://{HOST}:{service.number}")

        async def run(key: str) -> str:
            await ground.post(f"{ingress_url}/Call/{key}/run", PAYLOAD)
            return key

        yield [
            Lane(
                "restate",
                run,
                {"engine": (engine.pid,), "worker": (worker.pid,)},
                partial(recorded_in_file, records),
            )
        ]


async def _register(ground: Ground, admin: str, service: str) -> None:
    """Tell Restate where the service is, once it listens."""
    for _ in range(int(STARTS_WITHIN * 10)):
        try:
            await ground.post(f"{admin}/deployments", {"uri": service})
        except aiohttp.ClientError as error:
            last = error
            await asyncio.sleep(0.1)
        else:
            return
    raise NotReadyError(f"Restate did not take the service: {last}")
