"""The latency of a provider that is well, alone and beside one that has become slow."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ackbridge.contracts.calls import CallRequest, CallStatus, OutcomeStatus

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
"""
FAST, SLOW = "fast", "slow"
PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Load:
    """What is measured.

    Attributes:
        seconds: of each of the two measurements.
        rate: calls per second of the provider that is well.
        slow_rate: calls per second of the other one.
        delay: seconds that each of its answers takes.
    """

    seconds: float
    rate: float
    slow_rate: float
    delay: float


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


async def measure(folder: Path, load: Load) -> tuple[Latencies, Latencies, Latencies]:
    """Measure: alone, beside the slow provider, and the slow provider itself."""
    files = {name: FILE.replace("{name}", name) for name in (FAST, SLOW)}
    async with running(folder, files) as setting:
        url = f"{setting.url}/{SLOW}/delay"
        (await setting.http.put(url, json={"seconds": load.delay})).raise_for_status()
        await _call_for(setting, FAST, 2, load.rate)
        alone = await _call_for(setting, FAST, load.seconds, load.rate)
        # Until as many slow calls are in flight as there will be.
        ahead = load.delay + 2
        slow_for = load.seconds + ahead
        slowly = asyncio.create_task(_call_for(setting, SLOW, slow_for, load.slow_rate))
        await asyncio.sleep(ahead)
        beside = await _call_for(setting, FAST, load.seconds, load.rate)
        return alone, beside, await slowly


async def _call_for(setting: Setting, provider: str, seconds: float, rate: float) -> Latencies:
    """Start calls at a steady rate, whatever becomes of them, and await them all."""
    began, running_calls = time.perf_counter(), list[asyncio.Task[float]]()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(began + number / rate - time.perf_counter(), 0))
        running_calls.append(asyncio.create_task(_call(setting, provider)))
    return Latencies(tuple(sorted(await asyncio.gather(*running_calls))))


async def _call(setting: Setting, provider: str) -> float:
    began = time.perf_counter()
    request = CallRequest(provider=provider, operation="order", key=uuid.uuid4().hex)
    status: CallStatus = await setting.calls.start_and_wait(request, PATIENCE)
    took = time.perf_counter() - began
    if status.outcome is None or status.outcome.status is not OutcomeStatus.COMPLETED:
        raise RuntimeError(f"{request.call_id}: {status.stage}: {status.last_error}")
    return took
