"""What `limits.concurrent_total` costs: `python -m benchmarks.leases`.

Tasks of one process play the sends of a fleet: they take a lease from a real ledger, hold it, and
release it; who gets none comes back when the ledger says. There is no engine: what is measured is
the ledger, and how well the leases are used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from ackbridge.clock import utc_now
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.leases import LeaseRequest
from ackbridge.ledger.ledger import Ledger

SLOTS = 100
"""Sends that ask for a lease at the same time: as many as a worker has slots."""

DISPATCH = 0.005
"""Seconds from the end of a wait to its next look-up: the engine's queue, about."""


@dataclass
class Fleet:
    """Sends of one provider, of which `total` may be in flight, for `held` seconds each."""

    ledger: Ledger
    total: int
    held: float
    asked: int = 0
    sent: int = 0
    took: list[float] = field(default_factory=list)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))

    async def send(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 -- a simulation
        request = LeaseRequest(
            provider="acme",
            holder=f"call-{number}",
            call_id=f"acme.order.{number}",
            tenant="",
            total=self.total,
            per_tenant=None,
            waits_since=utc_now(),
            period=timedelta(minutes=1),
        )
        while True:
            async with self.slots:
                began = time.perf_counter()
                result = await self.ledger.leases.acquire(request)
                self.took.append(time.perf_counter() - began)
            self.asked += 1
            if result.is_granted:
                break
            again_after = result.retry_after.total_seconds() * (1 + chance.random() / 10)
            await asyncio.sleep(again_after + DISPATCH)
        await asyncio.sleep(self.held * chance.uniform(0.5, 1.5))
        began = time.perf_counter()
        await self.ledger.leases.release("acme", request.holder)
        self.took.append(time.perf_counter() - began)
        self.sent += 1


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[Ledger]:
    """A migrated ledger: an SQLite file, or the PostgreSQL database of the URL."""
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"sqlite:///{folder}/ledger.db"
        await asyncio.to_thread(migrate, url)
        ledger = Ledger.open(url, utc_now)
        yield ledger
        await ledger.close()


async def alone(ledger: Ledger, times: int) -> float:
    """The median seconds to take and release a lease that is free."""
    fleet = Fleet(ledger, total=1, held=0)
    took = []
    for number in range(times):
        began = time.perf_counter()
        await fleet.send(number)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def crowded(ledger: Ledger, total: int, held: float, waiting: int) -> None:
    """Print how well leases are used while many wait."""
    fleet = Fleet(ledger, total, held)
    began = time.perf_counter()
    await asyncio.gather(*(fleet.send(number) for number in range(waiting)))
    took = time.perf_counter() - began
    ideal = waiting * held / total
    print(
        f"{total:>8}{held:>8g} s{waiting:>9}{took:>9.1f} s{ideal / took:>8.0%}"
        f"{fleet.asked / fleet.sent:>13.1f}{1000 * statistics.median(fleet.took):>14.1f} ms"
    )


async def run(url: str | None) -> None:
    async with opened(url) as ledger:
        name = "PostgreSQL" if url else "SQLite"
        print(f"{name}: a lease, taken and released: {1000 * await alone(ledger, 300):.2f} ms")
        head = ("leases", "held", "requests", "took", "used", "asked each", "a transaction")
        widths = (8, 10, 9, 11, 8, 13, 17)
        print("".join(f"{one:>{width}}" for one, width in zip(head, widths, strict=True)))
        for total, held, waiting in ((3, 1.0, 60), (10, 1.0, 200), (10, 0.2, 500), (50, 2.0, 500)):
            await crowded(ledger, total, held, waiting)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.leases", description=__doc__)
    parser.add_argument("--ledger", help="an empty PostgreSQL database; default: an SQLite file")
    options = parser.parse_args()
    asyncio.run(run(options.ledger or os.environ.get("BENCHMARK_LEDGER_URL")))


if __name__ == "__main__":
    main()
