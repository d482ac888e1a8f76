"""Catch up with a provider's own list of events."""

from __future__ import annotations

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from ackbridge.contracts import names
from ackbridge.contracts.catch_up import CatchUpProgress, CatchUpRequest
from ackbridge.errors import InvalidRequestError
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors


async def catch_up(client: Client, request: CatchUpRequest) -> CatchUpProgress:
    """Read the events that a provider lists, deliver what is missing, and wait for the end.

    Raises:
        InvalidRequestError: one is running already; or the provider has no list, or refuses it.
        EngineUnavailableError: the engine does not answer.
    """
    try:
        with rpc_errors():
            handle = await client.start_workflow(
                names.CATCH_UP,
                request,
                id=names.catch_up_id(request.provider),
                task_queue=names.TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"events since {request.since:%Y-%m-%d %H:%M}, for {request.by}",
                rpc_timeout=RPC_TIMEOUT,
            )
            return CatchUpProgress.model_validate(await handle.result())
    except WorkflowAlreadyStartedError:
        message = (
            f"{request.provider}: a catch-up is running; see {names.catch_up_id(request.provider)}"
        )
        raise InvalidRequestError(message) from None
    except WorkflowFailureError as error:
        cause = error.cause
        reason = cause.message if isinstance(cause, ApplicationError) else "it did not end"
        raise InvalidRequestError(f"{request.provider}: {reason}") from None
