"""The activities `prepare` and `reconsider`: check a request, claim its key, decide the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.catalog.catalog import check_payload, configured_flags, next_batch
from ackbridge.catalog.model import Integration, Operation, PollSpec
from ackbridge.catalog.rendering import amount, fairness_key, render_notice
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, Notice, OutcomeStatus, masked
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.deliveries import ReplyPlan
from ackbridge.contracts.notices import CALLER_KINDS, NOTICE_KINDS, default_notices
from ackbridge.contracts.plan import (
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    OnFailure,
    Plan,
    PollPlan,
    Prepared,
    ReconcilePlan,
    ResponseMode,
    ResultPlan,
    SendPlan,
    WhenOff,
)
from ackbridge.contracts.steps import (
    FailedAttempt,
    PrepareStep,
    ReconsiderStep,
    SendStep,
    Sent,
    StepFailure,
)
from ackbridge.errors import SecretError, UnknownNameError
from ackbridge.ledger.calls import Claim, ClaimKind
from ackbridge.temporal.connect import RPC_TIMEOUT
from activities.support.counters import counting_failures
from activities.support.dependencies import Dependencies
from activities.support.provider_http import quota_key
from activities.support.retry import (
    MAX_MISSING_INTERVAL,
    Classification,
    activity_failure,
    classified_errors,
    failed_attempt,
    require_time,
    retry_delay,
)

from .send import Send, call_deadline

SEND_AFTER_AT_MOST = timedelta(seconds=1)
"""A slower ledger has used up the time for a request in the same workflow task."""

SEND_FOR_AT_MOST = timedelta(seconds=5)
"""A request with a longer timeout is an activity of its own."""

LARGE_PAYLOAD = 32 * 1024
"""Bytes of a request from which its payload is validated beside the event loop: at most, that takes
some seconds."""


class Prepare:
    """The first step of a call; nothing is sent before it succeeds."""

    def __init__(self, deps: Dependencies, send: Send) -> None:
        self._deps = deps
        self._send = send

    @activity.defn(name=names.PREPARE)
    async def prepare(self, step: PrepareStep) -> Prepared:
        """Claim the call and return its plan, or the outcome it already has.

        If the step says so and the plan allows it, the first request is sent in the same activity.
        A failed attempt is part of the result: the plan stands all the same.

        Raises:
            ApplicationError: InvalidRequest, naming the field, KeyReused, or Expired, after which
                the call is claimed; all final. HostedElsewhere: another workflow conducts the
                call. Missing, retryable: this worker lacks the provider, the operation, the
                subscriber or a secret; nothing is claimed. The details say whether the call was
                claimed before, and its request may have been sent.
        """
        started_at = self._deps.clock()
        request = step.request
        with counting_failures(self._deps, request), classified_errors():
            await self._check_claimable(request)
            claim = await self._claim(step)
            await self._commit_short_id(request)
        if claim.kind is ClaimKind.REUSED:
            reason = f"key: {request.call_id} already belongs to a call with another payload"
            raise activity_failure(StepFailure.KEY_REUSED, reason, final=True)
        if claim.outcome is not None and claim.kind is ClaimKind.RECORDED:
            return Prepared(recorded=claim.outcome)
        if claim.kind is ClaimKind.FRESH:
            with classified_errors():
                require_time(request, self._deps.clock())
        plan = await self._plan(request)
        repeated = claim.kind is ClaimKind.HELD and self._may_have_sent(request)
        prepared = Prepared(
            plan=plan,
            repeated=repeated,
            recorded=_recorded_success(claim),
            taken_over=claim.taken_over,
            first_claimed_at=claim.first_claimed_at,
            reference=claim.reference,
        )
        is_slow = self._deps.clock() - started_at >= SEND_AFTER_AT_MOST
        may_send = step.sends and claim.kind is ClaimKind.FRESH and not is_slow
        if not (may_send and _fits_workflow_task(plan)):
            return prepared
        with self._deps.rides.ride(request.provider) as may_ride:
            if not may_ride:
                return prepared
            return prepared.model_copy(update={"sent": await self._first_attempt(request)})

    @activity.defn(name=names.RECONSIDER)
    async def reconsider(self, step: ReconsiderStep) -> AdmissionState:
        """Evaluate flags and breaker again, for a parked call.

        Raises:
            ApplicationError: Missing: this worker does not know the operation.
        """
        request = step.request
        with classified_errors():
            integration = self._deps.catalog.integration(request.provider)
            operation = self._deps.catalog.operation(request.provider, request.operation)
        return await self._deps.admission.evaluate(
            request, configured_flags(integration), operation.without_control
        )

    async def _claim(self, step: PrepareStep) -> Claim:
        """Claim the call; take it over from a workflow that has ended without an outcome."""
        calls, request = self._deps.ledger.calls, step.request
        claim = await calls.claim(request, step.run_chain, step.host)
        while claim.kind is ClaimKind.ELSEWHERE:
            # A call may have moved from its host into a workflow of its own, and not the other way.
            for workflow_id in (claim.host, request.call_id):
                if workflow_id is not None and await _is_running_elsewhere(workflow_id):
                    raise activity_failure(
                        StepFailure.HOSTED_ELSEWHERE,
                        f"{workflow_id} conducts this call",
                        final=step.host is not None,
                        delay=retry_delay(activity.info().attempt, maximum=MAX_MISSING_INTERVAL),
                        code=workflow_id,
                    )
            claim = await calls.claim(
                request, step.run_chain, step.host, ended_chain=claim.run_chain
            )
        return claim

    async def _check_claimable(self, request: CallRequest) -> None:
        """As `_check`; what this worker lacks says whether the call was claimed before."""
        try:
            await self._check(request)
        except (UnknownNameError, SecretError) as error:
            if await self._deps.ledger.calls.get(request.call_id) is None:
                raise
            missing = Classification(StepFailure.MISSING, str(error), reached=True)
            raise missing.failure(activity.info().attempt) from None

    async def _check(self, request: CallRequest) -> None:
        size = request.check_size()
        catalog = self._deps.catalog
        operation = catalog.operation(request.provider, request.operation)
        if size > LARGE_PAYLOAD:
            await asyncio.to_thread(check_payload, operation, request.payload)
        else:
            check_payload(operation, request.payload)
        if request.reply_to is not None:
            catalog.subscriber(request.reply_to)
        for user, secret in self._deps.credentials[request.provider]:
            self._deps.secrets.text(user)
            self._deps.secrets.resolve(secret)

    async def _commit_short_id(self, request: CallRequest) -> None:
        """Let callbacks find the call by its short id, where the provider gets that."""
        if self._deps.catalog.operation(request.provider, request.operation).sends_short_id:
            short = names.short_call_id(request.call_id)
            calls = self._deps.ledger.calls
            await calls.commit_reference(request.call_id, request.provider, short)

    async def _plan(self, request: CallRequest) -> Plan:
        """Decide every timeout, attempt and deadline of a call, and why."""
        deps = self._deps
        deps.secrets.use_in_task()
        integration = deps.catalog.integration(request.provider)
        operation = integration.operations[request.operation]
        admission = await deps.admission.evaluate(
            request, configured_flags(integration), operation.without_control
        )
        response = operation.response
        # Admission has just refreshed the snapshot.
        deadline = call_deadline(deps, request, deps.snapshots.latest(request.provider))
        context = deps.template_context(request, cycle=1)
        return Plan(
            mode=ResponseMode(response.mode),
            send=SendPlan(
                local=operation.request.is_repeatable
                and _may_be_local(integration, admission)
                and not deps.counters.quotas.is_slowed(quota_key(deps, request), deps.clock()),
                timeout=operation.receipt.timeout,
                attempts=operation.receipt.attempts,
                within=operation.receipt.within,
                queue_within=operation.queue_within,
                fairness=fairness_key(operation, context),
                leased=integration.limits is not None and integration.limits.is_leased,
                looks_when_refused=ResponseMode(response.mode) is not ResponseMode.SYNC,
            ),
            deadline=deadline.deadline,
            deadline_reason=deadline.reason,
            delayed_after=deadline.delayed_after,
            ceiling=response.deadline.ceiling,
            ask_status=response.status is not None,
            poll=_poll_plan(operation),
            acknowledge=_acknowledge_plan(integration, operation),
            cycles=response.cycles,
            on_failure=OnFailure(operation.on_failure),
            late=LatePolicy(response.late),
            late_window=response.late_window,
            parked_for=operation.parked_for,
            notices=self._notices(request, operation, context),
            not_now=admission.not_now,
            standing=admission,
            # What waits for its control is sent as soon as that allows it.
            when_off=WhenOff.PARK if admission.awaits_control else operation.when_off,
            indexed=deps.has_search_attributes,
            revision=REVISION,
            reprocess_attempts=operation.reprocess.attempts,
            next_batches=_next_two_batches(integration, request.operation, deps.clock()),
            reply=self._reply_plan(request),
            repeatable=operation.request.is_repeatable,
            undoes=operation.acknowledge is None or operation.acknowledge.undoes,
            key_retention=operation.request.key.retention if operation.request.key else None,
            reconcile=_reconcile_plan(operation),
            park=operation.parked_codes,
            amount=amount(operation, context),
            result=_result_plan(operation),
            sensitive=operation.sensitive,
        )

    def _notices(
        self, request: CallRequest, operation: Operation, context: Mapping[str, object]
    ) -> dict[str, Notice]:
        """The operation's own notices, or the default ones."""
        kinds = NOTICE_KINDS if request.reply_to else CALLER_KINDS
        defaults = default_notices(request.language)
        return {
            kind: own_notice(self._deps, request, operation, context, kind) or defaults[kind]
            for kind in kinds
        }

    def _reply_plan(self, request: CallRequest) -> ReplyPlan | None:
        if request.reply_to is None:
            return None
        subscriber = self._deps.catalog.subscriber(request.reply_to)
        return ReplyPlan(
            subscriber=subscriber.subscriber,
            events=subscriber.events,
            timeout=subscriber.timeout,
            within=subscriber.within,
        )

    def _may_have_sent(self, request: CallRequest) -> bool:
        """Whether a `prepare` before may have sent; limits that adapt may have changed since."""
        limits = self._deps.catalog.integration(request.provider).limits
        return limits is None or not limits.restricts_sends

    async def _first_attempt(self, request: CallRequest) -> Sent | FailedAttempt:
        try:
            return await self._send.attempt(SendStep(request=request, cycle=1))
        except ApplicationError as error:
            return failed_attempt(error)


def own_notice(
    deps: Dependencies,
    request: CallRequest,
    operation: Operation,
    context: Mapping[str, object],
    kind: str,
) -> Notice | None:
    """The operation's own notice of a kind; None where it has none, or it has no usable value."""
    text = getattr(operation.notices, kind, None)
    if text is None:
        return None
    known = {name: context[name] for name in ("payload", "metadata", "call")}
    known = masked(known, operation.sensitive)
    return render_notice(kind, text, known, request.language, deps.redactor(request).clean_value)


async def _is_running_elsewhere(workflow_id: str) -> bool:
    """Whether another workflow than this activity's is running."""
    if workflow_id == activity.info().workflow_id:
        return False
    handle = activity.client().get_workflow_handle(workflow_id)
    try:
        described = await handle.describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        reason = f"the engine answers {error.status.name}"
        raise activity_failure(StepFailure.UNAVAILABLE, reason, final=False) from None
    return described.status is WorkflowExecutionStatus.RUNNING


def _fits_workflow_task(plan: Plan) -> bool:
    """Whether a request ends well before Temporal's timeout of the workflow task."""
    return plan.send.local and plan.not_now is None and plan.send.timeout <= SEND_FOR_AT_MOST


def _recorded_success(claim: Claim) -> CallOutcome | None:
    """The response that this run chain recorded in a workflow task that was lost."""
    outcome = claim.outcome
    return outcome if outcome and outcome.status is OutcomeStatus.COMPLETED else None


def _next_two_batches(
    integration: Integration, operation: str, now: datetime
) -> tuple[datetime, ...]:
    """The next two scheduled batches: the first may begin before the call is parked."""
    if integration.reprocess is None or integration.reprocess.older_than is not None:
        return ()
    first = next_batch(integration, operation, now)
    second = first and next_batch(integration, operation, first)
    return tuple(batch for batch in (first, second) if batch is not None)


def _may_be_local(integration: Integration, admission: AdmissionState) -> bool:
    """Whether sends need no rate limit and no dedicated egress, so that any worker may send."""
    limits = integration.limits
    is_limited = (limits is not None and limits.restricts_sends) or admission.throttled
    return not is_limited and integration.egress == "shared"


def _acknowledge_plan(integration: Integration, operation: Operation) -> AcknowledgePlan | None:
    acknowledge = operation.acknowledge
    if acknowledge is None:
        return None
    return AcknowledgePlan(
        timeout=acknowledge.timeout,
        within=acknowledge.within,
        on_success=acknowledge.success is not None,
        asks_after=True,
        on_failed=acknowledge.failed is not None,
        # Limits are for sends: its queue has none.
        local=operation.request.is_repeatable and integration.egress == "shared",
    )


def _poll_plan(operation: Operation) -> PollPlan | None:
    poll = operation.response.poll
    if poll is None and operation.response.mode == "poll":
        poll = PollSpec()
    if poll is None:
        return None
    is_beside = operation.response.mode == "callback"
    return PollPlan(
        every=poll.every,
        timeout=operation.receipt.timeout,
        first_after=poll.every if is_beside else timedelta(0),
    )


def _result_plan(operation: Operation) -> ResultPlan | None:
    result = operation.response.result
    return None if result is None else ResultPlan(timeout=result.timeout, within=result.within)


def _reconcile_plan(operation: Operation) -> ReconcilePlan | None:
    reconcile = operation.reconcile
    if reconcile is None:
        return None
    return ReconcilePlan(every=reconcile.every, within=reconcile.within)
