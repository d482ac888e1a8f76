"""`make batch-scale`: one batch of very many parked calls, measured."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import sqlalchemy as sa
from rich.progress import Progress
from temporalio.client import Client

from ackbridge.client.batches import start_batch
from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection
from ackbridge.contracts.calls import Stage
from ackbridge.ledger.batches import ParkedState
from ackbridge.ledger.database.engines import parse_url
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.database.tables import calls, parked
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.processes import ManagedProcess
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import exit_process

from .simulated_calls import STAND_IN

PROVIDER, OPERATION = "sandbox", "create_booking"
AT_ONCE = 40
"""Stand-ins that are started at once."""
WAITING = 4
"""Events of one that has come to wait."""
CHUNK = 1000
MIB = 1024 * 1024


@dataclass
class Peaks:
    """The largest resident sizes that were seen, in bytes, by process."""

    engine: int = 0
    worker: int = 0
    before: dict[str, int] = field(default_factory=dict)


def main() -> int:
    """Measure. Exit 1 when a call was told twice, or not at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_scale", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="parked calls")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls per second at the most")
    parser.add_argument("--concurrency", type=int, default=200, help="calls under way at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), options.calls, options.rate, options.concurrency)


def _measure(folder: Path, count: int, rate: float, concurrency: int) -> int:
    url = f"sqlite:///{folder}/ledger.db"
    migrate(url)
    with EmbeddedEngine(folder / "engine.db", headless=True) as engine:
        environ = {
            **os.environ,
            **engine.environment,
            "ACKBRIDGE_LEDGER_URL": url,
            "SANDBOX_API_KEY": "-",
            "STRIPE_API_KEY": "-",
        }
        serving = ManagedProcess(
            [sys.executable, "-m", "benchmarks.batch_scale.worker"],
            environ=environ,
            log=folder / "worker.log",
            folder=Path.cwd(),
        )
        serving.start()
        try:
            return asyncio.run(_run(engine, serving, url, count, rate, concurrency))
        finally:
            serving.stop(timedelta(seconds=5))


async def _run(
    engine: EmbeddedEngine,
    serving: ManagedProcess,
    url: str,
    count: int,
    rate: float,
    concurrency: int,
) -> int:
    client = await connect(engine.environment)
    _write_rows(url, count)
    took = await _start_stand_ins(client, count)
    print(f"{count} stand-ins started in {took:.0f} s")
    peaks = Peaks()
    peaks.before = {"engine": _size(engine.child.pid), "worker": _size(serving.pid)}
    request = BatchRequest(
        selection=ParkedSelection(provider=PROVIDER),
        rate=rate,
        concurrency=concurrency,
        by="batch-scale",
    )
    began = time.perf_counter()
    batch = await start_batch(client, request)
    watching = asyncio.create_task(_watch(engine, serving, peaks))
    done = await batch.result()
    took = time.perf_counter() - began
    watching.cancel()
    runs = [
        (await client.get_workflow_handle(batch.id, run_id=run.run_id).describe()).history_length
        async for run in client.list_workflows(f"WorkflowId = '{batch.id}'")
    ]
    _report(done, took, runs, peaks, engine)
    return 0 if done.counts.completed == count == done.counts.signalled else 1


def _report(
    done: BatchProgress, took: float, runs: list[int], peaks: Peaks, engine: EmbeddedEngine
) -> None:
    counts = done.counts
    print(f"{counts.completed} of {done.total} calls completed, {counts.skipped} skipped")
    print(f"{took:.0f} s, {counts.completed / took:.0f} calls per second")
    print(
        f"{len(runs)} runs of the batch, histories of {sum(runs)} events, the largest {max(runs)}"
    )
    for name, peak in (("worker", peaks.worker), ("engine", peaks.engine)):
        before = peaks.before[name] / MIB
        print(f"{name}: {before:.0f} MiB before the batch, {peak / MIB:.0f} MiB at the most")
    print(f"engine's file: {engine.state.stat().st_size / MIB:.0f} MiB")


def _write_rows(url: str, count: int) -> None:
    """The rows that calls write when they are parked, in the order of their numbers."""
    began = datetime.now(UTC) - timedelta(hours=3)
    database = sa.create_engine(parse_url(url))
    for numbers in _chunks(count):
        known = [
            {"call_id": _call_id(n), "provider": PROVIDER, "operation": OPERATION} for n in numbers
        ]
        with database.begin() as connection:
            claimed = {"request_digest": "-", "run_chain": "-", "stage": Stage.PARKED}
            times = {"claimed_at": began, "updated_at": began}
            connection.execute(calls.insert(), [row | claimed | times for row in known])
            waits = {"reason": "no_receipt", "times": 1, "state": ParkedState.WAITING}
            connection.execute(
                parked.insert(),
                [
                    row | waits | {"key": _key(n), "parked_at": began + timedelta(milliseconds=n)}
                    for n, row in zip(numbers, known, strict=True)
                ],
            )
    database.dispose()


async def _start_stand_ins(client: Client, count: int) -> float:
    began = time.perf_counter()
    with Progress() as bars:
        bar = bars.add_task("stand-ins", total=count)
        numbers = iter(range(count))

        async def start_some() -> None:
            for number in numbers:
                await client.start_workflow(
                    STAND_IN,
                    id=_call_id(number),
                    task_queue=names.TASK_QUEUE,
                )
                bars.advance(bar)

        await asyncio.gather(*(start_some() for _ in range(AT_ONCE)))
    # The batch shall not wait behind their first workflow tasks.
    last = client.get_workflow_handle(_call_id(count - 1))
    while (await last.describe()).history_length < WAITING:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(1)
    return time.perf_counter() - began


async def _watch(engine: EmbeddedEngine, serving: ManagedProcess, peaks: Peaks) -> None:
    while True:
        peaks.engine = max(peaks.engine, _size(engine.child.pid))
        peaks.worker = max(peaks.worker, _size(serving.pid))
        await asyncio.sleep(0.5)


def _size(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _chunks(count: int) -> Iterator[range]:
    for first in range(0, count, CHUNK):
        yield range(first, min(first + CHUNK, count))


def _key(number: int) -> str:
    return f"scale-{number:07}"


def _call_id(number: int) -> str:
    return names.call_id(PROVIDER, OPERATION, _key(number))


if __name__ == "__main__":
    exit_process(main())
