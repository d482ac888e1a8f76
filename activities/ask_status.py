"""ask_status: before giving up, ask the provider how its work stands."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog import classify, render_status
from ackbridge.contracts import Asked, AskStep, MessageSource, StepFailure, names

from .failures import classified
from .provisions import Provisions
from .speaking import speak


class AskStatus:
    """The answer goes through the same capture as a callback."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.ASK_STATUS)
    async def ask_status(self, step: AskStep) -> Asked:
        """Ask once.

        Raises:
            ApplicationError: NoReceipt, to be tried again a few times.
        """
        request = step.request
        with classified():
            integration = self._with.catalog.integration(request.provider)
            operation = self._with.catalog.operation(request.provider, request.operation)
            context = self._with.context(request, step.cycle) | {"reference": step.reference}
            outbound = render_status(integration, operation, context)
        if outbound is None:
            return Asked()
        answer = await speak(
            self._with,
            request.provider,
            outbound,
            operation.receipt.timeout,
            StepFailure.NO_RECEIPT,
        )
        if answer.status >= 400:
            return Asked()
        event_key = f"status:{names.idempotency_key(request.call_id, step.cycle)}"
        return Asked(
            message=classify(
                operation, answer.document, event_key, MessageSource.STATUS, self._with.clock()
            )
        )
