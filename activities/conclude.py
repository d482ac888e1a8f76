"""The activity `conclude`: record a call's stage, and which messages were suppressed or held."""

from __future__ import annotations

from datetime import datetime

from temporalio import activity

from ackbridge.catalog.catalog import next_batch
from ackbridge.contracts import names
from ackbridge.contracts.batches import QUARANTINE_AFTER
from ackbridge.contracts.calls import Notice, OutcomeCode, Stage
from ackbridge.contracts.control import WHOLE_PROVIDER
from ackbridge.contracts.steps import DUPLICATE, Concluded, ConcludeStep
from ackbridge.stats.counters import Count, OperationStats
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
            failed_alone = await self._has_failed_alone(step)
            expected = self._next_batch(step)
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
                failed_alone=failed_alone,
                notice=_expected_at(step.notice, expected),
            )
            quarantined = await self._quarantine_reason(step)
        count_cycle_ends(self._deps, request, step.ended)
        duplicates = sum(message.reason == DUPLICATE for message in step.suppressed)
        count(self._deps, request, Count.DUPLICATES, duplicates)
        return Concluded(next_batch=expected, quarantined=quarantined)

    def _next_batch(self, step: ConcludeStep) -> datetime | None:
        """When the next batch reprocesses a parked call at the latest, if that is known."""
        request = step.request
        integration = self._deps.catalog.integrations.get(request.provider)
        if step.stage is not Stage.PARKED or integration is None:
            return None
        reason = step.parking.reason if step.parking else None
        return next_batch(integration, request.operation, self._deps.clock(), reason)

    async def _has_failed_alone(self, step: ConcludeStep) -> bool:
        """Whether a parked call has failed again, while most calls of its operation were answered.

        A healthy provider counts as one that is answered, unless what is missing are responses.
        """
        parking, request = step.parking, step.request
        if parking is None or parking.times < 2:
            return False
        again = await self._deps.ledger.batches.failed_again(request.call_id, parking)
        if again is None:
            return False
        found = await self._deps.ledger.stats.totals(request.provider, again.since)
        own, whole = (
            found.get(name, OperationStats()) for name in (request.operation, WHOLE_PROVIDER)
        )
        answered, failed = own[Count.ANSWERS], again.others
        if parking.reason != OutcomeCode.NO_RESPONSE:
            answered, failed = answered + whole[Count.HEALTHY], failed + whole[Count.UNHEALTHY]
        return answered > failed

    async def _quarantine_reason(self, step: ConcludeStep) -> str | None:
        if step.parking is None or step.parking.times < 2:
            return None
        failures = await self._deps.ledger.batches.failures(step.request.call_id)
        if failures < QUARANTINE_AFTER:
            return None
        return f"it failed again {failures} times while other calls were answered"


def _expected_at(notice: Notice | None, expected: datetime | None) -> Notice | None:
    """The notice of a parked call, as the workflow completes it too."""
    if notice is None or expected is None:
        return notice
    return notice.model_copy(update={"expected_at": expected})
