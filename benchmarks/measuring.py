"""Load, clocks, CPU seconds and memory."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

from .variants import Variant

SAMPLE_EVERY = 0.2
"""Seconds between two looks at the memory."""


@dataclass
class Figures:
    """What was measured of one variant, one entry a round.

    Attributes:
        throughput: calls a second with all of them in flight.
        p50, p99: milliseconds at low load.
        cpu: by process, CPU seconds per 1000 calls at saturation.
        peak_memory: by process, the largest resident set seen, MiB.
        events, actions: of one call.
    """

    throughput: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    peak_memory: dict[str, float] = field(default_factory=dict)
    events: int = 0
    actions: int = 0

    @property
    def cpu_total(self) -> float:
        """CPU seconds per 1000 calls, all processes together, median of the rounds."""
        return statistics.median(map(sum, zip(*self.cpu.values(), strict=True)))


async def saturate(
    variant: Variant, calls: int, in_flight: int, pids: Mapping[str, int], into: Figures
) -> None:
    """As many calls as there are, so many at once."""
    at_once = asyncio.Semaphore(in_flight)

    async def one() -> None:
        async with at_once:
            await variant.run()

    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: _cpu(process) for name, process in processes.items()}
    async with _watching_memory(processes, into.peak_memory):
        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(calls)))
        elapsed = time.perf_counter() - started
    into.throughput.append(calls / elapsed)
    for name, process in processes.items():
        used = (_cpu(process) - before[name]) / calls * 1000
        into.cpu.setdefault(name, []).append(used)


async def trickle(variant: Variant, calls: int, per_second: float, into: Figures) -> None:
    """One call after the other at a steady pace, whatever the others do (open loop)."""
    latencies: list[float] = []

    async def one(at: float) -> None:
        await asyncio.sleep(at)
        started = time.perf_counter()
        await variant.run()
        latencies.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(one(number / per_second) for number in range(calls)))
    percentiles = quantiles(latencies)
    into.p50.append(percentiles[49])
    into.p99.append(percentiles[98])


def quantiles(values: Sequence[float]) -> list[float]:
    """The 99 percentiles."""
    return statistics.quantiles(values, n=100, method="inclusive")


@asynccontextmanager
async def _watching_memory(
    processes: Mapping[str, psutil.Process], peaks: dict[str, float]
) -> AsyncIterator[None]:
    async def watch() -> None:
        while True:
            for name, process in processes.items():
                resident = process.memory_info().rss / 2**20
                peaks[name] = max(peaks.get(name, 0.0), resident)
            await asyncio.sleep(SAMPLE_EVERY)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
