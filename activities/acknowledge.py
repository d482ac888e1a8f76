"""The activity `acknowledge`: confirm a response to the provider, or report that none came."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime
from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.matching import accepts_acknowledgement
from ackbridge.catalog.rendering import MissingReferenceError, render_acknowledgement
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.contracts.steps import Acknowledged, AcknowledgeStep, StepFailure
from ackbridge.contracts.wire import InvalidInputError, Wire
from ackbridge.stats.counters import Count
from activities.support.counters import count, count_cycle_ends, counting_failures
from activities.support.dependencies import Dependencies
from activities.support.heartbeats import last_heartbeat
from activities.support.provider_http import ProviderResponse, call_provider, load_data, refusal_of
from activities.support.retry import activity_failure, classified_errors, retry_delay

REFUSED_AFTER: Final = timedelta(minutes=1)
"""A refusal counts when the provider still refuses after this."""


class RefusedSince(Wire):
    """What a refused attempt reports to the next one, as heartbeat details."""

    at: AwareDatetime


class Acknowledge:
    """An acknowledgement stays pending in the ledger until the provider accepts it."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.ACKNOWLEDGE)
    async def acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        """Send one acknowledgement under an idempotency key of its own.

        Raises:
            ApplicationError: NotAccepted, retryable while the acknowledgement is pending. So is
                InvalidRequest: an operator can correct the integration file.
                AcknowledgementRefused is final once the provider has refused for a minute.
                NotAddressed is final: it needs a reference that is not known.
        """
        if not activity.info().is_local:
            _require_due(step)
            return await self.attempt(step)
        with self._deps.rides.ride(step.request.provider) as may_ride:
            if not may_ride:
                reason = "it goes through the queue: too many requests in workflow tasks"
                raise activity_failure(StepFailure.UNAVAILABLE, reason, final=False)
            return await self.attempt(step)

    async def attempt(self, step: AcknowledgeStep) -> Acknowledged:
        """Acknowledge as part of any activity; raises as `acknowledge`."""
        if activity.info().attempt == 1:
            count_cycle_ends(self._deps, step.request, step.ended)
        try:
            with counting_failures(self._deps, step.request, Count.UNACKNOWLEDGED):
                return await self._acknowledge(step)
        except Exception as error:
            await self._record_failure(step, error)
            raise

    async def _record_failure(self, step: AcknowledgeStep, error: Exception) -> None:
        failure = error if isinstance(error, ApplicationError) else None
        reason = failure.message if failure else f"unexpected error: {type(error).__name__}"
        with classified_errors():
            await self._deps.ledger.calls.record_owed(
                step.request.call_id,
                step.cycle,
                step.kind,
                reason,
                refused=failure is not None and failure.type == StepFailure.ACKNOWLEDGEMENT_REFUSED,
            )

    async def _acknowledge(self, step: AcknowledgeStep) -> Acknowledged:
        request = step.request
        with classified_errors(StepFailure.NOT_ACCEPTED):
            response = await self._post(step)
            if response is not None:
                self._require_accepted(response, request)
        at = self._deps.clock()
        with classified_errors():
            await self._deps.ledger.calls.record_acknowledgement(
                request.call_id, step.cycle, step.kind, at, _accepted(step.outcome, at)
            )
        if response is not None:
            count(self._deps, request, Count.ACKNOWLEDGED)
        return Acknowledged(acknowledged_at=at)

    def _require_accepted(self, response: ProviderResponse, request: CallRequest) -> None:
        if accepts_acknowledgement(response.operation, response.document):
            return
        if response.retryable:
            raise response.retryable
        refusal = refusal_of(response, self._deps.redactor(request))
        info = activity.info()
        first = last_heartbeat(RefusedSince) or RefusedSince(at=info.started_time)
        if not info.is_local:
            activity.heartbeat(first)
        # When the call's time for it is over, the last failure says whether it was refused.
        raise activity_failure(
            StepFailure.ACKNOWLEDGEMENT_REFUSED,
            refusal.reason,
            final=info.started_time - first.at >= REFUSED_AFTER,
            delay=response.retry_after and retry_delay(info.attempt, response.retry_after),
            reached=True,
            code=refusal.code,
        )

    async def _post(self, step: AcknowledgeStep) -> ProviderResponse | None:
        """The provider's answer; None where the operation has no acknowledgement of this kind."""
        response = await load_data(
            self._deps, step.outcome.response if step.outcome else step.response
        )
        try:
            return await call_provider(
                self._deps,
                step.request,
                step.cycle,
                lambda integration, operation, context: render_acknowledgement(
                    integration, operation, step.kind, context
                ),
                reference=step.reference,
                kept=step.kept,
                response=response,
                reason=step.reason,
            )
        except MissingReferenceError:
            raise
        except InvalidInputError as error:
            # The file's error, not the call's: after a correction the same step succeeds.
            raise activity_failure(StepFailure.INVALID_REQUEST, str(error), final=False) from None


def _accepted(outcome: CallOutcome | None, at: datetime) -> CallOutcome | None:
    if outcome is None:
        return None
    timings = outcome.timings.model_copy(update={"acknowledged_at": at})
    return outcome.model_copy(update={"acknowledgement_owed": False, "timings": timings})


def _require_due(step: AcknowledgeStep) -> None:
    """Leave the pause that the provider has asked for to the retry of the activity."""
    if step.pause is not None and activity.info().attempt == 1:
        reason = "the provider asked for a pause"
        raise activity_failure(StepFailure.NOT_ACCEPTED, reason, final=False, delay=step.pause)
