"""Signals that the engine takes once, however often and by whomever they are sent."""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client

from .contracts import Wire


async def signal_once(
    client: Client,
    call_id: str,
    name: str,
    argument: Wire,
    request_id: str,
    timeout: timedelta,  # noqa: ASYNC109 -- the bound travels to the engine
) -> None:
    """Signal an open call.

    Args:
        request_id: the engine does the same one for the same call once.
        timeout: of the request; the signal may have arrived all the same.

    Raises:
        RPCError: NOT_FOUND when there is no such open call.
    """
    plain = argument.model_dump(mode="json", exclude_defaults=True)
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=call_id),
        signal_name=name,
        input=Payloads(payloads=await client.data_converter.encode([plain])),
        identity=client.identity,
        request_id=request_id,
    )
    await client.workflow_service.signal_workflow_execution(request, timeout=timeout)
