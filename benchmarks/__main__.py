"""`make bench`: ours, the engine's floor, the textbook and its peers, interleaved, as ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from rich.console import Console

from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process

from .checks import faults, seen_by_provider
from .engine_lanes import lanes_stack
from .environments import NotInstalledError, python_of, run
from .groups import GROUPS, GROUPS_OF_LANES, MAKE_BENCH
from .lanes import Lane
from .measurement import Figures, Load, measure
from .report import document, show
from .testbed import Ground, NotReadyError

RATES = {"duplicate": 0.1, "most": 1, "delay_ms": 20}

console = Console(highlight=False)


def main() -> int:
    """Measure, check, print, write JSON and a plot. Exit 1 when a call was not done right."""
    options = _read_options()
    try:
        measured, wrong = asyncio.run(_run(options))
    except (NotInstalledError, NotReadyError) as error:
        print(error, file=sys.stderr)
        return 2
    written = document(measured, options.load, wrong)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(written, indent=2) + "\n")
    show(console, written)
    console.print(f"\nWritten to {options.json}")
    if options.plot is not None:
        _plot(options.json, options.plot)
    return 1 if wrong else 0


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--lanes",
        type=_lanes,
        help=f"of {', '.join(GROUPS_OF_LANES)}; by default those of `make bench`, without a peer"
        " that cannot be installed here",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=30, help="calls before each measurement")
    parser.add_argument("--calls", type=int, default=300, help="at saturation, each round")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--trickle", type=int, default=60, help="calls at low load, each round")
    parser.add_argument("--per-second", type=float, default=10)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="of our own lanes; one for each core"
    )
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/bench.json"))
    parser.add_argument("--plot", type=Path, help="an SVG file")
    options = parser.parse_args()
    options.load = Load(
        options.rounds,
        options.warm_up,
        options.calls,
        options.in_flight,
        options.trickle,
        options.per_second,
    )
    return options


def _lanes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in GROUPS_OF_LANES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no lane {', '.join(unknown)}")
    return names


async def _run(options: argparse.Namespace) -> tuple[dict[str, Figures], dict[str, list[str]]]:
    """The figures, and what is wrong, by lane."""
    loop, us = asyncio.get_running_loop(), asyncio.current_task()
    assert us is not None  # noqa: S101 -- a coroutine that runs has a task
    # So that everything we have started ends with us.
    loop.add_signal_handler(signal.SIGTERM, us.cancel)
    async with AsyncExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
        ground = await _prepare(started, folder, options)
        lanes: list[Lane] = []
        wanted = options.lanes or MAKE_BENCH
        for group in dict.fromkeys(GROUPS_OF_LANES[name] for name in wanted):
            try:
                lanes += await started.enter_async_context(GROUPS[group](ground))
            except NotInstalledError as error:
                if options.lanes:
                    raise
                console.print(f"without {group}: {error}")
        lanes = [lane for lane in lanes if lane.name in wanted]
        lanes.sort(key=lambda lane: wanted.index(lane.name))
        measured = await _measure(lanes, ground, options.load)
        return measured, await _check(lanes, ground)


async def _prepare(started: AsyncExitStack, folder: Path, options: argparse.Namespace) -> Ground:
    stack = lanes_stack(folder, RATES, workers=options.workers)
    started.callback(stack.stop)
    await asyncio.to_thread(stack.start)
    client = await connect(stack.environment)
    http = await started.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=options.load.in_flight),
            timeout=aiohttp.ClientTimeout(),
        )
    )
    return Ground(folder, stack, client, http)


async def _measure(lanes: Sequence[Lane], ground: Ground, load: Load) -> dict[str, Figures]:
    """All rounds; each begins with another lane."""
    ever_present = {"provider": (ground.stack.pid("sandbox"),), "load": (os.getpid(),)}
    everybody = {pid for lane in lanes for pids in lane.processes.values() for pid in pids}
    measured = {lane.name: Figures() for lane in lanes}
    for number in range(load.rounds):
        first = number % len(lanes)
        for lane in (*lanes[first:], *lanes[:first]):
            console.print(f"round {number + 1} of {load.rounds}: {lane.name}", style="dim")
            own = {pid for pids in lane.processes.values() for pid in pids}
            roles = {**lane.processes, **ever_present}
            figures = await measure(lane, load, roles, everybody - own)
            measured[lane.name].add(figures)
    return measured


async def _check(lanes: Sequence[Lane], ground: Ground) -> dict[str, list[str]]:
    """What is wrong, by lane."""
    seen = seen_by_provider(await ground.works())
    wrong: dict[str, list[str]] = {}
    for lane in lanes:
        if lane.recorded is not None:
            found = faults(lane.calls, seen, lane.recorded())
            if found:
                wrong[lane.name] = found
    started = {call for lane in lanes for call in lane.calls}
    strange = [call for call in seen.works if call not in started]
    if strange:
        wrong["provider"] = [f"{len(strange)} works of calls nobody started: {strange[0]}"]
    return wrong


def _plot(figures: Path, plot: Path) -> None:
    """Drawn in an environment that has matplotlib."""
    run((str(python_of("plot")), "-m", "benchmarks.plot", str(figures), str(plot)), "the plot")
    console.print(f"Drawn to {plot}")


if __name__ == "__main__":
    exit_process(main())
