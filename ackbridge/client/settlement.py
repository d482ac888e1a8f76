"""Settle calls that have ended, by the workflow `SettleCall`, and read what was settled."""

from __future__ import annotations

from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome
from ackbridge.contracts.limits import MAX_SUMMARY_LENGTH
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.errors import CallError, InvalidRequestError
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors


async def settle(client: Client, request: SettleRequest) -> CallOutcome | None:
    """Start `SettleCall` and wait for its end; needs a worker and the ledger.

    Returns:
        The new outcome of the call; None for a call that has none yet.

    Raises:
        InvalidRequestError: refused; the message says why.
        CallError: the call is being settled by somebody else at this moment.
        EngineUnavailableError: the engine does not answer; repeating is safe.
    """
    try:
        with rpc_errors():
            handle: WorkflowHandle[Any, Any] = await client.start_workflow(
                names.SETTLE_CALL,
                request,
                id=names.settle_id(request.call_id),
                task_queue=names.TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"settled by {request.by}: {request.reason}"[:MAX_SUMMARY_LENGTH],
                rpc_timeout=RPC_TIMEOUT,
            )
            return _outcome(await handle.result())
    except WorkflowAlreadyStartedError:
        raise CallError(f"{request.call_id}: it is being settled; try again") from None
    except WorkflowFailureError as error:
        raise InvalidRequestError(f"{request.call_id}: {_message(error)}") from None


async def settled_outcome(client: Client, call_id: str) -> CallOutcome | None:
    """The outcome that an operator's settlement gave to a call; None: it was not settled.

    Raises:
        EngineUnavailableError: the engine does not answer.
    """
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(names.settle_id(call_id))
    with rpc_errors():
        try:
            described = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        if described.status is not WorkflowExecutionStatus.COMPLETED:
            # The latest request was refused, or is running; an earlier one may have settled it.
            quoted = handle.id.replace("'", "")
            query = f"WorkflowId = '{quoted}' AND ExecutionStatus = 'Completed'"
            runs = [run async for run in client.list_workflows(query, limit=1)]
            if not runs:
                return None
            handle = client.get_workflow_handle(handle.id, run_id=runs[0].run_id)
        return _outcome(await handle.result())


def _outcome(result: Any) -> CallOutcome | None:
    return None if result is None else CallOutcome.model_validate(result)


def _message(error: BaseException) -> str:
    while isinstance(cause := getattr(error, "cause", None), FailureError):
        error = cause
    return error.message if isinstance(error, FailureError) else str(error)
