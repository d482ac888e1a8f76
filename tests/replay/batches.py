"""What golden histories of batches, and of the clean-up, are captured from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from ackbridge.client.batches import BatchHandle
from ackbridge.client.purge import start_purge
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchProgress, BatchRequest, BatchState, ParkedSelection
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.purge import PurgeRequest
from tests.support.stage import Stage

from .playing import Run


async def batch_completed(stage: Stage) -> Run:
    """Three bookings are taken up again, after its time has come."""
    requests = await asyncio.gather(*(_parked(stage) for _ in range(3)))
    soon = utc_now() + timedelta(seconds=2)
    wanted = BatchRequest(selection=_these(requests), rate=50, not_before=soon, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    await batch.result()
    return await _run_of(stage, batch)


async def batch_steered(stage: Stage) -> Run:
    """Paused, resumed after an order that did not validate, and stopped."""
    requests = await asyncio.gather(*(_parked(stage) for _ in range(3)))
    wanted = BatchRequest(selection=_these(requests), rate=0.2, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    await _until(batch, lambda seen: seen.state is BatchState.RUNNING)
    await batch.pause(by="ann", reason="the provider is slow")
    await _until(batch, lambda seen: seen.state is BatchState.PAUSED)
    await stage.client.get_workflow_handle(batch.id).signal(names.RESUME, {"by": "ann"})
    await batch.resume(by="ann", reason="better now")
    await _until(batch, lambda seen: seen.state is BatchState.RUNNING)
    await batch.stop(by="bo", reason="enough")
    await batch.result()
    return await _run_of(stage, batch)


async def purge_completed(stage: Stage) -> Run:
    """A clean-up of a ledger in which nothing is old."""
    purge = await start_purge(stage.client, PurgeRequest(by="ops"))
    await purge.result()
    return Run(purge.id, (await stage.client.get_workflow_handle(purge.id).describe()).run_id)


async def _parked(stage: Stage) -> CallRequest:
    payload = {"room": "attic", "nights": 2, "behaviour": {"receipt_failures": 5}}
    request = stage.request().model_copy(update={"operation": "create_booking", "payload": payload})
    await stage.calls.start(request)
    await stage.until(request, CallStage.PARKED)
    while not await stage.ledger.batches.parked(_these([request])):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    return request


def _these(requests: Sequence[CallRequest]) -> ParkedSelection:
    return ParkedSelection(provider="sandbox", keys=tuple(one.key for one in requests))


async def _until(batch: BatchHandle, holds: Callable[[BatchProgress], bool]) -> None:
    while not holds(await batch.progress()):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


async def _run_of(stage: Stage, batch: BatchHandle) -> Run:
    described = await stage.client.get_workflow_handle(batch.id).describe()
    return Run(batch.id, described.run_id)


BATCHES = [batch_completed, batch_steered, purge_completed]
