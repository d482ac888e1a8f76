"""Every step of a call with its timeouts and retries."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from .host import OnInterrupt, Step, TaskQueueKind

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.control import AdmissionState
    from ackbridge.contracts.plan import AcknowledgePlan, Plan, PollPlan, Prepared, ResultPlan
    from ackbridge.contracts.steps import (
        POLL_RETRY_FROM,
        Acknowledged,
        Asked,
        Concluded,
        InboxMessages,
        Recorded,
        Sent,
        StepFailure,
    )

LEDGER_TIMEOUT = timedelta(seconds=10)
"""Of one attempt to read or write the ledger."""

ASK_WITHIN = timedelta(minutes=1)
"""Of a single status request: the caller is waiting."""

PREPARE_WITHIN = timedelta(hours=24)
"""Then the call ends: a ledger stayed away, or no worker has what the call needs."""

DELAYED_AFTER = timedelta(seconds=30)
"""When callers are notified that a call waits for a worker that has what it needs."""

SHORTEST_POLL_RETRY = timedelta(milliseconds=500)

POLL_PRIORITY = 4
"""In the settle queue, where everything else has Temporal's default of 3 and goes first."""

MARGIN = timedelta(seconds=5)
"""What an activity needs besides its HTTP exchange: the ledger, a token, the engine."""


def _all_but(*repeated: StepFailure) -> tuple[str, ...]:
    """The engine repeats a send only where nothing was sent."""
    return (
        *(kind for kind in StepFailure if kind not in repeated),
        # An attempt that its worker gave up, or whose worker is gone.
        "CancelledError",
        "TemporalTimeout:StartToClose",
    )


PREPARE = Step(
    name=names.PREPARE,
    result=Prepared,
    summary="check the request, claim the key, send",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT + MARGIN,
    within=PREPARE_WITHIN,
    longest_retry=timedelta(seconds=10),
)

CORRELATE = Step(
    name=names.CORRELATE,
    result=InboxMessages,
    summary="commit the provider's reference, read the inbox",
    queue=TaskQueueKind.MAIN,
    timeout=LEDGER_TIMEOUT,
    local_first=False,
    longest_retry=timedelta(seconds=10),
)

LOOK_INBOX = replace(CORRELATE, name=names.LOOK_INBOX, summary="look for an answer in the inbox")
"""In history before anything is decided by it."""

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
        after_first_attempt=lambda step, _: step.model_copy(update={"acknowledges": False}),
    )


def send(plan: Plan, cycle: int, queue_within: timedelta) -> Step[Sent]:
    """One attempt to send the request.

    The protocol repeats it: an attempt that does not report back must not be repeated by the engine
    where the request may not. The engine repeats only the wait for a lease, which sends nothing.

    Args:
        queue_within: how long it may wait for a worker.
    """
    return Step(
        name=names.SEND,
        result=Sent,
        summary=f"send the request (cycle {cycle})",
        queue=TaskQueueKind.SEND,
        timeout=plan.send.timeout + (2 * MARGIN if plan.send.leased else MARGIN),
        attempts=None if plan.send.leased else 1,
        queue_within=queue_within,
        local_first=False,
        fairness=plan.send.fairness,
        not_repeated=_all_but(StepFailure.HELD_BACK) if plan.send.leased else (),
    )


def send_when_possible(
    plan: Plan, cycle: int, queue_within: timedelta, within: timedelta
) -> Step[Sent]:
    """One attempt to send the request, as soon as a worker has what one of them lacked.

    The engine repeats it until then, and while the request is held back: those tries are not in
    history, however long it takes, and nothing is sent in any of them.

    Args:
        queue_within: as in `send`, of each try.
        within: of all tries.
    """
    queue_within = min(queue_within, within)
    return replace(
        send(plan, cycle, queue_within),
        attempts=None,
        # The engine adds the time in the queue.
        within=max(within - queue_within, timedelta(seconds=1)),
        not_repeated=_all_but(StepFailure.MISSING, StepFailure.HELD_BACK),
    )


NO_RESPONSE = "no response in time"
DOORBELL = "a callback says that there is something"


def ask_status(plan: Plan, why: str = NO_RESPONSE) -> Step[Asked]:
    """Ask the provider for the status of its work, once."""
    return Step(
        name=names.ASK_STATUS,
        result=Asked,
        summary=f"{why}: ask the provider",
        queue=TaskQueueKind.SETTLE,
        timeout=plan.send.timeout + MARGIN,
        attempts=3,
        within=ASK_WITHIN,
        queue_within=ASK_WITHIN,
        local_first=False,
    )


def poll(plan: PollPlan, within: timedelta) -> Step[Asked]:
    """Ask the provider regularly until it has an answer, or `within` is over."""
    is_short = plan.every < POLL_RETRY_FROM
    return Step(
        name=names.POLL,
        result=Asked,
        summary=f"ask the provider every {plan.every.total_seconds():g} s",
        queue=TaskQueueKind.SETTLE,
        # Where the pause is short, one attempt asks several times.
        timeout=(max(within, plan.timeout) if is_short else plan.timeout) + MARGIN,
        within=within,
        local_first=False,
        # After an attempt that did not report back. All others say when the next one is due.
        first_retry=max(plan.every, SHORTEST_POLL_RETRY),
        longest_retry=max(plan.every, SHORTEST_POLL_RETRY),
        heartbeat_timeout=plan.every + plan.timeout + MARGIN if is_short else None,
        on_interrupt=OnInterrupt.ABANDONED,
        priority=POLL_PRIORITY,
    )


def fetch_result(plan: ResultPlan, within: timedelta) -> Step[Asked]:
    """Fetch the result of work that the provider has done."""
    return Step(
        name=names.FETCH_RESULT,
        result=Asked,
        summary="the work is done: fetch its result",
        queue=TaskQueueKind.SETTLE,
        timeout=plan.timeout + MARGIN,
        within=within,
        local_first=False,
        first_retry=timedelta(milliseconds=500),
    )


def acknowledges_locally(plan: Plan) -> bool:
    """Whether the first attempt to acknowledge may be a local activity."""
    if plan.acknowledge is None or plan.acknowledge.local is None:
        return plan.send.local
    return plan.acknowledge.local


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
        local_first=acknowledges_locally(plan) and local,
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
