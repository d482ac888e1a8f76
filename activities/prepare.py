"""prepare: check the request, claim the call, decide the plan."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog import Subscriber, check_payload, configured_flags
from ackbridge.contracts import (
    CallOutcome,
    CallRequest,
    OutcomeStatus,
    Prepared,
    PrepareStep,
    StepFailure,
    names,
)
from ackbridge.contracts.wire import canonical_json
from ackbridge.errors import UnknownName
from ackbridge.ledger import Claim

from .failures import classified, failure
from .planning import batches_ahead, plan_call
from .provisions import Provisions

MAX_REQUEST_BYTES = 512 * 1024
"""A request larger than this would make the engine retry an oversized payload for ever."""


class Prepare:
    """Nothing is sent before this has agreed."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.PREPARE)
    async def prepare(self, step: PrepareStep) -> Prepared:
        """Answer with the plan of a call, or with the outcome it already had.

        Raises:
            ApplicationError: InvalidRequest naming the field, or KeyReused; both final.
        """
        request = step.request
        with classified():
            self._check(step)
            claim = await self._with.ledger.claim(request, step.run_chain)
        if claim.kind == "reused":
            reason = f"key: {request.call_id} already stands for a call with another payload"
            raise failure(StepFailure.KEY_REUSED, reason, final=True)
        if claim.outcome is not None and claim.kind == "recorded":
            return Prepared(recorded=claim.outcome)
        integration = self._with.catalog.integration(request.provider)
        plan = plan_call(
            integration,
            integration.operations[request.operation],
            standing=await self._with.gate.standing(request, configured_flags(integration)),
            indexed=self._with.indexed,
            context=self._with.context(request, cycle=1),
            language=request.language,
            subscriber=self._subscriber(request),
            clean=self._with.redactor(request.provider).clean_value,
            next_batches=batches_ahead(integration, request.operation, self._with.clock()),
        )
        return Prepared(plan=plan, repeated=claim.kind == "held", recorded=_captured(claim))

    def _subscriber(self, request: CallRequest) -> Subscriber | None:
        return self._with.catalog.subscriber(request.reply_to) if request.reply_to else None

    def _check(self, step: PrepareStep) -> None:
        request = step.request
        try:
            operation = self._with.catalog.operation(request.provider, request.operation)
            if request.reply_to is not None:
                self._with.catalog.subscriber(request.reply_to)
        except UnknownName as error:
            raise failure(StepFailure.INVALID_REQUEST, str(error), final=True) from None
        size = len(canonical_json(request.payload))
        if size > MAX_REQUEST_BYTES:
            reason = f"payload: {size} bytes of JSON, at most {MAX_REQUEST_BYTES} are allowed"
            raise failure(StepFailure.INVALID_REQUEST, reason, final=True)
        check_payload(operation, request.payload)


def _captured(claim: Claim) -> CallOutcome | None:
    """The outcome of a response that this run chain has recorded, and does not know of any more."""
    outcome = claim.outcome
    return outcome if outcome and outcome.status is OutcomeStatus.COMPLETED else None
