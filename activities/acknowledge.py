"""acknowledge: tell the provider that we have its answer, or that we have given up on it."""

from __future__ import annotations

from datetime import datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog import render_acknowledgement
from ackbridge.contracts import Acknowledged, AcknowledgeStep, CallOutcome, StepFailure, names

from .failures import classified, failure
from .provisions import Provisions
from .speaking import refusal, speak


class Acknowledge:
    """What is owed stands in the ledger until the provider has accepted it."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.ACKNOWLEDGE)
    async def acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        """Send one acknowledgement under a key of its own.

        Raises:
            ApplicationError: NotAccepted, to be tried again for as long as we owe it. Other 4xx
                too: a person may have to mend the integration, and it stays owed until then.
        """
        try:
            return await self._acknowledge(step)
        except ApplicationError as error:
            with classified():
                await self._with.ledger.owe(
                    step.request.call_id, step.cycle, step.kind, error.message
                )
            raise

    async def _acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        request = step.request
        with classified():
            integration = self._with.catalog.integration(request.provider)
            operation = self._with.catalog.operation(request.provider, request.operation)
            context = self._with.context(request, step.cycle) | {
                "reference": step.reference,
                "response": step.response,
                "reason": step.reason,
            }
            outbound = render_acknowledgement(integration, operation, step.kind, context)
        if outbound is not None and operation.acknowledge is not None:
            answer = await speak(
                self._with,
                request.provider,
                outbound,
                operation.acknowledge.timeout,
                StepFailure.NOT_ACCEPTED,
            )
            if answer.status >= 400:
                raise failure(StepFailure.NOT_ACCEPTED, refusal(answer), final=False, reached=True)
        at = self._with.clock()
        with classified():
            await self._with.ledger.acknowledged(
                request.call_id, step.cycle, step.kind, at, _settled(step.outcome, at)
            )
        return Acknowledged(acknowledged_at=at)


def _settled(outcome: CallOutcome | None, at: datetime) -> CallOutcome | None:
    """A captured outcome, once the provider has accepted that we have it."""
    if outcome is None:
        return None
    timings = outcome.timings.model_copy(update={"acknowledged_at": at})
    return outcome.model_copy(update={"acknowledgement_owed": False, "timings": timings})
