"""`make bench`: ours, the floor and the textbook, interleaved on one engine, as ratios."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ackbridge.child import Child
from ackbridge.cli.stack import Stack
from ackbridge.engine import connect
from ackbridge.loopback import LoopbackPort

from .measuring import Figures, saturate, trickle
from .variants import cost_in_history, variants

SANDBOX = ("--rates", '{"duplicate": 0.1, "most": 1, "delay_ms": 20}')
PARTS = ("engine", "sandbox", "worker", "gateway")
READY = "textbook ready"
STARTS_WITHIN = 30.0

console = Console(highlight=False)


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=300, help="at saturation, each round")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--trickle", type=int, default=60, help="calls at low load, each round")
    parser.add_argument("--per-second", type=float, default=10)
    parser.add_argument("--json", type=Path, default=Path(".ackbridge/bench.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environ=os.environ, sandbox_options=SANDBOX, parts=PARTS)
        with stack, _textbook(stack, Path(folder)) as textbook:
            measured = asyncio.run(_measure(stack, textbook, options))
    _print(measured, options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(_document(measured, options), indent=2))
    console.print(f"\nWritten to {options.json}")


async def _measure(
    stack: Stack, textbook: Child, options: argparse.Namespace
) -> dict[str, Figures]:
    client = await connect(stack.environment)
    pids = {part: stack.pid(part) for part in PARTS}
    pids |= {"textbook's worker": textbook.pid, "load": os.getpid()}
    figures: dict[str, Figures] = {}
    for number in range(options.rounds):
        for variant in variants(client):
            console.print(f"round {number + 1} of {options.rounds}: {variant.name}", style="dim")
            into = figures.setdefault(variant.name, Figures())
            await variant.run()
            await saturate(variant, options.calls, options.in_flight, pids, into)
            await trickle(variant, options.trickle, options.per_second, into)
            handle = client.get_workflow_handle(await variant.run())
            into.events, into.actions = await cost_in_history(handle)
    return figures


@contextmanager
def _textbook(stack: Stack, folder: Path) -> Iterator[Child]:
    port = LoopbackPort()
    child = Child(
        [
            *(sys.executable, "-m", "benchmarks.textbook"),
            *("--engine", stack.addresses.engine, "--provider", stack.addresses.sandbox),
            *("--api-key", stack.environment["SANDBOX_API_KEY"]),
            *("--database", str(folder / "textbook.db"), "--port", str(port.number)),
        ],
        environ=stack.environment,
        log=folder / "textbook.log",
        folder=Path(__file__).resolve().parents[1],
    )
    child.start()
    deadline = time.monotonic() + STARTS_WITHIN
    try:
        while READY not in child.output():
            if not child.is_running or time.monotonic() > deadline:
                raise SystemExit(f"the textbook's worker did not start:\n{child.tail()}")
            time.sleep(0.05)
        yield child
    finally:
        child.stop(timedelta(seconds=5))


def _print(measured: Mapping[str, Figures], options: argparse.Namespace) -> None:
    table = Table(title="\nMedians of the rounds", title_justify="left", box=None)
    for column in ("", "calls/s", "p50 ms", "p99 ms", "CPU s/1000", "events", "actions"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figures in measured.items():
        table.add_row(name, *(f"{value:.4g}" for value in _medians(figures).values()))
    ours = _medians(measured["ours"])
    for other in ("floor", "textbook"):
        theirs = _medians(measured[other])
        table.add_row(f"ours / {other}", *(f"{ours[name] / theirs[name]:.2f}" for name in ours))
    console.print(table)
    console.print(
        f"\nSaturation: {options.calls} calls, {options.in_flight} in flight. p50 and p99 at"
        f" {options.per_second:g} calls/s. The provider answers after 20 ms, 10 % duplicates."
    )
    split = Table(title="\nCPU s/1000 calls and peak MiB, by process", box=None)
    split.title_justify = "left"
    processes = list(measured["ours"].cpu)
    for column in ("", *processes):
        split.add_column(column, justify="left" if not column else "right")
    for name, figures in measured.items():
        cells = (
            f"{statistics.median(figures.cpu[p]):.1f} / {figures.peak_memory[p]:.0f}"
            for p in processes
        )
        split.add_row(name, *cells)
    console.print(split)


def _medians(figures: Figures) -> dict[str, float]:
    return {
        "throughput": statistics.median(figures.throughput),
        "p50": statistics.median(figures.p50),
        "p99": statistics.median(figures.p99),
        "cpu": figures.cpu_total,
        "events": figures.events,
        "actions": figures.actions,
    }


def _document(measured: Mapping[str, Figures], options: argparse.Namespace) -> dict[str, object]:
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "options": {k: v for k, v in vars(options).items() if k != "json"},
        "variants": {name: dataclasses.asdict(figures) for name, figures in measured.items()},
        "medians": {name: _medians(figures) for name, figures in measured.items()},
    }


if __name__ == "__main__":
    main()
