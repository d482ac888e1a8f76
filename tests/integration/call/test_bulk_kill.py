"""`kill -9` of the worker again and again while it hosts calls."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ackbridge.client.bulk import BulkOutcome
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.stage import INTEGRATIONS, set_up, until_ready, worker_process

pytestmark = [pytest.mark.slow, pytest.mark.extended]

CALLS = 120
KILLS = 3


async def test_workers_are_killed_while_they_host_calls(
    quick_takeover_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Every call completes, is done once by the provider, and is acknowledged once."""
    async with set_up(quick_takeover_engine, tmp_path, has_worker=False) as stage:
        requests = [stage.request(delay_ms=100 + 20 * number) for number in range(CALLS)]
        worker = worker_process(stage, INTEGRATIONS, tmp_path / "worker-0.log")
        worker.start()
        await until_ready(worker)
        ending = asyncio.create_task(_outcomes(stage.calls.call_many(requests, in_flight=40)))
        try:
            for number in range(1, KILLS + 1):
                await asyncio.sleep(1)
                worker.kill(signal.SIGKILL)
                worker = worker_process(stage, INTEGRATIONS, tmp_path / f"worker-{number}.log")
                worker.start()
                await until_ready(worker)
            ended = await ending
        finally:
            ending.cancel()
            worker.kill(signal.SIGKILL)

        assert ended == {request.call_id: OutcomeStatus.COMPLETED for request in requests}
        for request in requests:
            assert await stage.effects(request.call_id) == 1
            assert len(await stage.ledger.calls.responses(request.call_id)) == 1
            assert set(await stage.acknowledged(request.call_id)) == {"success"}


async def _outcomes(ends: AsyncIterator[BulkOutcome]) -> dict[str, OutcomeStatus | None]:
    return {one.request.call_id: one.outcome.status if one.outcome else None async for one in ends}
