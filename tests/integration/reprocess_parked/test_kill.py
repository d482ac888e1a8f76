"""`kill -9` of the worker in the middle of a batch."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.contracts.batches import BatchCounts, BatchRequest, ParkedSelection
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.local.processes import ManagedProcess
from tests.support.stage import Stage, edited_integrations, set_up, worker_process

from .test_batches import resumed_by

pytestmark = pytest.mark.slow

CALLS = 12
PATIENCE = timedelta(minutes=2)
EVERYTHING = ParkedSelection(provider="sandbox")


async def test_worker_killed_in_the_middle_of_a_batch(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Another worker continues: every call is resumed once, and completes."""

    def parking(operations: dict[str, Any]) -> None:
        operations["create_order"] |= {"on_failure": "park"}
        # A send that is lost with its worker is noticed, and has time for its second attempt.
        operations["create_order"]["receipt"] |= {"attempts": 2, "within": "1m"}

    integrations = edited_integrations(tmp_path, parking)
    async with set_up(quick_takeover_engine, tmp_path, integrations, has_worker=False) as stage:
        worker = worker_process(stage, integrations, tmp_path / "worker.log")
        worker.start()
        try:
            await _killed_on_the_way(stage, worker)
        finally:
            worker.stop(timedelta(seconds=1))


async def _killed_on_the_way(stage: Stage, worker: ManagedProcess) -> None:
    requests = [stage.request(receipt_failures=2) for _ in range(CALLS)]
    for request in requests:
        await stage.calls.start(request)
    while len(await stage.ledger.batches.parked(EVERYTHING)) < CALLS:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.1)
    wanted = BatchRequest(selection=EVERYTHING, rate=4, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    while len(await stage.ledger.batches.parked(EVERYTHING)) > CALLS - 4:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.02)
    worker.send(signal.SIGKILL)
    worker.wait()
    worker.start()
    done = await batch.result()
    assert done.counts == BatchCounts(selected=CALLS, signalled=CALLS, completed=CALLS)
    outcomes = [await stage.calls.call(one.call_id).outcome(PATIENCE) for one in requests]
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.COMPLETED}
    assert [len(await resumed_by(stage, request)) for request in requests] == [1] * CALLS
    assert await stage.ledger.batches.parked(EVERYTHING) == []
