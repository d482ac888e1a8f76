"""Every step of a call with its timeouts and retries."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow

from .host import OnInterrupt, Step, StepError, TaskQueueKind

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.control import AdmissionState
    from ackbridge.contracts.plan import AcknowledgePlan, Plan, PollPlan, Prepared
    from ackbridge.contracts.steps import Acknowledged, Asked, Concluded, Recorded, SendStep, Sent

LEDGER_TIMEOUT = timedelta(seconds=10)
"""Of one attempt to read or write the ledger."""

ASK_WITHIN = timedelta(minutes=1)
"""Of a single status request: the caller is waiting."""

WORKFLOW_TASK_OPEN_FOR = timedelta(seconds=5)
"""A worker keeps a workflow task open for at least this long while a local activity runs. After
eight of the engine's ten seconds it commits what it has."""

PREPARE_WITHIN = timedelta(hours=24)
"""Nothing has been sent yet, so a ledger that stays away this long ends the call."""

MARGIN = timedelta(seconds=5)
"""What an activity needs besides its HTTP exchange: the ledger, a token, the engine."""


PREPARE = Step(
    name=names.PREPARE,
    result=Prepared,
    summary="check the request, claim the key, send",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT + MARGIN,
    within=PREPARE_WITHIN,
)

RECONSIDER = Step(
    name=names.RECONSIDER,
    result=AdmissionState,
    summary="check flags and breaker again",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
    within=ASK_WITHIN,
)

RECORD = Step(
    name=names.RECORD,
    result=Recorded,
    summary="record the response",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
)

CONCLUDE = Step(
    name=names.CONCLUDE,
    result=Concluded,
    summary="store the state of the call",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
)

CONCLUDE_FOR_GOOD = replace(CONCLUDE, local_first=False)
"""For an end without a response: it must be in history before it is in the ledger, or a lost
workflow task could decide otherwise."""


def record(plan: Plan, *, acknowledges: bool) -> Step[Recorded]:
    """Record the response.

    Args:
        acknowledges: whether the same activity may acknowledge it.
    """
    if plan.poll is not None:
        # In a workflow task that is done again, a cancel would overtake the response of a poll.
        return replace(RECORD, local_first=False)
    if plan.acknowledge is None or not acknowledges:
        return RECORD
    return replace(
        RECORD,
        summary="record the response; acknowledge: success",
        timeout=RECORD.timeout + plan.acknowledge.timeout,
        after_first_attempt=lambda step, *_: step.model_copy(update={"acknowledges": False}),
    )


def send(plan: Plan, cycle: int, *, local: bool) -> Step[Sent]:
    """Send the request until there is a receipt.

    Args:
        local: whether the first attempt may be a local activity.
    """
    return Step(
        name=names.SEND,
        result=Sent,
        summary=f"send the request (cycle {cycle})",
        queue=TaskQueueKind.SEND,
        timeout=plan.send.timeout + MARGIN,
        attempts=plan.send.attempts,
        within=plan.send.within,
        queue_within=plan.send.queue_within,
        counts_queue_time=True,
        local_first=plan.send.local and local,
        fairness=plan.send.fairness,
        after_first_attempt=_send_again,
    )


def _send_again(step: SendStep, error: StepError, started_at: datetime) -> SendStep:
    return step.model_copy(
        update={
            "tried": step.tried + 1,
            "first_tried_at": started_at,
            "reached": step.reached or error.reached,
        }
    )


def ask_status(plan: Plan) -> Step[Asked]:
    """Ask the provider for the status of its work, once."""
    return Step(
        name=names.ASK_STATUS,
        result=Asked,
        summary="no response in time: ask the provider",
        queue=TaskQueueKind.SETTLE,
        timeout=plan.send.timeout + MARGIN,
        attempts=3,
        within=ASK_WITHIN,
        queue_within=ASK_WITHIN,
        local_first=False,
    )


def poll(plan: PollPlan, within: timedelta) -> Step[Asked]:
    """Ask the provider regularly until it has an answer, or `within` is over."""
    return Step(
        name=names.POLL,
        result=Asked,
        summary=f"ask the provider every {plan.every.total_seconds():g} s",
        queue=TaskQueueKind.SETTLE,
        # Where the pause is short, one attempt asks several times.
        timeout=max(within, plan.timeout) + MARGIN,
        within=within,
        local_first=False,
        heartbeat_timeout=plan.every + plan.timeout + MARGIN,
        on_interrupt=OnInterrupt.ABANDONED,
    )


def acknowledge_once(
    plan: Plan, acknowledge: AcknowledgePlan, kind: str, *, local: bool
) -> Step[Acknowledged]:
    """The first attempt of an acknowledgement, which the call waits for.

    Args:
        local: whether it may be a local activity.
    """
    return Step(
        name=names.ACKNOWLEDGE,
        result=Acknowledged,
        summary=f"acknowledge: {kind}",
        queue=TaskQueueKind.SETTLE,
        timeout=acknowledge.timeout + MARGIN,
        attempts=1,
        queue_within=plan.send.queue_within,
        local_first=plan.send.local and local,
    )


def acknowledge_pending(
    acknowledge: AcknowledgePlan, kind: str, within: timedelta
) -> Step[Acknowledged]:
    """All further attempts of an acknowledgement that was not accepted at first."""
    return Step(
        name=names.ACKNOWLEDGE,
        result=Acknowledged,
        summary=f"acknowledge: {kind}, again until accepted",
        queue=TaskQueueKind.SETTLE,
        timeout=acknowledge.timeout + MARGIN,
        within=within,
        local_first=False,
        first_retry=timedelta(seconds=1),
    )
