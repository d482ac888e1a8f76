"""The activity `record`: write a call's response, then acknowledge it to the provider."""

from __future__ import annotations

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Notice
from ackbridge.contracts.deliveries import NoticeEvent
from ackbridge.contracts.steps import (
    Acknowledged,
    AcknowledgementKind,
    AcknowledgeStep,
    FailedAttempt,
    Recorded,
    RecordStep,
)
from ackbridge.stats.counters import Count
from activities.support.counters import count, count_response, counting_failures
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors, failed_attempt

from .acknowledge import Acknowledge
from .prepare import own_notice


class Record:
    """The only writer of responses."""

    def __init__(self, deps: Dependencies, acknowledge: Acknowledge) -> None:
        self._deps = deps
        self._acknowledge = acknowledge

    @activity.defn(name=names.RECORD)
    async def record(self, step: RecordStep) -> Recorded:
        """Write the response and its duplicate-index row in one transaction.

        If the step says so, the response is then acknowledged in the same activity. A failed
        acknowledgement is part of the result: the response is recorded all the same.

        Raises:
            ApplicationError: Unavailable: the ledger does not answer; nothing was written.
        """
        request = step.request
        outcome = step.outcome.model_copy(update={"response": step.message.data})
        with counting_failures(self._deps, request), classified_errors():
            recorded = await self._deps.ledger.calls.record_response(
                request.call_id,
                step.cycle,
                step.message,
                outcome,
                was_parked=step.was_parked,
                notice=self._notice(step),
            )
        if not recorded.accepted:
            count(self._deps, request, Count.DUPLICATES)
            return recorded
        if not recorded.repeated:
            count_response(self._deps, step)
        if not step.acknowledges:
            return recorded
        with self._deps.rides.ride(request.provider) as may_ride:
            if not may_ride:
                return recorded.model_copy(update={"needs_queue": True})
            acknowledged = await self._acknowledge_success(step, outcome)
            return recorded.model_copy(update={"acknowledged": acknowledged})

    def _notice(self, step: RecordStep) -> Notice | None:
        """The operation's own text of a success, which a page shows; None: the built-in one."""
        request = step.request
        integration = self._deps.catalog.integrations.get(request.provider)
        operation = integration and integration.operations.get(request.operation)
        kind = NoticeEvent.COMPLETED_LATE if step.outcome.late else NoticeEvent.COMPLETED
        if not operation or getattr(operation.notices, kind) is None:
            return None
        context = self._deps.template_context(request, step.cycle)
        return own_notice(self._deps, request, operation, context, kind)

    async def _acknowledge_success(
        self, step: RecordStep, outcome: CallOutcome
    ) -> Acknowledged | FailedAttempt:
        success = AcknowledgeStep(
            kept=step.kept,
            request=step.request,
            cycle=step.cycle,
            kind=AcknowledgementKind.SUCCESS,
            reference=step.reference,
            outcome=outcome,
        )
        try:
            return await self._acknowledge.attempt(success)
        except ApplicationError as error:
            return failed_attempt(error)
