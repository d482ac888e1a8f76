"""Start, observe and control batches by their wire names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchCommand, BatchProgress, BatchRequest, BatchState
from ackbridge.errors import BatchNotFoundError, InvalidRequestError
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors


class BatchHandle:
    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    async def progress(self) -> BatchProgress:
        """Query the progress; needs a worker.

        Raises:
            BatchNotFoundError: there is no such batch.
            EngineUnavailableError: the engine does not answer, or no worker does.
        """
        with self._rpc_errors():
            progress = await self._query()
            if progress.state.is_final:
                return progress
            # A workflow that was terminated cannot report that itself.
            status = (await self._handle.describe(rpc_timeout=RPC_TIMEOUT)).status
            if status is WorkflowExecutionStatus.RUNNING or status is None:
                return progress
            progress = await self._query()
        if progress.state.is_final:
            return progress
        why = f"its workflow has ended as {status.name.lower()}"
        return progress.model_copy(update={"state": BatchState.TERMINATED, "why": why})

    async def _query(self) -> BatchProgress:
        progress: BatchProgress = await self._handle.query(
            names.PROGRESS, result_type=BatchProgress, rpc_timeout=RPC_TIMEOUT
        )
        return progress

    async def result(self) -> BatchProgress:
        """Wait for the end; returns what became of its calls.

        Raises:
            BatchNotFoundError: there is no such batch.
            InvalidRequestError: its request was not valid, or it was cancelled.
        """
        try:
            with self._rpc_errors():
                return BatchProgress.model_validate(await self._handle.result())
        except WorkflowFailureError as error:
            raise InvalidRequestError(f"{self.id}: {error.cause}") from None

    async def pause(self, *, by: str, reason: str) -> None:
        """Reprocess no more calls until `resume`; those in flight continue."""
        await self._signal(names.PAUSE, by, reason)

    async def resume(self, *, by: str, reason: str) -> None:
        """Continue after a pause."""
        await self._signal(names.RESUME, by, reason)

    async def stop(self, *, by: str, reason: str) -> None:
        """End the batch early; calls in flight continue."""
        await self._signal(names.STOP, by, reason)

    async def _signal(self, name: str, by: str, reason: str) -> None:
        with self._rpc_errors():
            await self._handle.signal(
                name, BatchCommand(by=by, reason=reason), rpc_timeout=RPC_TIMEOUT
            )

    def _rpc_errors(self) -> AbstractContextManager[None]:
        return rpc_errors(
            not_found=BatchNotFoundError(f"{self.id}: no such batch"),
            ended=BatchNotFoundError(f"{self.id}: the batch has ended"),
        )


async def start_batch(
    client: Client, request: BatchRequest, name: str | None = None, *, once: bool = False
) -> BatchHandle:
    """Start a batch, or find the running one of the same name.

    Args:
        name: the last part of its id; None: made from the time.
        once: also find one that has ended, for as long as the engine keeps it.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    selection = request.selection
    batch_id = names.batch_id(selection.provider, name or _from_time(datetime.now(UTC)))
    policy = WorkflowIDReusePolicy
    try:
        with rpc_errors():
            handle = await client.start_workflow(
                names.REPROCESS_PARKED,
                request,
                id=batch_id,
                task_queue=names.TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=policy.REJECT_DUPLICATE if once else policy.ALLOW_DUPLICATE,
                static_summary=f"parked calls of {selection.provider}, for {request.by}"[:200],
                rpc_timeout=RPC_TIMEOUT,
            )
    except WorkflowAlreadyStartedError:
        return find_batch(client, batch_id)
    return BatchHandle(handle)


def find_batch(client: Client, batch_id: str) -> BatchHandle:
    """The batch with this id; the server is not asked."""
    return BatchHandle(client.get_workflow_handle(batch_id))


async def list_batches(
    client: Client, provider: str | None, limit: int
) -> AsyncIterator[BatchHandle]:
    """The newest batches in the visibility store, which lags by about a second.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    query = f"WorkflowType = '{names.REPROCESS_PARKED}'"
    if provider is not None:
        prefix = names.batch_id(provider.replace("'", ""), "")
        query += f" AND WorkflowId STARTS_WITH '{prefix}'"
    seen: set[str] = set()
    with rpc_errors():
        # A long batch has several runs, the newest first.
        async for execution in client.list_workflows(query):
            if execution.id in seen:
                continue
            if len(seen) == limit:
                return
            seen.add(execution.id)
            yield find_batch(client, execution.id)


def _from_time(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z"
