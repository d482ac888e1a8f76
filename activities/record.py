"""record: the response and its duplicate-index row in one transaction, then its acknowledgement."""

from __future__ import annotations

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome
from ackbridge.contracts.steps import (
    Acknowledged,
    AcknowledgementKind,
    AcknowledgeStep,
    FailedAttempt,
    Recorded,
    RecordStep,
)
from ackbridge.stats.counters import Count
from activities.support.counters import note, note_response, noted
from activities.support.dependencies import Dependencies
from activities.support.retry import classified, setback

from .acknowledge import Acknowledge


class Record:
    """The only writer of responses."""

    def __init__(self, provisions: Dependencies, acknowledge: Acknowledge) -> None:
        self._with = provisions
        self._acknowledge = acknowledge

    @activity.defn(name=names.RECORD)
    async def record(self, step: RecordStep) -> Recorded:
        """Write the response once; say whether it is this call's.

        Where the step wishes it, its success is acknowledged as well, once it stands: that the
        provider has not accepted is part of the answer.

        Raises:
            ApplicationError: Unavailable: the ledger is away; nothing was written.
        """
        request = step.request
        outcome = step.outcome.model_copy(update={"response": step.message.data})
        with noted(self._with, request), classified():
            recorded = await self._with.ledger.calls.record_response(
                request.call_id,
                step.cycle,
                step.message,
                outcome,
                was_parked=step.was_parked,
            )
        if recorded.accepted and not recorded.repeated:
            note_response(self._with, step)
        elif not recorded.accepted:
            note(self._with, request, Count.DUPLICATES)
        if not (step.acknowledges and recorded.accepted):
            return recorded
        return recorded.model_copy(update={"acknowledged": await self._acknowledged(step, outcome)})

    async def _acknowledged(
        self, step: RecordStep, outcome: CallOutcome
    ) -> Acknowledged | FailedAttempt:
        """The first attempt; the response stands whatever becomes of it."""
        success = AcknowledgeStep(
            request=step.request,
            cycle=step.cycle,
            kind=AcknowledgementKind.SUCCESS,
            reference=step.reference,
            outcome=outcome,
        )
        try:
            return await self._acknowledge.acknowledge(success)
        except ApplicationError as error:
            return setback(error)
