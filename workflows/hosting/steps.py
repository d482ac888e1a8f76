"""Every step of a call with its timeouts and retries, in one place."""

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
"""Of asking once before giving up: the caller is waiting."""

TASK_KEPT_OPEN = timedelta(seconds=5)
"""For so long at least a worker keeps a workflow task open that waits for local work; then, at
eight seconds of the engine's ten, it commits what it has."""

PREPARE_WITHIN = timedelta(hours=24)
"""Nothing has been sent yet, so a ledger that stays away this long ends the call."""

MARGIN = timedelta(seconds=5)
"""What an activity needs besides its HTTP exchange: the ledger, a token, the engine."""


PREPARE = Step(
    name=names.PREPARE,
    result=Prepared,
    summary="check the request, claim the key, send",
    lane=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT + MARGIN,
    within=PREPARE_WITHIN,
)

RECONSIDER = Step(
    name=names.RECONSIDER,
    result=AdmissionState,
    summary="ask flags and breaker again",
    lane=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
    within=ASK_WITHIN,
)

RECORD = Step(
    name=names.RECORD,
    result=Recorded,
    summary="write the response and its duplicate index",
    lane=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
)


CONCLUDE = Step(
    name=names.CONCLUDE,
    result=Concluded,
    summary="keep where the call stands",
    lane=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
)

CONCLUDE_FOR_GOOD = replace(CONCLUDE, local_first=False)
"""The end of a call without a response is decided, in history, before the ledger hears of it."""


def record(plan: Plan, *, acknowledges: bool) -> Step[Recorded]:
    """Write the response.

    Args:
        acknowledges: whether its success may be acknowledged with it.
    """
    if plan.poll is not None:
        # An order in a workflow task that is done again would overtake the answer of a poll.
        return replace(RECORD, local_first=False)
    if plan.acknowledge is None or not acknowledges:
        return RECORD
    return replace(
        RECORD,
        summary=f"{RECORD.summary}; acknowledge: success",
        timeout=RECORD.timeout + plan.acknowledge.timeout,
        once_tried=lambda step, *_: step.model_copy(update={"acknowledges": False}),
    )


def send(plan: Plan, cycle: int, *, local: bool) -> Step[Sent]:
    """Send the request, until there is a receipt.

    Args:
        local: whether this one may ride in the workflow task.
    """
    return Step(
        name=names.SEND,
        result=Sent,
        summary=f"send the request (cycle {cycle})",
        lane=TaskQueueKind.SEND,
        timeout=plan.send.timeout + MARGIN,
        attempts=plan.send.attempts,
        within=plan.send.within,
        queue_within=plan.send.queue_within,
        waiting_counts=plan.counts_waiting,
        local_first=plan.send.local and local,
        fairness=plan.send.fairness,
        once_tried=_sent_once,
    )


def _sent_once(step: SendStep, failed: StepError, began: datetime) -> SendStep:
    """The budget counts from the first attempt, and so does what may have reached the provider."""
    return step.model_copy(
        update={
            "tried": step.tried + 1,
            "first_tried_at": began,
            "reached": step.reached or failed.reached,
        }
    )


def ask_status(plan: Plan) -> Step[Asked]:
    """Ask once how the provider's work stands."""
    return Step(
        name=names.ASK_STATUS,
        result=Asked,
        summary="no response in time: ask the provider",
        lane=TaskQueueKind.SETTLE,
        timeout=plan.send.timeout + MARGIN,
        attempts=3,
        within=ASK_WITHIN,
        queue_within=ASK_WITHIN,
        local_first=False,
    )


def poll(poll: PollPlan, within: timedelta) -> Step[Asked]:
    """Ask until there is an answer, or the deadline has come."""
    return Step(
        name=names.POLL,
        result=Asked,
        summary=f"ask the provider every {poll.every.total_seconds():g} s",
        lane=TaskQueueKind.SETTLE,
        # One attempt asks again and again where the pause is short.
        timeout=max(within, poll.timeout) + MARGIN,
        within=within,
        local_first=False,
        silent_for=poll.every + poll.timeout + MARGIN,
        interruption=OnInterrupt.ABANDONED,
    )


def acknowledge_once(
    plan: Plan, acknowledge: AcknowledgePlan, kind: str, *, local: bool
) -> Step[Acknowledged]:
    """The first try of an acknowledgement, which nobody has to wait behind.

    Args:
        local: whether it may ride in the workflow task.
    """
    return Step(
        name=names.ACKNOWLEDGE,
        result=Acknowledged,
        summary=f"acknowledge: {kind}",
        lane=TaskQueueKind.SETTLE,
        timeout=acknowledge.timeout + MARGIN,
        attempts=1,
        queue_within=plan.send.queue_within,
        local_first=plan.send.local and local,
    )


def acknowledge_owed(
    acknowledge: AcknowledgePlan, kind: str, within: timedelta
) -> Step[Acknowledged]:
    """An acknowledgement the provider has not accepted at first; tried for as long as we owe it."""
    return Step(
        name=names.ACKNOWLEDGE,
        result=Acknowledged,
        summary=f"acknowledge: {kind}, owed",
        lane=TaskQueueKind.SETTLE,
        timeout=acknowledge.timeout + MARGIN,
        within=within,
        local_first=False,
        first_retry=timedelta(seconds=1),
    )
