"""`python -m benchmarks.open_loop`: latency at a steady rate, alone and beside silent calls.

Rounds of the bulk lane alone, of the bulk lane beside silent calls, and of both lanes at a low rate
alternate. Silent calls come on top of the measured ones: their provider never answers. They have a
stack of their own, because they outlive their round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ackbridge.client.calls import AckbridgeClient
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process

from .bulk_lane import ManyCalls
from .engine_lanes import call_lanes, lanes_stack
from .lanes import Lane
from .measurement import quantiles, saturate, trickle

RATES = {"delay_ms": 20}
WARM_UP = 50

console = Console(highlight=False)


@dataclass(frozen=True)
class Setting:
    """One way of loading.

    Attributes:
        per_second: measured calls.
        silent: calls without a response in each round.
    """

    name: str
    lane: Lane
    per_second: float
    silent: int = 0


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_loop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--per-second", type=float, default=200)
    parser.add_argument("--low", type=float, default=10, help="calls a second of the low rate")
    parser.add_argument("--silent", type=float, default=0.1, help="silent calls for each call")
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/open-loop.json"))
    options = parser.parse_args()
    latencies = asyncio.run(_run(options))
    figures = {
        name: {"p50": percentiles[49], "p99": percentiles[98], "calls": len(values)}
        for name, values in latencies.items()
        for percentiles in [quantiles(values)]
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("", "calls", "p50 ms", "p99 ms", title="Open loop", box=None)
    for name, one in figures.items():
        table.add_row(name, str(one["calls"]), f"{one['p50']:.0f}", f"{one['p99']:.0f}")
    console.print(table)
    return 0


async def _run(options: argparse.Namespace) -> dict[str, list[float]]:
    async with AsyncExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
        alone, single = await _start(started, folder / "alone")
        beside, _ = await _start(started, folder / "beside")
        bulk, high, low = Lane("bulk", alone.run, {}), options.per_second, options.low
        settings = (
            Setting(f"bulk, {high:g}/s", bulk, high),
            Setting(
                f"bulk, {high:g}/s, {options.silent:.0%} silent",
                Lane("bulk-beside-silent", beside.run, {}),
                high,
                int(high * options.silent * options.seconds),
            ),
            Setting(f"bulk, {low:g}/s", bulk, low),
            Setting(f"single, {low:g}/s", single, low),
        )
        return await _measure(settings, options.rounds, options.seconds, beside.start_silent)


async def _start(started: AsyncExitStack, folder: Path) -> tuple[ManyCalls, Lane]:
    """A stack; gives its bulk lane and its single lane."""
    stack = lanes_stack(folder, RATES, workers=os.cpu_count() or 1)
    started.callback(stack.stop)
    await asyncio.to_thread(stack.start)
    client = await connect(stack.environment)
    many = ManyCalls(AckbridgeClient(client))
    await started.enter_async_context(many.running())
    return many, call_lanes(stack, client, folder)[0]


async def _measure(
    settings: Sequence[Setting], rounds: int, seconds: float, start_silent: Callable[[], None]
) -> dict[str, list[float]]:
    latencies: dict[str, list[float]] = {setting.name: [] for setting in settings}
    for lane in {id(setting.lane): setting.lane for setting in settings}.values():
        await saturate(lane, WARM_UP, WARM_UP)
    for number in range(rounds):
        for setting in settings if number % 2 else settings[::-1]:
            console.print(f"round {number + 1} of {rounds}: {setting.name}", style="dim")
            silent = asyncio.create_task(_silent(setting.silent, seconds, start_silent))
            calls = int(setting.per_second * seconds)
            latencies[setting.name] += await trickle(setting.lane, calls, setting.per_second)
            await silent
    return latencies


async def _silent(count: int, seconds: float, start_silent: Callable[[], None]) -> None:
    for _ in range(count):
        start_silent()
        await asyncio.sleep(seconds / count)


if __name__ == "__main__":
    exit_process(main())
