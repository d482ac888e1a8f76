"""Calls that one worker polls: whether each is asked as often as its operation says."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ackbridge.contracts.calls import CallRequest

from .setting import Setting, running

FILE = """
provider: polled
base_url: {url}
breaker: null
operations:
  job:
    request: {path: /jobs, body: payload}
    receipt: {timeout: 5s, reference: id}
    response:
      mode: poll
      poll: {every: EVERYs}
      deadline: {initial: 12h, ceiling: 12h}
      status: {path: "/jobs/{reference}", success: body.state == 'done'}
"""
STARTING = 20
"""Calls that are started at once."""
JITTER = 0.1
"""The share of the interval by which a question may come later, on purpose."""


@dataclass(frozen=True)
class Polled:
    """What the provider has seen.

    Attributes:
        calls: how many there were, and `asked` how many of them were ever asked for.
        pauses: seconds between two questions about the same call, sorted.
        cpu: the share of a core that the worker used while it only polled.
        bytes: the worker's resident size at the end.
    """

    calls: int
    asked: int
    pauses: tuple[float, ...]
    cpu: float
    bytes: int

    def late(self, every: float, tolerance: float) -> int:
        """How many questions came later than the interval, its jitter and the tolerance say."""
        return sum(pause > every * (1 + JITTER) + tolerance for pause in self.pauses)


async def measure(folder: Path, calls: int, every: float, rounds: int) -> Polled:
    """Start the calls, and watch the provider for a number of intervals."""
    text = FILE.replace("EVERY", f"{every:g}")
    async with running(folder, {"polled": text}) as setting:
        began = time.monotonic()
        numbers = iter(range(calls))
        await asyncio.gather(*(_start(setting, numbers) for _ in range(STARTING)))
        await _until_known(setting, calls)
        print(f"{calls} calls started in {time.monotonic() - began:.0f} s", flush=True)
        process = psutil.Process(setting.worker.pid)
        process.cpu_percent()
        await asyncio.sleep(every * (1 + JITTER) * rounds)
        cpu = process.cpu_percent() / 100
        times = await _asked(setting)
        pauses = sorted(b - a for one in times for a, b in itertools.pairwise(one))
        asked = sum(len(one) > 1 for one in times)
        return Polled(calls, asked, tuple(pauses), cpu, process.memory_info().rss)


async def _start(setting: Setting, numbers: Iterator[int]) -> None:
    for number in numbers:
        await setting.calls.start(
            CallRequest(provider="polled", operation="job", key=f"poll-{number:06}")
        )


async def _until_known(setting: Setting, calls: int) -> None:
    while len(await _asked(setting)) < calls:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.5)


async def _asked(setting: Setting) -> list[list[float]]:
    async with setting.http.get(f"{setting.url}/asked") as reply:
        reply.raise_for_status()
        found: list[list[float]] = await reply.json()
        return found
