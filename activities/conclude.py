"""The activity `conclude`: record a call's stage, and which messages were suppressed or held."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog.catalog import next_batch
from ackbridge.contracts import names
from ackbridge.contracts.calls import Stage
from ackbridge.contracts.steps import DUPLICATE, Concluded, ConcludeStep
from ackbridge.stats.counters import Count
from activities.support.counters import count, count_cycle_ends, counting_failures
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors


class Conclude:
    """The ledger has the status of a call when no worker can answer queries."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.CONCLUDE)
    async def conclude(self, step: ConcludeStep) -> Concluded:
        """Write the stage, the outcome if there is one, and suppressed and held messages."""
        request = step.request
        with counting_failures(self._deps, request), classified_errors():
            await self._deps.ledger.calls.record_stage(
                request.call_id,
                step.stage,
                step.reason,
                step.outcome,
                step.suppressed,
                step.held,
                step.parking,
                effect=step.effect,
                provider_code=step.provider_code,
                amount=step.amount,
                written_off=step.written_off,
            )
        count_cycle_ends(self._deps, request, step.ended)
        duplicates = sum(message.reason == DUPLICATE for message in step.suppressed)
        count(self._deps, request, Count.DUPLICATES, duplicates)
        integration = self._deps.catalog.integrations.get(request.provider)
        if step.stage is not Stage.PARKED or integration is None:
            return Concluded()
        reason = step.parking.reason if step.parking else None
        now = self._deps.clock()
        return Concluded(next_batch=next_batch(integration, request.operation, now, reason))
