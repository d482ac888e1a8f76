"""conclude: keep where a call stands, and what was suppressed or is held."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog.catalog import next_batch
from ackbridge.contracts import names
from ackbridge.contracts.calls import Stage
from ackbridge.contracts.steps import DUPLICATE, Concluded, ConcludeStep
from ackbridge.stats.counters import Count
from activities.support.counters import note, note_ends, noted
from activities.support.dependencies import Dependencies
from activities.support.retry import classified


class Conclude:
    """The ledger answers for a call when no worker does."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.CONCLUDE)
    async def conclude(self, step: ConcludeStep) -> Concluded:
        """Write the stage, the outcome if there is one, and what was suppressed or is held."""
        request = step.request
        with noted(self._with, request), classified():
            await self._with.ledger.calls.record_stage(
                request.call_id,
                step.stage,
                step.reason,
                step.outcome,
                step.suppressed,
                step.held,
                step.parking,
            )
        note_ends(self._with, request, step.ended)
        duplicates = sum(one.reason == DUPLICATE for one in step.suppressed)
        note(self._with, request, Count.DUPLICATES, duplicates)
        if step.stage is not Stage.PARKED:
            return Concluded()
        integration = self._with.catalog.integrations.get(request.provider)
        if integration is None:
            return Concluded()
        reason = step.parking.reason if step.parking else None
        now = self._with.clock()
        return Concluded(next_batch=next_batch(integration, request.operation, now, reason))
