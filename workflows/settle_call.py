"""The workflow `SettleCall`: an operator states what became of a call that has ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

# As in call/workflow.py: a module that is passed through there and loaded anew here is two.
with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.calls import CallOutcome
    from ackbridge.contracts.settlement import SettleRequest
    from ackbridge.contracts.wire import InvalidInputError, parse_argument
    from workflows.hosting import markdown
    from workflows.hosting.audit import AuditTrail
    from workflows.hosting.inputs import invalid_request, require_workflow_id
    from workflows.hosting.steps import LEDGER_TIMEOUT, MARGIN

RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))
"""Unlimited: a repeat changes nothing."""


@workflow.defn(name=names.SETTLE_CALL)
class SettleCall:
    """Keeps in a history who stated it, and why."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid = ""
        self._request: SettleRequest | None = None
        try:
            request = parse_argument(SettleRequest, arguments)
            require_workflow_id(names.settle_id(request.call_id), "call_id")
        except InvalidInputError as error:
            self._invalid = str(error)
        else:
            self._request = request

    @workflow.run
    async def run(self, *arguments: Any) -> CallOutcome:
        """Record it.

        Returns:
            The call's outcome after it.

        Raises:
            ApplicationError: of type InvalidRequest; also if the call is open, which takes the
                signals `resolve` and `write_off` itself.
        """
        request = self._request
        if request is None:
            raise invalid_request(self._invalid)
        audit = AuditTrail()
        audit.record_start(names.SETTLE, arguments)
        await audit.finish()
        _show(request, "being recorded")
        try:
            outcome: CallOutcome = await workflow.execute_activity(
                names.SETTLE,
                request,
                result_type=CallOutcome,
                start_to_close_timeout=LEDGER_TIMEOUT + MARGIN,
                retry_policy=RETRIES,
                summary=_describe(request),
            )
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError):
                _show(request, f"refused: {error.cause.message}")
                raise invalid_request(error.cause.message) from None
            raise
        _show(request, "recorded")
        return outcome


def _describe(request: SettleRequest) -> str:
    if request.write_off is not None:
        owed = request.write_off
        return f"write off the {owed.kind} acknowledgement of cycle {owed.cycle}"
    if request.held_id is not None:
        return f"apply the held message {request.held_id}"
    return f"the effect is {request.effect}"


def _show(request: SettleRequest, state: str) -> None:
    items = [f"call `{request.call_id}`", f"requested by {request.by}: {request.reason}"]
    title = f"**{markdown.one_line(_describe(request))}**: {markdown.one_line(state)}"
    workflow.set_current_details(
        markdown.document(title, markdown.bullets(map(markdown.one_line, items)))
    )
