"""prepare: check the request, claim the call, decide the plan; and send, where that may ride."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.catalog import check_payload, configured_flags
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus
from ackbridge.contracts.control import LearnedDeadline
from ackbridge.contracts.plan import Plan, Prepared
from ackbridge.contracts.steps import FailedAttempt, PrepareStep, SendStep, Sent, StepFailure
from ackbridge.contracts.wire import canonical_json
from ackbridge.errors import UnknownNameError
from ackbridge.ledger.calls import Claim, ClaimKind
from activities.support.counters import noted
from activities.support.dependencies import Dependencies
from activities.support.planning import batches_ahead, plan_call
from activities.support.retry import classified, failure, setback

from .send import Send

MAX_REQUEST_BYTES = 512 * 1024
"""A request larger than this would make the engine retry an oversized payload for ever."""

SENDS_ALONG_WITHIN = timedelta(seconds=1)
"""A ledger that took longer than this has used up the time for a request in the same task."""

SENDS_ALONG_FOR = timedelta(seconds=5)
"""A request that may take longer goes out in a step of its own."""


class Prepare:
    """Nothing is sent before this has agreed."""

    def __init__(self, provisions: Dependencies, send: Send) -> None:
        self._with = provisions
        self._send = send

    @activity.defn(name=names.PREPARE)
    async def prepare(self, step: PrepareStep) -> Prepared:
        """Answer with the plan of a call, or with the outcome it already had.

        Where the step wishes it and nothing stands against it, the first request goes out as well;
        that it has failed is part of the answer, because the plan stands all the same.

        Raises:
            ApplicationError: InvalidRequest naming the field, or KeyReused; both final.
        """
        began = self._with.clock()
        request = step.request
        with noted(self._with, request), classified():
            self._check(step)
            claim = await self._with.ledger.calls.claim(request, step.run_chain)
        if claim.kind is ClaimKind.REUSED:
            reason = f"key: {request.call_id} already belongs to a call with another payload"
            raise failure(StepFailure.KEY_REUSED, reason, final=True)
        if claim.outcome is not None and claim.kind is ClaimKind.RECORDED:
            return Prepared(recorded=claim.outcome)
        integration = self._with.catalog.integration(request.provider)
        plan = plan_call(
            integration,
            integration.operations[request.operation],
            standing=await self._with.gate.evaluate(request, configured_flags(integration)),
            indexed=self._with.indexed,
            context=self._with.context(request, cycle=1),
            language=request.language,
            subscriber=self._subscriber(request),
            clean=self._with.redactor(request.provider).clean_value,
            next_batches=batches_ahead(integration, request.operation, self._with.clock()),
            learned=self._learned(request),
            lot=_lot(request),
        )
        prepared = Prepared(
            plan=plan, repeated=claim.kind is ClaimKind.HELD, recorded=_captured(claim)
        )
        is_fresh = claim.kind is ClaimKind.FRESH and self._with.clock() - began < SENDS_ALONG_WITHIN
        if not (step.sends and is_fresh and _may_ride(plan)):
            return prepared
        return prepared.model_copy(update={"sent": await self._sent(request)})

    async def _sent(self, request: CallRequest) -> Sent | FailedAttempt:
        """The first attempt of the first cycle; the others are the workflow's to ask for."""
        try:
            return await self._send.send(SendStep(request=request, cycle=1))
        except ApplicationError as error:
            return setback(error)

    def _learned(self, request: CallRequest) -> LearnedDeadline | None:
        """What the control says of the operation's deadline; the gate has just looked at it."""
        control = self._with.control.latest(request.provider)
        return control.deadlines.get(request.operation) if control else None

    def _subscriber(self, request: CallRequest) -> Subscriber | None:
        return self._with.catalog.subscriber(request.reply_to) if request.reply_to else None

    def _check(self, step: PrepareStep) -> None:
        request = step.request
        try:
            operation = self._with.catalog.operation(request.provider, request.operation)
            if request.reply_to is not None:
                self._with.catalog.subscriber(request.reply_to)
        except UnknownNameError as error:
            raise failure(StepFailure.INVALID_REQUEST, str(error), final=True) from None
        size = len(canonical_json(request.payload))
        if size > MAX_REQUEST_BYTES:
            reason = f"payload: {size} bytes of JSON, at most {MAX_REQUEST_BYTES} are allowed"
            raise failure(StepFailure.INVALID_REQUEST, reason, final=True)
        check_payload(operation, request.payload)


def _lot(request: CallRequest) -> float:
    """From 0 to 1, the same whenever the call is prepared; other digits draw for percentages."""
    return int(request.digest[-8:], 16) / 16**8


def _may_ride(plan: Plan) -> bool:
    """Whether a request ends well before the engine takes the workflow task for lost."""
    return plan.send.local and plan.not_now is None and plan.send.timeout <= SENDS_ALONG_FOR


def _captured(claim: Claim) -> CallOutcome | None:
    """The outcome of a response that this run chain has recorded, and does not know of any more."""
    outcome = claim.outcome
    return outcome if outcome and outcome.status is OutcomeStatus.COMPLETED else None
