"""`python -m benchmarks.isolation`: providers that share one worker, and calls that it polls."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from ackbridge.workarounds.temporal_sdk import exit_process

from . import neighbour, polls
from .neighbour import Neighbour

MOST = 1.5
"""How much longer the 99th percentile may be beside a slow provider."""
TOLERANCE = 5.0
"""Seconds by which a question may be late."""


def main() -> int:
    """Measure. Exit 1 if a neighbour is disturbed, or a call is not asked for in time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="of each measurement")
    parser.add_argument(
        "--rate", type=float, default=5, help="calls/s of the provider that is well"
    )
    parser.add_argument("--slow-rate", type=float, default=23, help="calls/s of the slow one")
    parser.add_argument("--delay", type=float, default=4.8, help="seconds of its answers")
    parser.add_argument("--hanging-rate", type=float, default=4, help="calls/s of the hanging one")
    parser.add_argument("--hanging-delay", type=float, default=30, help="seconds of its answers")
    parser.add_argument("--calls", type=int, default=10_000, help="calls that are polled")
    parser.add_argument("--every", type=float, default=120, help="seconds between two questions")
    parser.add_argument("--rounds", type=int, default=3, help="intervals that are watched")
    parser.add_argument("--only", choices=["neighbour", "polls"], help="one of the two")
    options = parser.parse_args()
    is_well = True
    if options.only != "polls":
        is_well &= _neighbour(options.seconds, options.rate, _neighbours(options))
    if options.only != "neighbour":
        is_well &= _polls(options.calls, options.every, options.rounds)
    return 0 if is_well else 1


def _neighbours(options: argparse.Namespace) -> tuple[Neighbour, Neighbour, Neighbour]:
    """One that only works as much, one that is slow, and one that uses up its share of slots."""
    return (
        Neighbour("a quick", options.slow_rate, 0),
        Neighbour("a slow", options.slow_rate, options.delay),
        Neighbour("a hanging", options.hanging_rate, options.hanging_delay),
    )


def _neighbour(
    seconds: float, rate: float, neighbours: tuple[Neighbour, Neighbour, Neighbour]
) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(neighbour.measure(Path(folder), seconds, rate, neighbours))
    for one in found:
        print(f"{rate:g} calls/s {one.name}: {one.well}")
        print(f"  {one.use}")
        if one.other is not None:
            print(f"  the other one: {one.other}; at most {one.in_flight} requests in flight")
    alone, quick, slow, hanging = (one.well.quantile(0.99) for one in found)
    print(f"p99 beside the quick one / alone: {quick / alone:.2f}: what its load costs")
    print(f"p99 beside the slow one / beside the quick one: {slow / quick:.2f}: its slowness")
    print(f"p99 beside the slow one / alone: {slow / alone:.2f}, at most {MOST:g}")
    print(f"p99 beside the hanging one / alone: {hanging / alone:.2f}, at most {MOST:g}")
    return max(slow, hanging) <= MOST * alone


def _polls(calls: int, every: float, rounds: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(polls.measure(Path(folder), calls, every, rounds))
    late = found.late(every, TOLERANCE)
    print(f"{found.calls} calls polled every {every:g} s: {found.asked} asked for")
    if found.pauses:
        middle, longest = found.pauses[len(found.pauses) // 2], found.pauses[-1]
        print(f"{len(found.pauses)} pauses: median {middle:.1f} s, longest {longest:.1f} s")
    print(f"later than {every * (1 + polls.JITTER) + TOLERANCE:g} s: {late}")
    print(f"the worker: {found.cpu:.0%} of a core, {found.bytes / 1024**2:.0f} MiB")
    return late == 0 and found.asked == found.calls


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a stream
    exit_process(main())
