"""record: the response and its duplicate-index row, in one transaction."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import Recorded, RecordStep, names

from .failures import classified
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
        with classified():
            return await self._with.ledger.record(
                request.call_id,
                request.provider,
                request.operation,
                step.cycle,
                step.message,
                outcome,
                was_parked=step.was_parked,
            )
