"""From an operation and a request to the plan of a call. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ackbridge.catalog.catalog import next_batch
from ackbridge.catalog.model import Integration, Operation, PollSpec
from ackbridge.catalog.rendering import render_notice
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.catalog.templates import Clean
from ackbridge.contracts.calls import Notice
from ackbridge.contracts.control import AdmissionState, LearnedDeadline
from ackbridge.contracts.deliveries import ReplyPlan
from ackbridge.contracts.notices import CALLER_KINDS, NOTICE_KINDS, default_notices
from ackbridge.contracts.plan import (
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    OnFailure,
    Plan,
    PollPlan,
    ResponseMode,
    SendPlan,
)
from ackbridge.contracts.wire import digest
from ackbridge.control.deadlines import deadline_for

LONGEST_FAIRNESS = 64
"""Bytes of a fairness key that the engine takes."""


def plan_call(
    integration: Integration,
    operation: Operation,
    *,
    standing: AdmissionState,
    indexed: bool,
    context: Mapping[str, object],
    learned: LearnedDeadline | None = None,
    language: str | None = None,
    subscriber: Subscriber | None = None,
    clean: Clean | None = None,
    next_batches: tuple[datetime, ...] = (),
    lot: float = 1.0,
) -> Plan:
    """Decide every timeout, attempt and deadline of a call, and say why.

    Args:
        standing: how the flags and the breaker stand for this call.
        context: what the templates of the notices may refer to.
        learned: what the provider's control says of the operation's deadline.
        language: of the notices.
        subscriber: who is told what becomes of the call.
        clean: what every value goes through before a notice shows it.
        next_batches: as `batches_ahead` finds them.
        lot: the call's own, from 0 to 1; see `deadline_for`.
    """
    response = operation.response
    deadline, why = deadline_for(
        response.deadline.rules, learned, response.deadline.before_learning, lot
    )
    return Plan(
        mode=ResponseMode(response.mode),
        send=SendPlan(
            local=_may_be_local(integration, standing),
            timeout=operation.receipt.timeout,
            attempts=operation.receipt.attempts,
            within=operation.receipt.within,
            queue_within=operation.queue_within,
            fairness=_fairness(operation, context),
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
        notices=_notices(
            operation, NOTICE_KINDS if subscriber else CALLER_KINDS, language, context, clean
        ),
        not_now=standing.not_now,
        standing=standing,
        when_off=operation.when_off,
        indexed=indexed,
        revision=REVISION,
        reprocess_attempts=operation.reprocess.attempts,
        next_batches=next_batches,
        reply=_reply_plan(subscriber),
    )


def _reply_plan(subscriber: Subscriber | None) -> ReplyPlan | None:
    if subscriber is None:
        return None
    return ReplyPlan(
        subscriber=subscriber.subscriber,
        events=subscriber.events,
        timeout=subscriber.timeout,
        within=subscriber.within,
    )


def _may_be_local(integration: Integration, standing: AdmissionState) -> bool:
    """Whether no rate is bounded, now or ever, and any worker may speak to the provider."""
    has_bounds = integration.limits is not None or standing.throttled
    return not has_bounds and integration.egress == "shared"


def _fairness(operation: Operation, context: Mapping[str, object]) -> str | None:
    """Whose turn a send takes; a long name is known by its digest. None: nobody's in particular."""
    if operation.fairness is None:
        return None
    whose = operation.fairness.search(context)
    if isinstance(whose, bool) or not isinstance(whose, str | int | float) or whose == "":
        return None
    name = str(whose)
    return name if len(name.encode()) <= LONGEST_FAIRNESS else digest(name)[:LONGEST_FAIRNESS]


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
    poll = operation.response.poll or PollSpec()
    return PollPlan(every=poll.every, timeout=operation.receipt.timeout)


def _notices(
    operation: Operation,
    kinds: Sequence[str],
    language: str | None,
    context: Mapping[str, object],
    clean: Clean | None,
) -> dict[str, Notice]:
    """The operation's notices, or default ones; the providers' own words are not known to them."""
    known = {name: context[name] for name in ("payload", "metadata", "call")}
    defaults = default_notices(language)
    texts = {kind: getattr(operation.notices, kind) for kind in kinds}
    own = {
        kind: render_notice(kind, written, known, language, clean)
        for kind, written in texts.items()
        if written is not None
    }
    return {kind: own.get(kind) or defaults[kind] for kind in kinds}
