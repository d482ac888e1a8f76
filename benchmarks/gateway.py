"""`python -m benchmarks.gateway`: callbacks a second, against a bare endpoint and the engine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.contracts import names
from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import ManagedProcess
from ackbridge.local.stack import Stack
from ackbridge.sandbox.signing import Signer, build_signer
from ackbridge.security.secrets import Secrets
from ackbridge.temporal.connect import connect

from .gateway_figures import BARE, FASTAPI, FLOOR, Lane, console, show
from .gateway_mixes import AT_ONCE, Mix, distinct, event, repeated, requests, shared
from .gateway_signals import Signals, signals_of
from .measurement import quantiles

PARTS = ("engine", "gateway")
STARTS_WITHIN = timedelta(seconds=30)
FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    """How much is sent.

    Attributes:
        rounds: of all lanes, one after the other.
        calls: that are open in each round, and events of each mix.
        bare: requests to the bare endpoint in each round.
        connections: all of them busy.
    """

    rounds: int = 3
    calls: int = 1500
    bare: int = 6000
    connections: int = 64


class MeasurementError(Exception):
    """A figure that nobody should look at: not every message was signalled once."""


def measure(options: Options) -> dict[str, Lane]:
    """Bare endpoint, engine floor, and the gateway under each mix, interleaved.

    Raises:
        MeasurementError: an answer was not 2xx, or a message was lost or signalled twice.
    """
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environ=os.environ, parts=PARTS)
        with (
            stack,
            _bare(stack, Path(folder), "asgi") as bare,
            _bare(stack, Path(folder), "fastapi") as framework,
        ):
            bench = _Bench(stack, Path(folder), {BARE: bare, FASTAPI: framework}, options)
            return asyncio.run(bench.rounds())


class _Bench:
    def __init__(
        self,
        stack: Stack,
        folder: Path,
        bare: Mapping[str, tuple[ManagedProcess, int]],
        options: Options,
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._bare = bare
        self._options = options
        self._signer = _signer(stack)
        self._lanes: dict[str, Lane] = {}

    async def rounds(self) -> dict[str, Lane]:
        client = await connect(self._stack.environment)
        for number in range(self._options.rounds):
            console.print(f"round {number + 1} of {self._options.rounds}", style="dim")
            calls = await _start_calls(client, self._options.calls)
            for name, (child, port) in self._bare.items():
                await self._bare_round(name, child, port, calls)
            await self._floor_round(calls)
            count = self._options.calls
            for name, mix in (
                ("distinct", distinct(calls)),
                ("10 % twice", repeated(calls)),
                (f"{AT_ONCE} to a call", shared(calls, 2 * count)),
                ("all to one", shared(calls[:1], 2 * count)),
            ):
                await self._gateway_round(client, name, mix)
        return self._lanes

    async def _bare_round(
        self, name: str, child: ManagedProcess, port: int, calls: Sequence[str]
    ) -> None:
        mix = shared(calls, self._options.bare)
        answered = await self._send(name, port, mix, {"bare": child.pid})
        _all_2xx(name, answered, len(mix.events))

    async def _floor_round(self, calls: Sequence[str]) -> None:
        messages = [
            (call_id, f"floor:{key}", json.dumps(event(call_id, key)))
            for call_id, key in distinct(calls).events
        ]
        wanted = {"messages": messages, "in_flight": self._options.connections}
        name = FLOOR
        await self._run(name, "benchmarks.gateway_floor", wanted, len(messages), self._pids())

    async def _gateway_round(self, client: Client, name: str, mix: Mix) -> None:
        port = int(self._stack.addresses.gateway.rpartition(":")[2])
        answered = await self._send(name, port, mix, self._pids())
        _all_2xx(name, answered, len(mix.events))
        signals = await signals_of(client, mix)
        _each_once(name, mix, signals)
        self._lanes[name].signals.append(signals.count / len(set(mix.events)))

    async def _send(
        self, name: str, port: int, mix: Mix, pids: Mapping[str, int]
    ) -> dict[str, Any]:
        load = {
            "port": port,
            "path": "/callbacks/sandbox",
            "requests": requests(mix, self._signer, datetime.now(UTC)),
            "connections": self._options.connections,
        }
        return await self._run(name, "benchmarks.gateway_load", load, len(mix.events), pids)

    async def _run(
        self, name: str, module: str, wanted: Mapping[str, Any], count: int, pids: Mapping[str, int]
    ) -> dict[str, Any]:
        """Run a process that does it, and note what it says and what it costs the others."""
        file = self._folder / "load.json"
        file.write_text(json.dumps(wanted))
        processes = {part: psutil.Process(pid) for part, pid in pids.items()}
        before = {part: _cpu(process) for part, process in processes.items()}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(file)),
            cwd=FOLDER,
            env=self._stack.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await child.communicate()
        if child.returncode:
            raise MeasurementError(f"{name}: {module} ended with {child.returncode}")
        answered: dict[str, Any] = json.loads(output)
        lane = self._lanes.setdefault(name, Lane())
        lane.per_second.append(count / answered["seconds"])
        percentiles = quantiles(answered["latencies"])
        lane.p50.append(percentiles[49])
        lane.p99.append(percentiles[98])
        used = {part: _cpu(process) - before[part] for part, process in processes.items()}
        for part, seconds in {**used, "load": answered["cpu"]}.items():
            lane.cpu.setdefault(part, []).append(seconds / count * 1e6)
        return answered

    def _pids(self) -> dict[str, int]:
        return {part: self._stack.pid(part) for part in PARTS}


async def _start_calls(client: Client, count: int) -> list[str]:
    """Open calls that nobody works on: what a worker does is not the gateway's cost."""
    run = os.urandom(6).hex()
    calls = [f"sandbox.create_order.{run}-{number}" for number in range(count)]
    at_once = asyncio.Semaphore(32)

    async def start(call_id: str) -> None:
        async with at_once:
            await client.start_workflow(names.INTEGRATION_CALL, id=call_id, task_queue="nobody")

    await asyncio.gather(*map(start, calls))
    return calls


def _signer(stack: Stack) -> Signer:
    folder = Path(stack.environment["ACKBRIDGE_INTEGRATIONS"])
    callbacks = load_catalog(folder, stack.environment).integration("sandbox").callbacks
    if callbacks is None or callbacks.verify is None:
        raise MeasurementError("the sandbox's callbacks are not signed")
    return build_signer(callbacks.verify, Secrets(stack.environment, Path()))


@contextmanager
def _bare(stack: Stack, folder: Path, which: str) -> Iterator[tuple[ManagedProcess, int]]:
    port = LoopbackPort().number
    child = ManagedProcess(
        (sys.executable, "-m", "benchmarks.gateway_bare", which, str(port)),
        environ=stack.environment,
        log=folder / f"{which}.log",
        folder=FOLDER,
    )
    child.start()
    try:
        asyncio.run(_listens(child, port))
        yield child, port
    finally:
        child.stop(timedelta(seconds=5))


async def _listens(child: ManagedProcess, port: int) -> None:
    async with asyncio.timeout(STARTS_WITHIN.total_seconds()):
        while child.is_running:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise MeasurementError(f"the bare endpoint did not start:\n{child.tail()}")


def _all_2xx(name: str, answered: Mapping[str, Any], count: int) -> None:
    codes = answered["codes"]
    if sum(number for code, number in codes.items() if code.startswith("2")) != count:
        raise MeasurementError(f"{name}: answers {codes}, expected {count} of 2xx")


def _each_once(name: str, mix: Mix, signals: Signals) -> None:
    for call_id, sent in mix.by_call.items():
        for key in sent:
            if signals.messages[call_id][key] != 1:
                raise MeasurementError(
                    f"{name}: {key} was signalled {signals.messages[call_id][key]} times"
                )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    for name, value in vars(defaults).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    show(measure(Options(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
