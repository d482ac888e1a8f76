"""record: the response and its duplicate-index row in one transaction, then its acknowledgement."""

from __future__ import annotations

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import (
    Acknowledged,
    AcknowledgementKind,
    AcknowledgeStep,
    CallOutcome,
    Recorded,
    RecordStep,
    Setback,
    names,
)
from ackbridge.control.observed import Count

from .acknowledge import Acknowledge
from .failures import classified, setback
from .noting import note, note_response, noted
from .provisions import Provisions


class Record:
    """The only writer of responses."""

    def __init__(self, provisions: Provisions, acknowledge: Acknowledge) -> None:
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
            recorded = await self._with.ledger.record(
                request.call_id,
                request.provider,
                request.operation,
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

    async def _acknowledged(self, step: RecordStep, outcome: CallOutcome) -> Acknowledged | Setback:
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
