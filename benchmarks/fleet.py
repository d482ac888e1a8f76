"""`python -m benchmarks.fleet`: calls a second with one, two and four workers and gateways.

The ledger is on PostgreSQL. Every gateway has the callbacks of a provider of its own, and calls go
to the providers in turn, which shares the callbacks as a load balancer would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest
from ackbridge.local.ports import HOST, LoopbackPort
from ackbridge.local.processes import StackProcess, gateway_plan
from ackbridge.local.stack import Stack
from ackbridge.settings import integrations_folder
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process
from tests.support.postgres import PostgreSQL, postgresql

from .bulk_lane import OPERATION, ManyCalls
from .engine_lanes import PARTS, PATIENCE
from .lanes import PAYLOAD, Lane
from .measurement import saturate
from .processes import cpu_seconds, postmaster

SIZES = ((1, 1), (2, 1), (2, 2), (4, 1), (4, 4))
"""How many workers, and how many gateways."""
LANES = ("ours", "bulk")
WARM_UP = 100
STARTS_WITHIN = timedelta(seconds=60)
STOPS_WITHIN = timedelta(seconds=10)

console = Console(highlight=False)


@dataclass(frozen=True)
class FleetFigures:
    """One lane with one size of the fleet.

    Attributes:
        per_second: calls, at saturation.
        cores: by role, how many cores all processes of the role used together.
    """

    workers: int
    gateways: int
    lane: str
    per_second: float
    cores: dict[str, float]


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--calls", type=int, default=600, help="of the single lane; bulk: thrice")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/fleet.json"))
    options = parser.parse_args()
    figures = asyncio.run(_run(options.calls, options.in_flight))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(one) for one in figures], indent=2))
    console.print(_table(figures))
    return 0


async def _run(calls: int, in_flight: int) -> list[FleetFigures]:
    figures = list[FleetFigures]()
    with postgresql() as server:
        for workers, gateways in SIZES:
            print(f"{workers} workers, {gateways} gateways", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                fleet = Fleet(Path(folder), server, workers, gateways)
                async with fleet.running():
                    for name in LANES:
                        total = calls * (3 if name == "bulk" else 1)
                        figures.append(await fleet.measure(name, total, in_flight))
    return figures


class Fleet:
    """A stack with several workers and gateways."""

    def __init__(self, folder: Path, server: PostgreSQL, workers: int, gateways: int) -> None:
        self._server = server
        self._size = workers, gateways
        self._ports = [LoopbackPort() for _ in range(gateways - 1)]
        self._providers = [f"fleet-{number}" for number in range(1, gateways + 1)]
        self._folder = folder
        integrations = folder / "integrations"
        integrations.mkdir()
        self._stack = Stack(
            folder,
            environ=os.environ,
            integrations=integrations,
            sandbox_options=("--rates", json.dumps({"delay_ms": 20})),
            parts=PARTS,
            settings={"ACKBRIDGE_LEDGER_URL": server.new_database()},
            workers=workers,
        )
        self._write_integrations(integrations)
        self._others: list[StackProcess] = []

    def _write_integrations(self, folder: Path) -> None:
        original = yaml.safe_load((integrations_folder(None) / "sandbox.yaml").read_text())
        own = [f"http://{HOST}:{port.number}" for port in self._ports]
        urls = [self._stack.addresses.gateway, *own]
        for provider, url in zip(self._providers, urls, strict=True):
            order = original["operations"][OPERATION]
            order["request"]["body"]["callback_url"] = f"{url}/callbacks/{provider}"
            text = yaml.safe_dump({**original, "provider": provider}, sort_keys=False)
            (folder / f"{provider}.yaml").write_text(text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All processes, until the end of the block."""
        with ExitStack() as started:
            started.callback(self._stack.stop)
            await asyncio.to_thread(self._stack.start)
            for number, port in enumerate(self._ports, 2):
                gateway = StackProcess(
                    f"gateway-{number}",
                    gateway_plan(port.number),
                    environ=self._stack.environment,
                    log=self._folder / f"gateway-{number}.log",
                    folder=self._folder,
                    start_timeout=STARTS_WITHIN,
                )
                started.callback(gateway.stop, STOPS_WITHIN)
                await asyncio.to_thread(gateway.start)
                self._others.append(gateway)
            yield

    async def measure(self, lane: str, calls: int, in_flight: int) -> FleetFigures:
        """One lane at saturation."""
        client = AckbridgeClient(await connect(self._stack.environment))
        many = ManyCalls(client, self._providers)
        run = many.run if lane == "bulk" else partial(_run_one, client, cycle(self._providers))
        measured = Lane(lane, run, {})
        roles = self._roles()
        async with many.running():
            await saturate(measured, WARM_UP, in_flight)
            before = {role: cpu_seconds(pids) for role, pids in roles.items()}
            elapsed = await saturate(measured, calls, in_flight)
            used = {role: cpu_seconds(pids) - before[role] for role, pids in roles.items()}
        cores = {role: seconds / elapsed for role, seconds in used.items()}
        return FleetFigures(*self._size, lane, calls / elapsed, cores)

    def _roles(self) -> dict[str, Sequence[int]]:
        return {
            "engine": self._stack.pids("engine"),
            "workers": self._stack.pids("worker"),
            "gateways": (*self._stack.pids("gateway"), *(one.pid for one in self._others)),
            "PostgreSQL": (postmaster(self._server.url),),
            "provider": self._stack.pids("sandbox"),
            "load": (os.getpid(),),
        }


async def _run_one(client: AckbridgeClient, providers: cycle[str], key: str) -> str:
    request = CallRequest(provider=next(providers), operation=OPERATION, key=key, payload=PAYLOAD)
    await (await client.start(request)).outcome(PATIENCE, settled=True)
    return request.call_id


def _table(figures: Sequence[FleetFigures]) -> Table:
    roles = list(figures[0].cores)
    table = Table("lane", "workers", "gateways", "calls/s", "of one", *roles, box=None)
    alone = {one.lane: one.per_second for one in reversed(figures)}
    for one in sorted(figures, key=lambda one: LANES.index(one.lane)):
        table.add_row(
            *(one.lane, str(one.workers), str(one.gateways)),
            f"{one.per_second:.1f}",
            f"{one.per_second / alone[one.lane]:.2f}",
            *(f"{one.cores[role]:.2f}" for role in roles),
        )
    return table


if __name__ == "__main__":
    exit_process(main())
