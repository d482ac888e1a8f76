"""The activity `drain`: after an outage, reprocess the calls that were parked because of it."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.catalog.model import Integration
from ackbridge.contracts import names
from ackbridge.contracts.batches import (
    BatchCommand,
    BatchProgress,
    BatchRequest,
    ParkedSelection,
    Ramp,
)
from ackbridge.contracts.breaker import BreakerPolicy
from ackbridge.contracts.control import MAX_QUARANTINED, DrainResult, DrainStep, Recovery
from ackbridge.contracts.limits import MAX_REASON_LENGTH, MAX_SUMMARY_LENGTH
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors

OUTAGE_REASONS = ("breaker_open", "not_sent", "no_receipt", "no_response")
"""Calls that were parked for another reason, such as a flag, are not resumed."""

CONCURRENCY = 50

BREAKER = "the breaker"
"""Who requests these batches."""

SNAPSHOTS_KNOWN_AFTER = timedelta(seconds=3)
"""Until then, workers that have not seen that the breaker has closed may park calls."""


class ResumeParked:
    """Starts one batch for each recovery; its sends also go through the throttled send queue."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.DRAIN)
    async def drain(self, step: DrainStep) -> DrainResult:
        """Start a batch for what the outage has parked, once for each recovery.

        A batch of the recovery before this one that is still running is stopped, and this one takes
        its calls over, so that two batches do not compete for them.

        Raises:
            ApplicationError: Unavailable: the ledger does not answer.
        """
        if step.since is None:
            return DrainResult()
        recovery = await _take_over(step, Recovery(operations=step.operations, since=step.since))
        selection = ParkedSelection(
            provider=step.provider,
            operation=recovery.operations or None,
            reason=OUTAGE_REASONS,
            parked_since=recovery.since,
            quarantined=False,
        )
        with classified_errors():
            integration = self._deps.catalog.integration(step.provider)
            batches = self._deps.ledger.batches
            groups = await batches.count_parked(selection)
            quarantined = await batches.quarantined(step.provider, MAX_QUARANTINED)
        result = DrainResult(
            recovery=recovery, quarantined=tuple(call.call_id for call in quarantined)
        )
        if not groups:
            return result
        start = self._deps.clock() + SNAPSHOTS_KNOWN_AFTER
        await _start(_batch_id(step), _request(integration, selection, step.reason, start))
        started = recovery.model_copy(update={"batch": _batch_id(step)})
        return result.model_copy(update={"recovery": started})


def _batch_id(step: DrainStep) -> str:
    return names.batch_id(step.provider, f"recovery-{step.version}")


async def _take_over(step: DrainStep, recovery: Recovery) -> Recovery:
    """Stop the batches of unfinished recoveries of these operations; go on with their calls."""
    for previous in step.previous:
        mine, theirs = set(recovery.operations), set(previous.operations)
        if (mine and theirs and not mine & theirs) or previous.batch is None:
            continue
        if await _stop(previous.batch, _batch_id(step)):
            operations = tuple(sorted(mine | theirs)) if mine and theirs else ()
            since = min(recovery.since, previous.since)
            recovery = Recovery(operations=operations, since=since)
    return recovery


async def _stop(batch: str, successor: str) -> bool:
    """Stop a batch that another one replaces; false if it has ended otherwise."""
    if batch == successor:
        return False
    handle = activity.client().get_workflow_handle(batch, result_type=BatchProgress)
    reason = f"{successor} takes its calls over"
    try:
        status = (await handle.describe()).status
        if status is WorkflowExecutionStatus.RUNNING:
            await handle.signal(names.STOP, BatchCommand(by=BREAKER, reason=reason))
            return True
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    if status is not WorkflowExecutionStatus.COMPLETED:
        return False
    # An earlier attempt may have stopped it.
    return reason in ((await handle.result()).why or "")


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


def _request(
    integration: Integration, selection: ParkedSelection, reason: str, start: datetime
) -> BatchRequest:
    """A batch whose rate rises like the breaker's ramp."""
    ramp = (integration.breaker or BreakerPolicy()).ramp
    full_rate = ramp.rate(max(ramp.steps - 1, 0))
    limits = integration.limits
    if limits is not None and limits.requests_per_second is not None:
        full_rate = min(full_rate, limits.requests_per_second)
    return BatchRequest(
        selection=selection,
        rate=_bounded(full_rate),
        concurrency=CONCURRENCY,
        ramp=Ramp(start=_bounded(ramp.start), over=max(ramp.every * ramp.steps, ramp.every)),
        not_before=start,
        by=BREAKER,
        reason=f"parked during an outage: {reason}"[:MAX_REASON_LENGTH],
    )


def _bounded(rate: float) -> float:
    """A rate within the limits of a batch's."""
    return min(max(rate, 0.1), 1000.0)
