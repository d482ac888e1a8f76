"""The latency of a provider that is well: alone, and beside others that are quick, slow or hang."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil

from ackbridge.contracts.calls import CallRequest, CallStatus, OutcomeStatus
from benchmarks.processes import cpu_seconds

from .setting import Setting, running

FILE = """
provider: {name}
base_url: {url}/{name}
breaker: null
operations:
  order:
    request: {path: /orders, body: payload}
    receipt: {timeout: 5s, reference: id}
    response: {mode: sync}
  report:
    request: {path: /orders, body: payload}
    receipt: {timeout: 60s, reference: id}
    response: {mode: sync, deadline: {initial: 2m, ceiling: 2m}}
"""
WELL, OTHER = "well", "other"
ORDER, REPORT = "order", "report"
MACHINE = "machine"
WARM_UP = 5.0
"""Seconds."""
PATIENCE = timedelta(seconds=120)


@dataclass(frozen=True)
class Neighbour:
    """How the other provider behaves.

    Attributes:
        rate: calls per second that are started for it.
        delay: seconds that each of its answers takes.
    """

    name: str
    rate: float
    delay: float

    @property
    def operation(self) -> str:
        """The one whose timeout is longer than the delay."""
        return ORDER if self.delay < 5 else REPORT

    def __str__(self) -> str:
        return f"beside {self.name} one, {self.rate:g} calls/s, answers in {self.delay:g} s"


@dataclass(frozen=True)
class Latencies:
    """Seconds from the start of a call to its outcome, sorted."""

    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The latency that this share of the calls does not exceed."""
        return self.seconds[min(int(len(self.seconds) * share), len(self.seconds) - 1)]

    def __str__(self) -> str:
        shown = (f"p{share * 100:g} {self.quantile(share):.3f} s" for share in (0.5, 0.95, 0.99))
        return f"{', '.join(shown)} ({len(self.seconds)} calls)"


@dataclass
class MachineUse:
    """Who used the machine, as shares of all its cores."""

    shares: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = (f"{name} {share:.0%}" for name, share in self.shares.items())
        return f"{sum(self.shares.values()):.0%} of the machine: {', '.join(parts)}"


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        well: the latencies of the provider that is well.
        use: of the machine meanwhile.
        other: the latencies of the other provider, if there was one.
        in_flight: how many requests the other one had at once, at most.
    """

    name: str
    well: Latencies
    use: MachineUse
    other: Latencies | None = None
    in_flight: int = 0


async def measure(
    folder: Path, seconds: float, rate: float, neighbours: Sequence[Neighbour]
) -> list[Measured]:
    """Measure alone, then beside each neighbour.

    Args:
        seconds: of each measurement.
        rate: calls per second of the provider that is well.
    """
    files = {name: FILE.replace("{name}", name) for name in (WELL, OTHER)}
    async with running(folder, files) as setting:
        await _call_for(setting, WELL, ORDER, WARM_UP, rate)
        with _using(setting) as use:
            alone = await _call_for(setting, WELL, ORDER, seconds, rate)
        found = [Measured("alone", alone, use)]
        found += [await _beside(setting, neighbour, seconds, rate) for neighbour in neighbours]
        return found


async def _beside(setting: Setting, neighbour: Neighbour, seconds: float, rate: float) -> Measured:
    url = f"{setting.url}/{OTHER}/delay"
    (await setting.http.put(url, json={"seconds": neighbour.delay})).raise_for_status()
    # Until as many of its calls are in flight as there will be.
    ahead = neighbour.delay + 2
    other = asyncio.create_task(
        _call_for(setting, OTHER, neighbour.operation, seconds + ahead, neighbour.rate)
    )
    await asyncio.sleep(ahead)
    with _using(setting) as use:
        well = await _call_for(setting, WELL, ORDER, seconds, rate)
    async with setting.http.get(f"{setting.url}/{OTHER}/in-flight") as reply:
        in_flight = (await reply.json())["most"]
    return Measured(str(neighbour), well, use, await other, in_flight)


@contextmanager
def _using(setting: Setting) -> Iterator[MachineUse]:
    """Note who uses the machine during the block; it is complete after it."""
    before, began = _seconds_by_process(setting), time.monotonic()
    use = MachineUse()
    yield use
    cores = (time.monotonic() - began) * (os.cpu_count() or 1)
    spent = {name: now - before[name] for name, now in _seconds_by_process(setting).items()}
    busy = spent.pop(MACHINE)
    spent["others"] = max(busy - sum(spent.values()), 0)
    use.shares = {name: seconds / cores for name, seconds in spent.items()}


def _seconds_by_process(setting: Setting) -> dict[str, float]:
    """CPU seconds so far, by process, and of the whole machine."""
    machine = psutil.cpu_times()
    return {
        "engine": cpu_seconds([setting.engine.child.pid]),
        "worker": cpu_seconds([setting.worker.pid]),
        "providers": cpu_seconds([setting.providers.pid]),
        "load": cpu_seconds([os.getpid()]),
        MACHINE: machine.user + machine.system,
    }


async def _call_for(
    setting: Setting, provider: str, operation: str, seconds: float, rate: float
) -> Latencies:
    """Start calls at a steady rate, whatever becomes of them, and await them all."""
    began, running_calls = time.perf_counter(), list[asyncio.Task[float]]()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(began + number / rate - time.perf_counter(), 0))
        running_calls.append(asyncio.create_task(_call(setting, provider, operation)))
    return Latencies(tuple(sorted(await asyncio.gather(*running_calls))))


async def _call(setting: Setting, provider: str, operation: str) -> float:
    began = time.perf_counter()
    request = CallRequest(provider=provider, operation=operation, key=uuid.uuid4().hex)
    status: CallStatus = await setting.calls.start_and_wait(request, PATIENCE)
    took = time.perf_counter() - began
    if status.outcome is None or status.outcome.status is not OutcomeStatus.COMPLETED:
        raise RuntimeError(f"{request.call_id}: {status.stage}: {status.last_error}")
    return took
