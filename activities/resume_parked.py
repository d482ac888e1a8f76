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
from ackbridge.contracts.breaker import BreakerPolicy, BreakerState, BreakerStatus, MonitorState
from ackbridge.contracts.control import (
    MAX_QUARANTINED,
    WHOLE_PROVIDER,
    DrainResult,
    DrainStep,
    ObserveStep,
    Recovery,
)
from ackbridge.contracts.limits import MAX_REASON_LENGTH, MAX_SUMMARY_LENGTH
from ackbridge.contracts.signals import Reprocess
from ackbridge.ledger.ledger import Ledger
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors

OUTAGE_REASONS = ("breaker_open", "not_sent", "no_receipt", "no_response")
"""Calls that were parked for another reason, such as a flag, are not resumed."""

CONCURRENCY = 50

MAX_TRIED = 100
"""Parked calls that are remembered as probes, so that the next one is another."""

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


class ParkedProbes:
    """Parked calls as probes of half-open breakers that get no other, such as at night."""

    def __init__(self, ledger: Ledger, step: ObserveStep) -> None:
        self._ledger = ledger
        self._step = step
        self._chosen_at: dict[str, datetime] = {}
        self._chosen: set[str] = set()

    async def send(self, state: MonitorState, now: datetime) -> None:
        """Resume the oldest call of every operation that has had no outcome for two intervals."""
        # A name like a batch's: without one, an operator would release the call from quarantine.
        probe = f"probe.{self._step.provider}:{now:%Y%m%dT%H%M%S}"
        for call_id in await self.choose(state, now):
            handle = activity.client().get_workflow_handle(call_id)
            # It may have ended since.
            with contextlib.suppress(RPCError):
                await handle.signal(names.REPROCESS, Reprocess(by=BREAKER, batch=probe))

    async def choose(self, state: MonitorState, now: datetime) -> list[str]:
        """The ids of calls that the outage has parked."""
        chosen = []
        for name, breaker in _probed(self._step).items():
            used = [
                state.operations[one].used_at
                for one in state.operations
                if name in (one, WHOLE_PROVIDER)
            ]
            known = [breaker.since, self._chosen_at.get(name), *used]
            quiet_since = max(at for at in known if at is not None)
            every = breaker.probe_every or BreakerPolicy().probe_every
            if now - quiet_since < 2 * every:
                continue
            self._chosen_at[name] = now
            selection = ParkedSelection(
                provider=self._step.provider,
                operation=name or None,
                reason=OUTAGE_REASONS,
                parked_since=breaker.opened_at,
                quarantined=False,
            )
            chosen += await self._next(selection)
        return chosen

    async def _next(self, selection: ParkedSelection) -> list[str]:
        """The oldest one that was not chosen: others may have been terminated, or not be sent."""
        oldest = await self._ledger.batches.parked(selection, len(self._chosen) + 1)
        untried = [one.call_id for one in oldest if one.call_id not in self._chosen]
        if not untried or len(self._chosen) >= MAX_TRIED:
            # From the beginning.
            self._chosen.clear()
            untried = [one.call_id for one in oldest]
        self._chosen.update(untried[:1])
        return untried[:1]


def _probed(step: ObserveStep) -> dict[str, BreakerStatus]:
    """The breakers that are probed with single sends, by operation; "" for all operations."""
    provider = step.breaker
    is_half_open = provider.state is BreakerState.HALF_OPEN
    if provider.state is BreakerState.OPEN or (is_half_open and not provider.trickle):
        return {}
    failing = {name: one for name, one in step.breakers.items() if not one.is_unrestricted}
    own = {name: one for name, one in failing.items() if one.state is BreakerState.HALF_OPEN}
    return own or ({WHOLE_PROVIDER: provider} if is_half_open else {})


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
