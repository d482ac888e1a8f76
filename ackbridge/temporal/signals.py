"""Signals that the engine deduplicates by request id.

The SDK's `WorkflowHandle.signal` has no request id, so the raw request is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Header, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.client import Client

from ackbridge.contracts.wire import Wire


def as_plain(argument: Wire) -> dict[str, Any]:
    """JSON without default values, which older and newer workers read alike."""
    return argument.model_dump(mode="json", exclude_defaults=True)


async def signal_once(
    client: Client,
    call_id: str,
    name: str,
    argument: Mapping[str, Any],
    request_id: str,
    timeout: timedelta,  # noqa: ASYNC109 -- sent with the request
    header: Header | None = None,
) -> None:
    """Signal an open call once per request id.

    Args:
        argument: from `as_plain`.
        request_id: the engine drops a signal to the same call with the same id.
        timeout: of the request; after it the signal may have arrived nevertheless.
        header: of the signal, such as its trace context.

    Raises:
        RPCError: NOT_FOUND when there is no such open call.
    """
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=call_id),
        signal_name=name,
        input=Payloads(payloads=await client.data_converter.encode([argument])),
        identity=client.identity,
        request_id=request_id,
        header=header,
    )
    await client.workflow_service.signal_workflow_execution(request, timeout=timeout)
