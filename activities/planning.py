"""From an operation and a request to the plan of a call. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ackbridge.catalog import Integration, Operation, Poll, next_batch, render_notice
from ackbridge.contracts import (
    DEFAULT_NOTICES,
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    LearnedDeadline,
    Notice,
    OnFailure,
    Plan,
    PollPlan,
    ResponseMode,
    SendPlan,
    Standing,
)
from ackbridge.control.deadlines import deadline_for


def plan_call(
    integration: Integration,
    operation: Operation,
    *,
    standing: Standing,
    indexed: bool,
    context: Mapping[str, object],
    next_batches: tuple[datetime, ...] = (),
    learned: LearnedDeadline | None = None,
    lot: float = 1.0,
) -> Plan:
    """Decide every timeout, attempt and deadline of a call, and say why.

    Args:
        standing: how the flags and the breaker stand for this call.
        context: what the templates of the notices may refer to.
        next_batches: as `batches_ahead` finds them.
        learned: what the provider's control says of the operation's deadline.
        lot: the call's own, from 0 to 1; see `deadline_for`.
    """
    response = operation.response
    deadline, why = deadline_for(response.deadline.rules, learned, response.deadline.at_first, lot)
    return Plan(
        mode=ResponseMode(response.mode),
        send=SendPlan(
            local=integration.limits is None and integration.egress == "shared",
            timeout=operation.receipt.timeout,
            attempts=operation.receipt.attempts,
            within=operation.receipt.within,
            queue_within=operation.queue_within,
        ),
        deadline=deadline,
        deadline_reason=why,
        ceiling=response.deadline.ceiling,
        ask_status=response.status is not None,
        poll=_poll_plan(operation),
        acknowledge=_acknowledge_plan(operation),
        cycles=response.cycles,
        on_failure=OnFailure(operation.on_failure),
        late=LatePolicy(response.late),
        late_window=response.late_window,
        parked_for=operation.parked_for,
        notices={**DEFAULT_NOTICES, **_notices(operation, context)},
        not_now=standing.not_now,
        standing=standing,
        when_off=operation.when_off,
        indexed=indexed,
        owed_indexed=indexed,
        revision=REVISION,
        reprocess_attempts=operation.reprocess.attempts,
        next_batches=next_batches,
    )


def batches_ahead(integration: Integration, operation: str, now: datetime) -> tuple[datetime, ...]:
    """The next two: the first may begin before the call is parked."""
    if integration.reprocess is None or integration.reprocess.older_than is not None:
        return ()
    first = next_batch(integration, operation, now)
    second = first and next_batch(integration, operation, first)
    return tuple(batch for batch in (first, second) if batch is not None)


def _acknowledge_plan(operation: Operation) -> AcknowledgePlan | None:
    acknowledge = operation.acknowledge
    if acknowledge is None:
        return None
    return AcknowledgePlan(
        timeout=acknowledge.timeout,
        within=acknowledge.within,
        on_success=acknowledge.success is not None,
        on_failed=acknowledge.failed is not None,
    )


def _poll_plan(operation: Operation) -> PollPlan | None:
    if operation.response.mode != "poll":
        return None
    poll = operation.response.poll or Poll()
    return PollPlan(every=poll.every, timeout=operation.receipt.timeout)


def _notices(operation: Operation, context: Mapping[str, object]) -> dict[str, Notice]:
    """The notices the operation has texts for; the providers' own words are not known to them."""
    known = {name: context[name] for name in ("payload", "metadata", "call")}
    return {
        kind: notice
        for kind in DEFAULT_NOTICES
        if (text := getattr(operation.notices, kind)) is not None
        and (notice := render_notice(kind, text, known)) is not None
    }
