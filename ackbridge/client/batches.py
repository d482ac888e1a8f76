"""Batches from outside: started, watched and steered by their wire names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchCommand, BatchProgress, BatchRequest, BatchState
from ackbridge.errors import (
    BatchNotFoundError,
    EngineUnavailableError,
    InvalidRequestError,
)

RPC_TIMEOUT = timedelta(seconds=10)


class BatchHandle:
    """A batch that has been started."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self._handle.id

    async def progress(self) -> BatchProgress:
        """Ask how far it is; needs a worker.

        Raises:
            BatchNotFoundError: there is no such batch.
            EngineUnavailableError: the engine or every worker is away.
        """
        try:
            answer = await self._ask()
            if answer.state.is_final:
                return answer
            # A workflow that somebody ends from outside cannot say so.
            status = (await self._handle.describe(rpc_timeout=RPC_TIMEOUT)).status
            if status is WorkflowExecutionStatus.RUNNING or status is None:
                return answer
            answer = await self._ask()
        except RPCError as error:
            raise _explain(error, self.id) from None
        if answer.state.is_final:
            return answer
        why = f"its workflow has ended as {status.name.lower()}"
        return answer.model_copy(update={"state": BatchState.TERMINATED, "why": why})

    async def _ask(self) -> BatchProgress:
        answer: BatchProgress = await self._handle.query(
            names.PROGRESS, result_type=BatchProgress, rpc_timeout=RPC_TIMEOUT
        )
        return answer

    async def result(self) -> BatchProgress:
        """Wait for its end, and say what has become of its calls.

        Raises:
            BatchNotFoundError: there is no such batch.
            InvalidRequestError: it was started with something else than a request, or cancelled.
        """
        try:
            return BatchProgress.model_validate(await self._handle.result())
        except WorkflowFailureError as error:
            raise InvalidRequestError(f"{self.id}: {error.cause}") from None
        except RPCError as error:
            raise _explain(error, self.id) from None

    async def pause(self, *, by: str, reason: str) -> None:
        """Take up no more calls until somebody resumes it; those under way go on."""
        await self._order(names.PAUSE, by, reason)

    async def resume(self, *, by: str, reason: str) -> None:
        """Go on after a pause."""
        await self._order(names.RESUME, by, reason)

    async def stop(self, *, by: str, reason: str) -> None:
        """End it before its time; calls under way go on."""
        await self._order(names.STOP, by, reason)

    async def _order(self, name: str, by: str, reason: str) -> None:
        order = BatchCommand(by=by, reason=reason)
        try:
            await self._handle.signal(name, order, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            raise _explain(error, self.id) from None


async def start_batch(
    client: Client, request: BatchRequest, name: str | None = None
) -> BatchHandle:
    """Start a batch, or find the one of the same name that is under way.

    Args:
        name: the last part of its id; None for one of its own, from the time.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    selection = request.selection
    batch_id = names.batch_id(selection.provider, name or _from_time(datetime.now(UTC)))
    try:
        handle = await client.start_workflow(
            names.REPROCESS_PARKED,
            request,
            id=batch_id,
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"parked calls of {selection.provider}, wanted by {request.by}"[:200],
            rpc_timeout=RPC_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return find_batch(client, batch_id)
    except RPCError as error:
        raise _explain(error, batch_id) from None
    return BatchHandle(handle)


def find_batch(client: Client, batch_id: str) -> BatchHandle:
    """A batch that was started before, by its id."""
    return BatchHandle(client.get_workflow_handle(batch_id))


async def list_batches(
    client: Client, provider: str | None, limit: int
) -> AsyncIterator[BatchHandle]:
    """The newest batches, as far as the engine's visibility has them.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    query = f"WorkflowType = '{names.REPROCESS_PARKED}'"
    if provider is not None:
        prefix = names.batch_id(provider.replace("'", ""), "")
        query += f" AND WorkflowId STARTS_WITH '{prefix}'"
    seen: set[str] = set()
    try:
        # A long batch has several runs, the newest first.
        async for execution in client.list_workflows(query):
            if execution.id in seen:
                continue
            if len(seen) == limit:
                return
            seen.add(execution.id)
            yield find_batch(client, execution.id)
    except RPCError as error:
        raise _explain(error, provider or "batches") from None


def _from_time(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z"


def _explain(error: RPCError, batch_id: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        if "already completed" in error.message:
            return BatchNotFoundError(f"{batch_id}: too late, the batch is over")
        return BatchNotFoundError(f"{batch_id}: there is no such batch")
    if error.status is RPCStatusCode.INVALID_ARGUMENT:
        return InvalidRequestError(error.message)
    return EngineUnavailableError(
        f"the engine did not answer ({error.status.name}): {error.message}"
    )
