"""The acknowledgement protocol of one call, whatever hosts it.

prepare ─► send ─► await response ─► record ─► acknowledge(success)
            │            │  ▲ extension
            │ no receipt │ deadline or failure: ask once, acknowledge(failed), next cycle
            ▼            ▼
          park or fail, with a notice
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import INTERRUPTED, ContinueAsNewRequested, Host, StepError

from .conclusion import Conclusion
from .conduct import Conduct
from .cycles import (
    Answered,
    CancelRequested,
    Failure,
    ParkingExpired,
    ReadyToSend,
    ReprocessRequested,
)
from .notifications import Notifications
from .state import CallState, describe_intervention

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import (
        CallOutcome,
        CallRequest,
        Intervention,
        OutcomeStatus,
        Stage,
    )
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.deliveries import ReplyPlan
    from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
    from ackbridge.contracts.notices import default_notices
    from ackbridge.contracts.plan import REVISION, Plan, Prepared
    from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess
    from ackbridge.contracts.steps import PrepareStep, StepFailure

REJECTIONS = (StepFailure.INVALID_REQUEST, StepFailure.KEY_REUSED)
"""The request itself is wrong; the caller has to change it."""


@dataclass(frozen=True)
class Admitted:
    """The call has a plan.

    Attributes:
        is_fresh: whether the workflow task that has prepared the call is still open.
    """

    plan: Plan
    prepared: Prepared
    is_fresh: bool


@dataclass(frozen=True)
class Ended:
    """The call has no plan but an outcome: from the ledger, or because it cannot be prepared.

    Attributes:
        reply: which subscriber has to be notified.
    """

    outcome: CallOutcome
    reply: ReplyPlan | None = None


@dataclass(frozen=True)
class Rejected:
    """The request is not valid; nothing was sent."""

    error: StepError


class Preparation:
    """Checks the request, claims the key, and gets the plan."""

    def __init__(self, host: Host, state: CallState, run_chain: str) -> None:
        self._host = host
        self._state = state
        self._run_chain = run_chain
        self._is_first_attempt = True

    async def run(self) -> Admitted | Ended | Rejected:
        """Prepare the call.

        Raises:
            StepError: of kind `NoOutcome`, when the ledger has neither a plan nor an outcome.
        """
        try:
            prepared = await self._prepare()
        except StepError as error:
            if error.kind in REJECTIONS:
                return Rejected(error)
            return self._not_prepared(error)
        if prepared.plan is not None:
            age = self._host.now() - self._state.timings.started_at
            is_fresh = self._is_first_attempt and age < steps.WORKFLOW_TASK_OPEN_FOR
            return Admitted(prepared.plan, prepared, is_fresh)
        if prepared.recorded is not None:
            return Ended(prepared.recorded)
        raise StepError("NoOutcome", "the ledger has neither a plan nor an outcome for it")

    async def _prepare(self) -> Prepared:
        requests = self._state.operator_requests
        return await self._host.perform(
            self._state.request.provider,
            replace(steps.PREPARE, after_first_attempt=lambda step, *_: self._again(step)),
            PrepareStep(
                request=self._state.request,
                run_chain=self._run_chain,
                sends=not requests.interrupts_work() and not self._state.messages,
            ),
            requests.is_cancelled,
        )

    def _again(self, step: PrepareStep) -> PrepareStep:
        self._is_first_attempt = False
        return step.model_copy(update={"sends": False})

    def _not_prepared(self, error: StepError) -> Ended:
        state, request = self._state, self._state.request
        state.last_error = error.reason
        cancelled = state.operator_requests.cancelled if error.kind == INTERRUPTED else None
        status = OutcomeStatus.CANCELLED if cancelled else OutcomeStatus.FAILED
        state.notice = default_notices(request.language)[status]
        outcome = state.draft_outcome(status).model_copy(
            update={
                "reason": describe_intervention("cancelled", cancelled)
                if cancelled
                else error.reason,
                "cancelled": cancelled,
                "notice": state.notice,
                "cycles": 0,
            }
        )
        reply = ReplyPlan(subscriber=request.reply_to) if request.reply_to is not None else None
        return Ended(outcome, reply)


class CallProtocol:
    """One call from its request to its outcome.

    The host runs it (`run`) and passes on what arrives at any time (`receive`, `cancel`,
    `force_ack`, `reprocess`, `reject`).

    Attributes:
        state: what is known about the call.
    """

    def __init__(
        self,
        host: Host,
        request: CallRequest,
        run_chain: str,
        continuation: CallContinuation | None = None,
    ) -> None:
        """Start a call, or continue a parked one.

        Args:
            run_chain: the id of the first run of this execution chain.
        """
        self._host = host
        self._request = request
        self._run_chain = run_chain
        self._continuation = continuation
        snapshot = (
            continuation.call if continuation else CallState.at_start(request.call_id, host.now())
        )
        self.state = CallState(host, request, snapshot)

    # What arrives

    def receive(self, message: ProviderMessage) -> None:
        """Take a provider's message; each counts once, and none after the outcome."""
        state = self.state
        if state.outcome is None:
            state.messages.add(message)
        elif not state.messages.has_arrival(message):
            state.receive_after_end(message, state.outcome)

    def cancel(self, signal: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        requests = self.state.operator_requests
        if self.state.outcome is not None:
            self.reject(f"cancel by {signal.by}: too late, the call is {self.state.outcome.status}")
        elif requests.cancelled is None:
            requests.cancelled = Intervention(by=signal.by, reason=signal.reason)

    def force_ack(self, signal: ForceAck) -> None:
        """Take the response from an operator; too late once there is an outcome."""
        requests, outcome = self.state.operator_requests, self.state.outcome
        if outcome is not None:
            self.reject(f"force_ack by {signal.by}: too late, the call is {outcome.status}")
            return
        if requests.forced is not None:
            self.reject(f"force_ack by {signal.by}: {requests.forced.by} has forced it already")
            return
        requests.forced = Intervention(by=signal.by, reason=signal.reason)
        self.receive(
            ProviderMessage(
                kind=MessageKind.RESPONSE,
                event_key=requests.forced_key(self._request.call_id),
                data=signal.response,
                source=MessageSource.OPERATOR,
                received_at=self._host.now(),
            )
        )

    def reprocess(self, signal: Reprocess) -> None:
        """Send a parked call again; a batch may ask for it once."""
        state, batch = self.state, signal.batch
        if state.stage is not Stage.PARKED:
            self.reject(f"reprocess by {signal.by}: the call is not parked but {state.stage}")
        elif state.operator_requests.has_batch(batch):
            self.reject(f"reprocess by {signal.by}: {batch} has reprocessed the call before")
        else:
            state.operator_requests.request_reprocess(batch)
            state.reprocessed_by = batch or signal.by

    def reject(self, problem: str) -> None:
        """Show in the status what was wrong with a signal."""
        self.state.last_error = problem
        self.state.show()

    # What it does

    async def run(self) -> CallOutcome:
        """Conduct the call to its end.

        Raises:
            StepError: the request was rejected before anything was sent.
            ContinueAsNewRequested: it is parked and can continue as new.
        """
        if self._continuation is not None:
            conduct = self._conduct(self._continuation.plan)
            result = await conduct.resume(Failure(**self._continuation.parked.model_dump()))
        else:
            match await Preparation(self._host, self.state, self._run_chain).run():
                case Rejected(error):
                    raise self._rejected(error)
                case Ended(outcome, reply):
                    return await self._end(outcome, reply)
                case Admitted(plan, prepared, is_fresh):
                    conduct = self._conduct(plan)
                    result = await conduct.begin(prepared, is_fresh=is_fresh)
        while True:
            match result:
                case ReadyToSend():
                    result = await conduct.exchange(result)
                case Answered():
                    return await conduct.complete(result)
                case CancelRequested():
                    return await conduct.cancel()
                case ReprocessRequested():
                    result = await conduct.reprocess()
                case Failure() if conduct.may_retry(result):
                    result = await conduct.retry()
                case Failure() if conduct.may_park(result):
                    result = await conduct.park(result)
                case (Failure() as failure) | ParkingExpired(failure):
                    return await conduct.fail(failure)

    def _conduct(self, plan: Plan) -> Conduct:
        if self.state.standing is None and plan.standing is not None:
            self.state.standing = str(plan.standing)
        if plan.indexed:
            self._host.index_at_start(self._request)
        return Conduct(self._host, self.state, plan)

    def _rejected(self, error: StepError) -> StepError:
        self.state.rejection = error
        self.state.last_error = error.reason
        self.state.enter(Stage.FAILED)
        return error

    async def _end(self, outcome: CallOutcome, reply: ReplyPlan | None) -> CallOutcome:
        notifications = Notifications(self._host, self.state, reply, {})
        return await Conclusion(self._host, self.state, notifications).end_unplanned(outcome)

    def continuation(self, requested: ContinueAsNewRequested) -> CallContinuation:
        """For the run that continues this one; the last thing to be asked of this one."""
        # The next run has no history that an older worker has begun.
        plan = requested.plan.model_copy(update={"revision": REVISION})
        return CallContinuation(plan=plan, parked=requested.parked, call=self.state.snapshot())
