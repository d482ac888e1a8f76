"""How many calls a relay starts: `python -m benchmarks.outbox`.

Rows of a real outbox, on SQLite and on PostgreSQL, are started on a real engine without workers: a
call is over for the relay once it exists. Beside it the same number of calls is started directly,
through the same client, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from temporalio.client import Client

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallRequest
from ackbridge.ledger.database.engines import parse_url
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.outbox import create, enqueue
from ackbridge.outbox.relay import BATCH, LOOPS, Relay
from ackbridge.outbox.rows import open_outbox
from ackbridge.temporal.connect import client_options
from tests.support.postgres import postgresql

DAY: Final = timedelta(days=1)


def new_request() -> CallRequest:
    payload = {"amount": 5, "currency": "EUR"}
    key = uuid.uuid4().hex
    return CallRequest(provider="sandbox", operation="create_order", key=key, payload=payload)


async def start_directly(calls: AckbridgeClient, number: int) -> float:
    """Calls per second, with as many in flight as a relay has."""
    slots = asyncio.Semaphore(BATCH * LOOPS)

    async def start() -> None:
        async with slots:
            await calls.start(new_request())

    began = time.perf_counter()
    await asyncio.gather(*(start() for _ in range(number)))
    return number / (time.perf_counter() - began)


def insert(shop: sa.Engine, number: int) -> float:
    """Transactions per second, each with one request, one after the other."""
    began = time.perf_counter()
    for _ in range(number):
        with shop.begin() as connection:
            enqueue(connection, new_request())
    return number / (time.perf_counter() - began)


async def relay(url: str, calls: AckbridgeClient, number: int) -> tuple[float, float]:
    """Rows per second of one relay, and the median milliseconds from a commit to its call."""
    store, stopping = open_outbox(url, utc_now), asyncio.Event()
    running = Relay(store, calls.start, keep=DAY)
    began = time.perf_counter()
    task = asyncio.create_task(running.run(stopping))
    while running.totals.started < number:  # noqa: ASYNC110 -- what is measured takes seconds
        await asyncio.sleep(0.01)
    rate = number / (time.perf_counter() - began)
    delay = await _median_delay(url, running)
    stopping.set()
    await task
    await store.database.close()
    return rate, delay


async def _median_delay(url: str, running: Relay, times: int = 50) -> float:
    shop, took = sa.create_engine(parse_url(url)), []
    for _ in range(times):
        before = running.totals.started
        insert(shop, 1)
        began = time.perf_counter()
        while running.totals.started == before:  # noqa: ASYNC110 -- it is measured by a clock
            await asyncio.sleep(0.001)
        took.append(time.perf_counter() - began)
    shop.dispose()
    return 1000 * statistics.median(took)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    with postgresql() as server:
        yield {"SQLite": f"sqlite:///{folder}/shop.db", "PostgreSQL": server.new_database()}


async def run(number: int, rounds: int) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        databases(Path(name)) as urls,
        EmbeddedEngine(Path(name) / "engine.db", headless=True) as engine,
    ):
        calls = AckbridgeClient(await Client.connect(engine.address, **client_options()))
        for url in urls.values():
            with sa.create_engine(parse_url(url)).begin() as connection:
                create(connection)
        await start_directly(calls, number)
        for _ in range(rounds):
            print(f"started directly: {await start_directly(calls, number):.0f} calls/s")
            for database, url in urls.items():
                inserted = insert(sa.create_engine(parse_url(url)), number)
                rate, delay = await relay(url, calls, number)
                print(
                    f"{database}: {inserted:.0f} transactions/s with a request, one at a time;"
                    f" relayed {rate:.0f}/s; {delay:.0f} ms from a commit to its call (median)"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(run(options.calls, options.rounds))
