"""The activity `settle`: record in the ledger what an operator states about a call."""

from __future__ import annotations

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome
from ackbridge.contracts.settlement import SettleRequest
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors


class Settle:
    """Runs for `SettleCall`: open calls take signals instead."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.SETTLE)
    async def settle(self, request: SettleRequest) -> CallOutcome:
        """Write the call's new outcome, in one transaction.

        Raises:
            ApplicationError: InvalidRequest, final: the call is open, or has no such message or
                acknowledgement. Unavailable: the ledger does not answer; nothing was written.
        """
        # Only the engine knows: the workflow of a call without an outcome may be terminated.
        is_open = await _is_open(request.call_id)
        with classified_errors():
            return await self._deps.ledger.settlement.settle(request, is_open=is_open)


async def _is_open(call_id: str) -> bool:
    try:
        description = await activity.client().get_workflow_handle(call_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return description.status is WorkflowExecutionStatus.RUNNING
