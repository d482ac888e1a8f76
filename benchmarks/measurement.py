"""Load, clocks, CPU seconds and memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .history import cost_in_history, cost_in_hosts
from .lanes import Lane
from .processes import cpu_seconds, memory


@dataclass(frozen=True)
class Load:
    """The load on each lane in each round.

    Attributes:
        rounds: how many of them.
        warm_up: calls before anything is measured.
        calls, in_flight: at saturation, all of them, and so many at once.
        trickle, per_second: at low load, all of them, and so many a second.
    """

    rounds: int
    warm_up: int
    calls: int
    in_flight: int
    trickle: int
    per_second: float


@dataclass
class Figures:
    """The measurements of one lane, one entry per round.

    Attributes:
        throughput: calls a second with all of them in flight.
        p50, p99: milliseconds at low load.
        cpu: by role, CPU seconds per 1000 calls at saturation.
        memory: by role, MiB after saturation.
        bystanders: what processes of other lanes used at saturation, in percent of one core.
        events, actions: of one call.
    """

    throughput: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    bystanders: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    actions: list[float] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add the measurements of another round."""
        self.throughput += other.throughput
        self.p50 += other.p50
        self.p99 += other.p99
        self.bystanders += other.bystanders
        self.events += other.events
        self.actions += other.actions
        for role, used in other.cpu.items():
            self.cpu.setdefault(role, []).extend(used)
        for role, held in other.memory.items():
            self.memory.setdefault(role, []).extend(held)


async def measure(
    lane: Lane, load: Load, roles: Mapping[str, Sequence[int]], bystanders: Collection[int]
) -> Figures:
    """One round of one lane.

    Args:
        roles: the processes whose CPU time and memory are noted.
        bystanders: those of other lanes, which should be idle.
    """
    figures = Figures()
    if not lane.history_only:
        await saturate(lane, load.warm_up, load.in_flight)
        before = {role: cpu_seconds(pids) for role, pids in roles.items()}
        idle_before = cpu_seconds(bystanders)
        began = datetime.now(UTC)
        elapsed = await saturate(lane, load.calls, load.in_flight)
        figures.throughput.append(load.calls / elapsed)
        figures.bystanders.append((cpu_seconds(bystanders) - idle_before) / elapsed * 100)
        for role, pids in roles.items():
            figures.cpu[role] = [(cpu_seconds(pids) - before[role]) / load.calls * 1000]
            figures.memory[role] = [memory(pids)]
        if lane.engine is not None and lane.host_type is not None:
            events, actions, _ = await cost_in_hosts(lane.engine, lane.host_type, began)
            figures.events.append(events / load.calls)
            figures.actions.append(actions / load.calls)
        percentiles = quantiles(await trickle(lane, load.trickle, load.per_second))
        figures.p50.append(percentiles[49])
        figures.p99.append(percentiles[98])
    if lane.engine is not None and lane.host_type is None:
        events, actions = await cost_in_history(lane.engine.get_workflow_handle(await lane.once()))
        figures.events.append(events)
        figures.actions.append(actions)
    return figures


def quantiles(values: Sequence[float]) -> list[float]:
    """The 99 percentiles."""
    return statistics.quantiles(values, n=100, method="inclusive")


async def saturate(lane: Lane, calls: int, in_flight: int) -> float:
    """Seconds for a number of calls with a fixed number in flight (closed loop)."""
    at_once = asyncio.Semaphore(in_flight)

    async def one() -> None:
        async with at_once:
            await lane.once()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as all_of_them:
        for _ in range(calls):
            all_of_them.create_task(one())
    return time.perf_counter() - started


async def trickle(lane: Lane, calls: int, per_second: float) -> list[float]:
    """Milliseconds of each call at a steady rate (open loop)."""
    latencies: list[float] = []

    async def one(at: float) -> None:
        await asyncio.sleep(at)
        started = time.perf_counter()
        await lane.once()
        latencies.append((time.perf_counter() - started) * 1000)

    async with asyncio.TaskGroup() as all_of_them:
        for number in range(calls):
            all_of_them.create_task(one(number / per_second))
    return latencies
