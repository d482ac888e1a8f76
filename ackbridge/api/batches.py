"""Batches, which reprocess parked calls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Annotated, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from ackbridge.client.batches import BatchHandle, start_batch
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH, MAX_REASON_LENGTH, Name
from ackbridge.contracts.wire import StrictModel, Wire

from .access import By, Parts, Requester
from .calls import ReasonBody
from .http import IdempotencyKey, StrictRoute, answer
from .problems import NOT_FOUND, ProblemError, documented

router = APIRouter(tags=["batches"], route_class=StrictRoute)

_BATCH_ID = re.compile(r"batch\.(?P<provider>[a-z0-9_-]+):.+")
_UNKNOWN: Final = documented(NOT_FOUND)


class BatchBody(StrictModel):
    """A batch to start. See `BatchRequest`.

    Attributes:
        rate: calls per second.
        concurrency: the maximum number of calls in progress at once.
        ramp: how the rate increases at the start, and again after the provider was closed.
        not_before: when to start; None for now.
    """

    selection: ParkedSelection
    rate: float = Field(default=5.0, gt=0, le=1000)
    concurrency: int = Field(default=20, ge=1, le=1000)
    ramp: Ramp | None = None
    not_before: AwareDatetime | None = None
    reason: str | None = Field(default=None, max_length=MAX_REASON_LENGTH)


class StartedBatch(Wire):
    """A batch.

    Attributes:
        batch: its id.
    """

    batch: str


class BatchList(Wire):
    batches: tuple[BatchProgress, ...]


async def _batch_id(batch_id: Annotated[str, Path(max_length=3 * MAX_CALL_ID_LENGTH)]) -> str:
    try:
        decoded = unquote(batch_id, errors="strict")
    except ValueError:
        decoded = ""
    if not _BATCH_ID.fullmatch(decoded) or len(decoded) > MAX_CALL_ID_LENGTH:
        raise ProblemError(NOT_FOUND, "not a batch id: batch.<provider>:<name>")
    return decoded


BatchId = Annotated[str, Depends(_batch_id)]


@router.post(
    "/batches",
    status_code=202,
    response_model=StartedBatch,
    operation_id="start_batch",
)
async def start(body: BatchBody, key: IdempotencyKey, parts: Parts, by: By) -> Response:
    """Reprocess parked calls at a limited rate; the same key is the same batch."""
    by.require(Role.STEER, body.selection.provider)
    request = BatchRequest(**dict(body), by=by.by)
    batch = await start_batch(parts.client, request, key, once=True)
    location = f"/batches/{quote(batch.id, safe='')}"
    return answer(StartedBatch(batch=batch.id), status=202, headers={"Location": location})


@router.get("/batches", response_model=BatchList, operation_id="list_batches")
async def list_batches(
    parts: Parts,
    by: By,
    provider: Annotated[Name | None, Query(description="Only this one; without: all.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """The newest batches, and their progress."""
    by.require(Role.READ, provider)
    found = [batch async for batch in parts.calls.batches(provider, limit)]
    return answer(
        BatchList(batches=tuple(await asyncio.gather(*(batch.progress() for batch in found))))
    )


@router.get(
    "/batches/{batch_id}",
    response_model=BatchProgress,
    responses=_UNKNOWN,
    operation_id="get_batch",
)
async def get_batch(batch: BatchId, parts: Parts, by: By) -> Response:
    """The progress of a batch."""
    _require(by, Role.READ, batch)
    return answer(await parts.calls.batch(batch).progress())


@router.post(
    "/batches/{batch_id}/pause",
    status_code=202,
    response_model=BatchProgress,
    responses=_UNKNOWN,
    operation_id="pause_batch",
)
async def pause(batch: BatchId, body: ReasonBody, parts: Parts, by: By) -> Response:
    """Take no more calls until it is resumed; calls in progress continue."""
    _require(by, Role.STEER, batch)
    found = parts.calls.batch(batch)
    return await _signal(found, found.pause(by=by.by, reason=body.reason))


@router.post(
    "/batches/{batch_id}/resume",
    status_code=202,
    response_model=BatchProgress,
    responses=_UNKNOWN,
    operation_id="resume_batch",
)
async def resume(batch: BatchId, body: ReasonBody, parts: Parts, by: By) -> Response:
    """Resume a paused batch."""
    _require(by, Role.STEER, batch)
    found = parts.calls.batch(batch)
    return await _signal(found, found.resume(by=by.by, reason=body.reason))


@router.post(
    "/batches/{batch_id}/stop",
    status_code=202,
    response_model=BatchProgress,
    responses=_UNKNOWN,
    operation_id="stop_batch",
)
async def stop(batch: BatchId, body: ReasonBody, parts: Parts, by: By) -> Response:
    """End it early: calls that it has not signalled yet stay parked."""
    _require(by, Role.STEER, batch)
    found = parts.calls.batch(batch)
    return await _signal(found, found.stop(by=by.by, reason=body.reason))


async def _signal(batch: BatchHandle, act: Awaitable[None]) -> Response:
    await act
    return answer(await batch.progress(), status=202)


def _require(by: Requester, role: Role, batch: str) -> None:
    by.require(role, batch.removeprefix("batch.").partition(":")[0])
