"""record: the response and its duplicate-index row, in one transaction."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import Recorded, RecordStep, names
from ackbridge.control.observed import Count

from .failures import classified
from .noting import note, note_response, noted
from .provisions import Provisions


class Record:
    """The only writer of responses."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.RECORD)
    async def record(self, step: RecordStep) -> Recorded:
        """Write the response once; say whether it is this call's."""
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
            )
        if recorded.accepted and not recorded.repeated:
            note_response(self._with, step)
        elif not recorded.accepted:
            note(self._with, request, Count.DUPLICATES)
        return recorded
