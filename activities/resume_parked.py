"""drain: take up again what was parked while a provider was away, gently."""

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
from ackbridge.contracts.limits import MAX_REASON_LENGTH
from activities.support.dependencies import Dependencies
from activities.support.retry import classified

FOR_THE_PROVIDER = ("breaker_open", "not_sent", "no_receipt", "no_response")
"""Why calls are parked that a provider which is well again can help. A flag is somebody's word."""

CONCURRENCY = 50


class ResumeParked:
    """A batch for each reason; their sends go through the throttled queue besides."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.DRAIN)
    async def drain(self, step: DrainStep) -> DrainResult:
        """Start the batches, once for each recovery.

        Raises:
            ApplicationError: Unavailable; the ledger is away.
        """
        provider = step.provider
        with classified():
            integration = self._with.catalog.integration(provider)
            counted = await self._with.ledger.batches.count_parked(
                ParkedSelection(provider=provider)
            )
        reasons = {one.reason for one in counted}.intersection(FOR_THE_PROVIDER)
        batches = []
        for reason in sorted(reasons):
            batch = names.batch_id(provider, f"recovery-{step.version}-{reason}")
            await _start(batch, _request(integration, reason, step, len(reasons)))
            batches.append(batch)
        return DrainResult(batches=tuple(batches))


async def _start(batch: str, request: BatchRequest) -> None:
    # An attempt before this one may have started it, and it may be over.
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await activity.client().start_workflow(
            names.REPROCESS_PARKED,
            request,
            id=batch,
            task_queue=names.TASK_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"{request.selection.provider}: {request.reason}"[:200],
        )


def _request(integration: Integration, reason: str, step: DrainStep, batches: int) -> BatchRequest:
    """As fast as the ramp ends, shared by so many batches, and as gently as it begins."""
    ramp = (integration.breaker or BreakerPolicy()).ramp
    full = ramp.rate(max(ramp.steps - 1, 0))
    limits = integration.limits
    if limits is not None and limits.requests_per_second is not None:
        full = min(full, limits.requests_per_second)
    return BatchRequest(
        selection=ParkedSelection(provider=step.provider, reason=reason),
        rate=min(max(full / batches, 0.1), 1000.0),
        concurrency=CONCURRENCY,
        ramp=Ramp(
            start=min(max(ramp.start / batches, 0.1), 1000.0),
            over=max(ramp.every * ramp.steps, ramp.every),
        ),
        by="the breaker",
        reason=f"parked ({reason}) while the provider was away: {step.reason}"[:MAX_REASON_LENGTH],
    )
