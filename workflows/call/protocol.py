"""The acknowledgement protocol of one call, whatever hosts it.

prepare ─► send ─► await response ─► record ─► acknowledge(success)
            │            │  ▲ extension
            │ no receipt │ deadline or failure: ask once, acknowledge(failed), next cycle
            ▼            ▼
          park or fail, with a notice
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

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
    ResolvedAsNone,
)
from .notifications import Notifications
from .state import CallState, describe_intervention

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.calls import (
        CallOutcome,
        CallRequest,
        Effect,
        Intervention,
        OutcomeCode,
        OutcomeStatus,
        Stage,
        WaitingFor,
    )
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.deliveries import ReplyPlan
    from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
    from ackbridge.contracts.notices import default_notices, notice_kind
    from ackbridge.contracts.plan import REVISION, Plan, Prepared
    from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess, Resolve, WriteOff
    from ackbridge.contracts.steps import PrepareStep, StepFailure
    from ackbridge.contracts.wire import Wire

REJECTIONS = (StepFailure.INVALID_REQUEST, StepFailure.KEY_REUSED)
"""The request itself is wrong; the caller has to change it."""


@dataclass(frozen=True)
class Admitted:
    """The call has a plan."""

    plan: Plan
    prepared: Prepared


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

    def __init__(
        self, host: Host, state: CallState, run_chain: str, host_id: str | None = None
    ) -> None:
        self._host = host
        self._state = state
        self._run_chain = run_chain
        self._host_id = host_id
        self._first_failure = ""
        self._was_claimed = False

    async def run(self) -> Admitted | Ended | Rejected:
        """Prepare the call.

        Raises:
            StepError: of kind `NoOutcome`, when the ledger has neither a plan nor an outcome; of
                kind `HostedElsewhere`, when another workflow conducts the call.
        """
        try:
            prepared = await self._prepare()
            while prepared is None:
                prepared = await self._prepare()
            self._state.conductor = None
        except StepError as error:
            if error.kind in REJECTIONS:
                return Rejected(error)
            if error.kind == StepFailure.HOSTED_ELSEWHERE:
                raise
            return self._not_prepared(error)
        if prepared.plan is not None:
            return Admitted(prepared.plan, prepared)
        if prepared.recorded is not None:
            return Ended(prepared.recorded)
        raise StepError("NoOutcome", "the ledger has neither a plan nor an outcome for it")

    async def _prepare(self) -> Prepared | None:
        """The plan, or an outcome; None: another workflow still conducts the call, ask again."""
        try:
            return await self._perform()
        except StepError as error:
            conductor = self._conductor_by(error)
            if conductor is None or self._host_id is not None:
                raise
        self._state.conductor = conductor
        await self._pass_on(conductor)
        return None

    def _conductor_by(self, error: StepError) -> str | None:
        """The workflow that conducts the call, if that is why it is not prepared."""
        first = error.__cause__ if error.kind == INTERRUPTED else error
        if isinstance(first, StepError) and first.kind == StepFailure.HOSTED_ELSEWHERE:
            return first.code
        return self._state.conductor if error.kind == INTERRUPTED else None

    async def _pass_on(self, conductor: str) -> None:
        """Let the workflow that conducts the call have what operators have asked for."""
        call_id, received = self._state.request.call_id, self._state.operator_requests.received
        while received:
            name, signal = received[0]
            argument = {**signal.model_dump(mode="json", by_alias=True), "call_id": call_id}
            if not await self._host.pass_on(conductor, name, argument):
                return
            received.pop(0)
        self._state.withdraw_requests()

    def _is_interrupted(self) -> bool:
        requests = self._state.operator_requests
        is_following = self._state.conductor is not None
        return requests.is_cancelled() or (is_following and bool(requests.received))

    async def _perform(self) -> Prepared:
        state, requests = self._state, self._state.operator_requests
        within, expires_at = steps.PREPARE_WITHIN, state.request.expires_at
        # After that, who only follows another workflow still waits for its outcome.
        if expires_at is not None and state.conductor is None:
            within = max(min(within, expires_at - self._host.now()), timedelta(seconds=1))
        return await self._host.perform(
            state.request.provider,
            replace(steps.PREPARE, within=within, after_first_attempt=self._go_on),
            PrepareStep(
                request=state.request,
                run_chain=self._run_chain,
                sends=not requests.interrupts_work() and not state.messages,
                host=self._host_id,
            ),
            self._is_interrupted,
        )

    def _go_on(self, step: PrepareStep, error: StepError) -> PrepareStep:
        """Another worker may have what the first one lacks; nothing is sent along any more."""
        self._first_failure, self._was_claimed = error.kind, error.reached
        if error.kind == StepFailure.HOSTED_ELSEWHERE and self._host_id is None:
            self._state.conductor = error.code
        self._state.last_error = error.reason
        self._state.wait_for(WaitingFor.DEPENDENCY, detail=error.reason)
        self._host.run_in_background(self._notify_of_delay(error.reason))
        return step.model_copy(update={"sends": False})

    async def _notify_of_delay(self, reason: str) -> None:
        """Notify those who wait that this takes longer."""
        state = self._state
        until = self._host.now() + steps.DELAYED_AFTER
        summary = f"callers wait until then: {reason}"
        if await self._host.wait(lambda: state.stage is not Stage.PREPARING, until, summary):
            return
        state.delay(default_notices(state.request.language)["delayed"], None)
        state.wait_for(WaitingFor.DEPENDENCY, detail=reason, is_delayed=True)

    def _not_prepared(self, error: StepError) -> Ended:
        state, request = self._state, self._state.request
        state.last_error = error.reason
        cancelled = state.operator_requests.cancelled if error.kind == INTERRUPTED else None
        status = OutcomeStatus.CANCELLED if cancelled else OutcomeStatus.FAILED
        kind = self._first_failure if error.kind == INTERRUPTED else error.kind
        code = OutcomeCode.CANCELLED if cancelled else _CODES.get(kind, OutcomeCode.NOT_SENT)
        was_claimed = self._was_claimed or (kind == error.kind and error.reached)
        if kind not in _CODES or was_claimed:
            # A request that was sent with it in a workflow task that was lost, or by a workflow
            # that has claimed the call before, may have arrived.
            state.cycles.current.mark_sent(self._host.now())
        state.code = code
        state.notice = default_notices(request.language)[notice_kind(code, state.effect)]
        outcome = state.draft_outcome(status).model_copy(
            update={
                "reason": describe_intervention("cancelled", cancelled)
                if cancelled
                else error.reason,
                "cancelled": cancelled,
                "notice": state.notice,
                "code": code,
                "cycles": int(state.cycles.was_sent),
            }
        )
        reply = ReplyPlan(subscriber=request.reply_to) if request.reply_to is not None else None
        return Ended(outcome, reply)


_CODES: Mapping[str, OutcomeCode] = {
    StepFailure.MISSING: OutcomeCode.NOT_SENT,
    StepFailure.EXPIRED: OutcomeCode.EXPIRED,
}
"""Why a request was certainly not sent."""


class CallProtocol:
    """One call from its request to its outcome.

    The host runs it (`run`) and passes on what arrives at any time (`receive`, `cancel`,
    `force_ack`, `reprocess`, `resolve`, `write_off`, `reject`).

    Attributes:
        state: what is known about the call.
    """

    def __init__(
        self,
        host: Host,
        request: CallRequest,
        run_chain: str,
        continuation: CallContinuation | None = None,
        host_id: str | None = None,
    ) -> None:
        """Start a call, or continue one that waits.

        Args:
            run_chain: the id of the first run of this execution chain.
            host_id: the id of the workflow that hosts it; None: the call's own.
        """
        self._host = host
        self._request = request
        self._run_chain = run_chain
        self._host_id = host_id
        self._continuation = continuation
        snapshot = (
            continuation.call if continuation else CallState.at_start(request.call_id, host.now())
        )
        self.state = CallState(host, request, snapshot)

    # What arrives

    def receive(self, message: ProviderMessage) -> None:
        """Take a provider's message; each counts once, and none after the final outcome."""
        state = self.state
        if state.outcome is None or state.is_reconciling:
            state.messages.add(message)
        elif not state.messages.has_arrival(message):
            state.receive_after_end(message, state.outcome)

    def cancel(self, signal: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        requests = self.state.operator_requests
        self._keep(names.CANCEL, signal)
        if self.state.outcome is not None:
            self.reject(f"cancel by {signal.by}: too late, the call is {self.state.outcome.status}")
        elif requests.cancelled is None:
            requests.cancelled = Intervention(by=signal.by, reason=signal.reason)

    def force_ack(self, signal: ForceAck) -> None:
        """Take the response from an operator; too late once there is an outcome."""
        requests, outcome = self.state.operator_requests, self.state.outcome
        self._keep(names.FORCE_ACK, signal)
        if outcome is not None:
            self.reject(f"force_ack by {signal.by}: too late, the call is {outcome.status}")
            return
        if requests.resolved is not None:
            self.reject(f"force_ack by {signal.by}: {requests.resolved.by} has resolved it already")
            return
        if requests.forced is not None:
            self.reject(f"force_ack by {signal.by}: {requests.forced.by} has forced it already")
            return
        requests.forced = Intervention(by=signal.by, reason=signal.reason)
        self._respond(signal.response)

    def resolve(self, signal: Resolve) -> None:
        """Take from an operator what happened at the provider; too late once that is known."""
        state, requests = self.state, self.state.operator_requests
        self._keep(names.RESOLVE, signal)
        if state.outcome is not None and not state.is_reconciling:
            self.reject(f"resolve by {signal.by}: too late, the call is {state.outcome.status}")
        elif requests.forced is not None or requests.resolved is not None:
            self.reject(f"resolve by {signal.by}: the call was forced or resolved already")
        else:
            requests.resolved = Intervention(by=signal.by, reason=signal.reason)
            requests.resolved_as = signal.effect
            if signal.effect is Effect.DONE:
                self._respond(signal.response)

    def _respond(self, response: Any) -> None:
        """Handle an operator's response like one of the provider."""
        key = self.state.operator_requests.forced_key(self._request.call_id)
        self.receive(
            ProviderMessage(
                kind=MessageKind.RESPONSE,
                event_key=key,
                data=response,
                source=MessageSource.OPERATOR,
                received_at=self._host.now(),
            )
        )

    def write_off(self, signal: WriteOff) -> None:
        """Stop retrying the acknowledgement of a cycle."""
        by = Intervention(by=signal.by, reason=signal.reason)
        if self._keep(names.WRITE_OFF, signal):
            return
        if self.state.write_off(signal.cycle, by):
            self.state.show()
        else:
            self.reject(f"write_off by {signal.by}: cycle {signal.cycle} owes no acknowledgement")

    def reprocess(self, signal: Reprocess) -> None:
        """Send a parked call again; a batch may ask for it once."""
        state, batch = self.state, signal.batch
        if self._keep(names.REPROCESS, signal):
            return
        if state.stage is not Stage.PARKED:
            self.reject(f"reprocess by {signal.by}: the call is not parked but {state.stage}")
        elif state.operator_requests.has_batch(batch):
            self.reject(f"reprocess by {signal.by}: {batch} has reprocessed the call before")
        else:
            state.operator_requests.request_reprocess(batch)
            state.reprocessed_by = batch or signal.by

    def _keep(self, name: str, signal: Wire) -> bool:
        """Keep a request until it is known who conducts the call; true if another workflow does."""
        if self.state.stage is Stage.PREPARING:
            self.state.operator_requests.received.append((name, signal))
        return self.state.conductor is not None

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
            conduct, parked = self._conduct(self._continuation.plan), self._continuation.parked
            failure = Failure(**parked.model_dump()) if parked is not None else None
            if failure is None:
                result = await conduct.resume_waiting()
            elif self.state.outcome is not None:
                return await conduct.resume_reconciling(failure)
            else:
                result = await conduct.resume(failure)
        else:
            match await self._preparation().run():
                case Rejected(error):
                    raise self._rejected(error)
                case Ended(outcome, reply):
                    return await self._end(outcome, reply)
                case Admitted(plan, prepared):
                    conduct = self._conduct(plan)
                    result = await conduct.begin(prepared)
        while True:
            match result:
                case ReadyToSend():
                    result = await conduct.exchange(result)
                case Answered():
                    return await conduct.complete(result)
                case CancelRequested():
                    return await conduct.cancel()
                case ResolvedAsNone():
                    return await conduct.resolve()
                case ReprocessRequested():
                    result = await conduct.reprocess()
                case Failure() if conduct.may_retry(result):
                    result = await conduct.retry(result)
                case Failure() if conduct.may_park(result):
                    result = await conduct.park(result)
                case (Failure() as failure) | ParkingExpired(failure):
                    return await conduct.fail(failure)

    def _preparation(self) -> Preparation:
        return Preparation(self._host, self.state, self._run_chain, self._host_id)

    def _conduct(self, plan: Plan) -> Conduct:
        if self.state.standing is None and plan.standing is not None:
            self.state.standing = str(plan.standing)
        self.state.hide_sensitive(plan.sensitive)
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
        return await Conclusion(self._host, self.state, notifications, None).end_unplanned(outcome)

    def continuation(self, requested: ContinueAsNewRequested) -> CallContinuation:
        """For the run that continues this one; the last thing to be asked of this one."""
        # The next run has no history that an older worker has begun.
        plan = requested.plan.model_copy(update={"revision": REVISION})
        return CallContinuation(plan=plan, parked=requested.parked, call=self.state.snapshot())
