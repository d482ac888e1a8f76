"""acknowledge: tell the provider that we have its answer, or that we have given up on it."""

from __future__ import annotations

from datetime import datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.rendering import MissingReferenceError, render_acknowledgement
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome
from ackbridge.contracts.steps import Acknowledged, AcknowledgeStep, StepFailure
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.stats.counters import Count
from activities.support.counters import note, noted
from activities.support.dependencies import Dependencies
from activities.support.provider_http import ProviderResponse, converse, refusal
from activities.support.retry import NoAnswerError, classified, failure


class Acknowledge:
    """What is owed stands in the ledger until the provider has accepted it."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.ACKNOWLEDGE)
    async def acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        """Send one acknowledgement under a key of its own.

        Raises:
            ApplicationError: NotAccepted, to be tried again for as long as we owe it. Other 4xx
                too, and InvalidRequest: a person may have to mend the integration, and it stays
                owed until then. NotAddressed is final: it needs a reference that is not known.
        """
        try:
            with noted(self._with, step.request, Count.UNACKNOWLEDGED):
                return await self._acknowledge(step)
        except Exception as error:
            reason = error.message if isinstance(error, ApplicationError) else type(error).__name__
            with classified():
                await self._with.ledger.calls.record_owed(
                    step.request.call_id, step.cycle, step.kind, reason
                )
            raise

    async def _acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        request = step.request
        with classified(StepFailure.NOT_ACCEPTED):
            answer = await self._told(step)
            if answer is not None and answer.status >= 400:
                reason = refusal(answer, self._with.redactor(request.provider))
                raise NoAnswerError(reason, reached=True)
        at = self._with.clock()
        with classified():
            await self._with.ledger.calls.record_acknowledgement(
                request.call_id, step.cycle, step.kind, at, _settled(step.outcome, at)
            )
        if answer is not None:
            note(self._with, request, Count.ACKNOWLEDGED)
        return Acknowledged(acknowledged_at=at)

    async def _told(self, step: AcknowledgeStep) -> ProviderResponse | None:
        """What the provider answers; None where the operation has nothing to tell it."""
        try:
            return await converse(
                self._with,
                step.request,
                step.cycle,
                lambda at, operation, known: render_acknowledgement(
                    at, operation, step.kind, known
                ),
                reference=step.reference,
                response=step.outcome.response if step.outcome else step.response,
                reason=step.reason,
            )
        except MissingReferenceError:
            raise
        except InvalidInputError as error:
            # Not the call's fault: with a better file the same step succeeds.
            raise failure(StepFailure.INVALID_REQUEST, str(error), final=False) from None


def _settled(outcome: CallOutcome | None, at: datetime) -> CallOutcome | None:
    """A captured outcome, once the provider has accepted that we have it."""
    if outcome is None:
        return None
    timings = outcome.timings.model_copy(update={"acknowledged_at": at})
    return outcome.model_copy(update={"acknowledgement_owed": False, "timings": timings})
