"""The activity `drain`: after an outage, reprocess the calls that were parked because of it."""

from __future__ import annotations

import contextlib

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from ackbridge.catalog.model import Integration
from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.breaker import BreakerPolicy
from ackbridge.contracts.control import DrainResult, DrainStep
from ackbridge.contracts.limits import MAX_REASON_LENGTH, MAX_SUMMARY_LENGTH
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors

OUTAGE_REASONS = ("breaker_open", "not_sent", "no_receipt", "no_response")
"""Calls that were parked for another reason, such as a flag, are not resumed."""

CONCURRENCY = 50


class ResumeParked:
    """Starts one batch for each reason; their sends also go through the throttled send queue."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.DRAIN)
    async def drain(self, step: DrainStep) -> DrainResult:
        """Start the batches, once for each recovery.

        Raises:
            ApplicationError: Unavailable: the ledger does not answer.
        """
        provider = step.provider
        with classified_errors():
            integration = self._deps.catalog.integration(provider)
            groups = await self._deps.ledger.batches.count_parked(
                ParkedSelection(provider=provider)
            )
        reasons = {group.reason for group in groups}.intersection(OUTAGE_REASONS)
        batches = []
        for reason in sorted(reasons):
            batch = names.batch_id(provider, f"recovery-{step.version}-{reason}")
            await _start(batch, _request(integration, reason, step, len(reasons)))
            batches.append(batch)
        return DrainResult(batches=tuple(batches))


async def _start(batch: str, request: BatchRequest) -> None:
    # An earlier attempt may have started it, and it may have ended since.
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await activity.client().start_workflow(
            names.REPROCESS_PARKED,
            request,
            id=batch,
            task_queue=names.TASK_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"{request.selection.provider}: {request.reason}"[:MAX_SUMMARY_LENGTH],
        )


def _request(integration: Integration, reason: str, step: DrainStep, batches: int) -> BatchRequest:
    """A batch whose rate rises like the breaker's ramp, in equal shares for all batches."""
    ramp = (integration.breaker or BreakerPolicy()).ramp
    full_rate = ramp.rate(max(ramp.steps - 1, 0))
    limits = integration.limits
    if limits is not None and limits.requests_per_second is not None:
        full_rate = min(full_rate, limits.requests_per_second)
    return BatchRequest(
        selection=ParkedSelection(provider=step.provider, reason=reason),
        rate=_share(full_rate, batches),
        concurrency=CONCURRENCY,
        ramp=Ramp(start=_share(ramp.start, batches), over=max(ramp.every * ramp.steps, ramp.every)),
        by="the breaker",
        reason=f"parked ({reason}) during an outage: {step.reason}"[:MAX_REASON_LENGTH],
    )


def _share(rate: float, batches: int) -> float:
    """One batch's share, within the limits of a batch's rate."""
    return min(max(rate / batches, 0.1), 1000.0)
