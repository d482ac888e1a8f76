"""`make scale`: more and more calls that wait for their response, and what that costs.

Beside the stack with the waiting calls runs an empty one. Rounds of new calls alternate between the
two, so that a noisy machine affects both equally.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console
from rich.table import Table

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest, CallStatus, Stage
from ackbridge.errors import EngineUnavailableError
from ackbridge.local.stack import Stack
from ackbridge.settings import integrations_folder
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process
from benchmarks.engine_lanes import PARTS
from benchmarks.lanes import PAYLOAD
from benchmarks.processes import memory

from .chart import draw

WAITING: Final = "waiting"
"""The sandbox under another name, with a deadline that is never reached."""
DEADLINE: Final = "24h"
STUCK: Final = {**PAYLOAD, "behaviour": {"stuck": True}}
SANDBOX: Final = ("--rates", '{"delay_ms": 20}')
WAVE: Final = 200
"""Waiting calls that are started at once."""
PATIENCE: Final = timedelta(minutes=10)
_LOOK_EVERY: Final = 0.1
"""Seconds."""
_SENT: Final = "SELECT count(*) FROM correlations WHERE provider = ?"

console = Console(highlight=False)


@dataclasses.dataclass(frozen=True)
class Level:
    """What was measured with a number of waiting calls.

    Attributes:
        waiting: the number.
        started_per_second: while they were started.
        worker, engine: MiB, resident.
        engine_file: MiB.
        per_second, empty_per_second: new calls a second beside them, and in the empty stack.
        restart, first_call: seconds from the kill of the worker until another one is ready, and
            until a new call has ended.
        asked: seconds from the kill until as many of the waiting calls as `samples` have answered
            a query.
        samples: how many were asked.
    """

    waiting: int
    started_per_second: float
    worker: float
    engine: float
    engine_file: float
    per_second: float
    empty_per_second: float
    restart: float
    first_call: float
    asked: float
    samples: int


@dataclasses.dataclass
class Running:
    """A stack and its client."""

    stack: Stack
    folder: Path
    calls: AckbridgeClient
    started: int = 0

    def key(self) -> str:
        """A fresh one."""
        self.started += 1
        return f"scale-{self.started:07}"


def main() -> int:
    """Measure, print, write JSON, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--waiting", default="1000,3000,10000", help="numbers of waiting calls")
    parser.add_argument(
        "--lane", choices=("single", "bulk"), default="single", help="of waiting calls"
    )
    parser.add_argument("--calls", type=int, default=150, help="new calls of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--samples", type=int, default=200, help="waiting calls that are queried")
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/scale.json"))
    parser.add_argument("--picture", type=Path, default=Path(".ackbridge/scale.svg"))
    options = parser.parse_args()
    levels = asyncio.run(_run(options))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    documents = [dataclasses.asdict(level) for level in levels]
    options.json.write_text(json.dumps(documents, indent=2) + "\n")
    _print(levels)
    draw(documents, options.picture)
    console.print(f"\nWritten to {options.json}, drawn in {options.picture}")
    return 0


async def _run(options: argparse.Namespace) -> list[Level]:
    levels: list[Level] = []
    async with AsyncExitStack() as stacks:
        folder = Path(stacks.enter_context(tempfile.TemporaryDirectory()))
        loaded = await stacks.enter_async_context(_running(folder / "loaded", options.lane))
        empty = await stacks.enter_async_context(_running(folder / "empty", options.lane))
        waiting: list[str] = []
        for wanted in (int(number) for number in options.waiting.split(",")):
            began, before = time.perf_counter(), len(waiting)
            await _start_waiting(loaded, waiting, wanted)
            rate = (wanted - before) / (time.perf_counter() - began)
            level = await _level(loaded, empty, waiting, rate, options)
            console.print(f"{wanted} waiting: {dataclasses.asdict(level)}", style="dim")
            levels.append(level)
    return levels


@asynccontextmanager
async def _running(folder: Path, lane: str) -> AsyncIterator[Running]:
    stack = Stack(
        folder,
        environ=os.environ,
        integrations=_write_integrations(folder / "integrations", lane),
        sandbox_options=SANDBOX,
        parts=PARTS,
    )
    try:
        await asyncio.to_thread(stack.start)
        yield Running(stack, folder, AckbridgeClient(await connect(stack.environment)))
    finally:
        await asyncio.to_thread(stack.stop)


def _write_integrations(folder: Path, lane: str) -> Path:
    folder.mkdir(parents=True)
    original = (integrations_folder(None) / "sandbox.yaml").read_text()
    (folder / "sandbox.yaml").write_text(original)
    patient = {**yaml.safe_load(original), "provider": WAITING}
    operation = patient["operations"]["create_order"]
    if lane == "bulk":
        operation["lane"] = lane
    response = operation["response"]
    response["deadline"] = {"initial": DEADLINE, "ceiling": DEADLINE}
    (folder / f"{WAITING}.yaml").write_text(yaml.safe_dump(patient, sort_keys=False))
    return folder


async def _start_waiting(loaded: Running, waiting: list[str], wanted: int) -> None:
    """Start calls until so many wait; each wave when the one before has its receipts."""

    async def start() -> str:
        request = CallRequest(
            provider=WAITING, operation="create_order", key=loaded.key(), payload=STUCK
        )
        return (await loaded.calls.start(request)).id

    while len(waiting) < wanted:
        wave = min(WAVE, wanted - len(waiting))
        waiting += await asyncio.gather(*(start() for _ in range(wave)))
        while _sent(loaded) < len(waiting):  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(_LOOK_EVERY)


def _sent(loaded: Running) -> int:
    database = sqlite3.connect(loaded.folder / "ledger.db")
    try:
        return int(database.execute(_SENT, (WAITING,)).fetchone()[0])
    finally:
        database.close()


async def _level(
    loaded: Running,
    empty: Running,
    waiting: Sequence[str],
    started_per_second: float,
    options: argparse.Namespace,
) -> Level:
    rates: dict[int, list[float]] = {id(loaded): [], id(empty): []}
    for number in range(options.rounds):
        for running in (loaded, empty) if number % 2 else (empty, loaded):
            rates[id(running)].append(await _rate(running, options.calls, options.in_flight))
    worker = memory([loaded.stack.pid("worker")])
    engine = memory([loaded.stack.pid("engine")])
    samples = waiting[:: max(1, len(waiting) // options.samples)][: options.samples]
    restart, first_call, asked = await _restart_worker(loaded, samples)
    return Level(
        len(waiting),
        started_per_second,
        worker,
        engine,
        (loaded.folder / "engine.db").stat().st_size / 2**20,
        statistics.median(rates[id(loaded)]),
        statistics.median(rates[id(empty)]),
        restart,
        first_call,
        asked,
        len(samples),
    )


async def _rate(running: Running, calls: int, in_flight: int) -> float:
    """New calls a second with a fixed number in flight."""
    at_once = asyncio.Semaphore(in_flight)

    async def one() -> None:
        async with at_once:
            await _new_call(running)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as all_of_them:
        for _ in range(calls):
            all_of_them.create_task(one())
    return calls / (time.perf_counter() - began)


async def _new_call(running: Running) -> None:
    request = CallRequest(
        provider="sandbox", operation="create_order", key=running.key(), payload=PAYLOAD
    )
    await (await running.calls.start(request)).outcome(PATIENCE, settled=True)


async def _restart_worker(loaded: Running, samples: Sequence[str]) -> tuple[float, float, float]:
    """Kill the worker and start another one; seconds as in `Level`."""
    began = time.perf_counter()
    await asyncio.to_thread(loaded.stack.kill, "worker")
    await asyncio.to_thread(loaded.stack.restart, "worker")
    restart = time.perf_counter() - began
    await _new_call(loaded)
    first_call = time.perf_counter() - began
    at_once = asyncio.Semaphore(20)

    async def ask(call_id: str) -> None:
        async with at_once, asyncio.timeout(PATIENCE.total_seconds()):
            status = await _status(loaded, call_id)
        if status.stage is not Stage.AWAITING_RESPONSE:
            raise RuntimeError(f"{call_id} is {status.stage} after the restart")

    await asyncio.gather(*(ask(call_id) for call_id in samples))
    return restart, first_call, time.perf_counter() - began


async def _status(loaded: Running, call_id: str) -> CallStatus:
    """The engine may wait for the worker that was killed, longer than a request does."""
    while True:
        try:
            return await loaded.calls.call(call_id).status()
        except EngineUnavailableError:
            continue


def _print(levels: Sequence[Level]) -> None:
    table = Table(title="Calls that wait for their response", title_justify="left", box=None)
    columns = {
        "waiting": "{0.waiting}",
        "worker MiB": "{0.worker:.0f}",
        "engine MiB": "{0.engine:.0f}",
        "engine's file MiB": "{0.engine_file:.0f}",
        "new calls/s": "{0.per_second:.1f}",
        "of an empty stack's": "{1:.2f}",
        "worker ready, s": "{0.restart:.1f}",
        "first new call, s": "{0.first_call:.1f}",
        "samples asked, s": "{0.asked:.1f}",
    }
    for column in columns:
        table.add_column(column, justify="right")
    for level in levels:
        share = level.per_second / level.empty_per_second
        table.add_row(*(cell.format(level, share) for cell in columns.values()))
    console.print(table)


if __name__ == "__main__":
    exit_process(main())
