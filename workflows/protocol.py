"""The acknowledgement protocol of one call, whatever hosts it.

prepare ─► send ─► await response ─► capture ─► acknowledge(success)
            │            │  ▲ extension
            │ no receipt │ deadline or failure: ask once, acknowledge(failed), next cycle
            ▼            ▼
          park or fail, with a notice
"""

from __future__ import annotations

from dataclasses import replace

from temporalio import workflow

from . import steps
from .conversation import Conversation
from .cycles import Cycles
from .hearing import Hearing
from .host import INTERRUPTED, Host, StepFailed
from .keeping import conclude
from .orders import Orders
from .progress import Progress
from .settlement import Settlement
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        DEFAULT_NOTICES,
        CallMemory,
        CallOutcome,
        CallRequest,
        CallStatus,
        Cancel,
        ForceAck,
        MessageKind,
        MessageSource,
        OutcomeStatus,
        Plan,
        Prepared,
        PrepareStep,
        ProviderMessage,
        Reprocess,
        Stage,
        Steering,
        StepFailure,
        Wire,
    )

REFUSALS = (StepFailure.INVALID_REQUEST, StepFailure.KEY_REUSED)
"""What is wrong with the request itself; the caller has to change it."""


class CallProtocol:
    """One call from its request to its outcome.

    The host feeds it with what arrives (`hear`, `cancel`, `force`, `reprocess`, `reject`), asks it
    (`status`, `released`) and runs it (`run`).

    Attributes:
        refusal: why `prepare` refused the call, if it did; nothing was sent then.
    """

    def __init__(
        self,
        host: Host,
        request: CallRequest,
        run_chain: str,
        memory: CallMemory | None = None,
    ) -> None:
        """Take a call up.

        Args:
            run_chain: the id of the first run of this execution chain.
            memory: of the parked call that this run continues.
        """
        self._host = host
        self._request = request
        self._run_chain = run_chain
        self._memory = memory
        self._progress = Progress(host, request)
        self._hearing = Hearing(memory.hearing if memory else None)
        self._orders = Orders()
        self._settlement: Settlement | None = None
        self._state: CallState | None = None
        self._conversation: Conversation | None = None
        self._is_prepared_at_once = True
        self.refusal: StepFailed | None = None
        if memory is not None:
            self._progress.recall(memory.status, memory.timings)
            self._orders = Orders(memory.cancelled, memory.forced, memory.reprocess, is_prompt=True)

    # What it is told

    def hear(self, message: ProviderMessage) -> None:
        """Take a provider's message; each counts once, and none after the outcome."""
        if self.outcome is not None:
            self._hear_too_late(message, self.outcome)
        else:
            self._hearing.hear(message)

    def cancel(self, order: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"cancel by {order.by}: too late, the call is {self.outcome.status}")
        elif self._orders.cancelled is None:
            self._orders.cancelled = Steering(by=order.by, reason=order.reason)
            self._orders.is_prompt = self._is_revised()

    def force(self, order: ForceAck) -> None:
        """Take an operator's word for the answer; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"force_ack by {order.by}: too late, the call is {self.outcome.status}")
            return
        if self._orders.forced is not None:
            self.reject(f"force_ack by {order.by}: {self._orders.forced.by} has forced it already")
            return
        self._orders.forced = Steering(by=order.by, reason=order.reason)
        self._orders.is_prompt = self._is_revised()
        self.hear(
            ProviderMessage(
                kind=MessageKind.RESPONSE,
                event_key=self._orders.forced_key(self._request.call_id),
                data=order.response,
                source=MessageSource.OPERATOR,
                received_at=self._host.now(),
            )
        )

    def reprocess(self, order: Reprocess) -> None:
        """Take a parked call up again."""
        if self._progress.stage is Stage.PARKED:
            self._orders.reprocess = True
        else:
            stage = self._progress.stage
            self.reject(f"reprocess by {order.by}: the call is not parked but {stage}")

    def reject(self, problem: str) -> None:
        """Keep what was wrong with something we were sent, for whoever looks at the status."""
        self._progress.last_error = problem
        self._show()

    # What it is asked

    @property
    def outcome(self) -> CallOutcome | None:
        """How the call ended, once it did."""
        return self._progress.outcome

    @property
    def released(self) -> bool:
        """Whether whoever waits for the outcome can be answered now."""
        is_over = self.outcome is not None or self.refusal is not None
        return is_over or self._progress.stage is Stage.PARKED

    def status(self) -> CallStatus:
        """Where the call is."""
        owed = self._settlement.owed if self._settlement else 0
        return self._progress.status(owed, self._hearing.duplicates)

    def memory(self) -> CallMemory:
        """For the run that continues this one; the last thing to be asked of this one."""
        if self._conversation is None:
            raise RuntimeError("a call without a plan does not continue as new")
        return self._conversation.memory()

    # What it does

    async def run(self) -> CallOutcome:
        """Conduct the call to its end.

        Raises:
            StepFailed: it was refused before anything was sent.
            Renewal: it is parked and asks to continue as new.
        """
        prepared = Prepared(plan=self._memory.plan) if self._memory else await self._prepare()
        plan = prepared.plan
        if plan is None:
            return await self._end_without_plan(prepared.recorded)
        if plan.indexed:
            self._host.index_at_start(self._request.provider, self._request.operation)
        self._settlement = Settlement(self._host, plan, self._show)
        conversation = self._converse(prepared, plan, self._settlement)
        outcome = await conversation.hold()
        self._progress.outcome = outcome
        self._end_hearing(outcome)
        self._enter(Stage(outcome.status) if self._is_settled() else Stage.ACKNOWLEDGING)
        is_told = await self._settle(outcome)
        outcome = await self._keep(self._settlement, is_told=is_told)
        self._enter(Stage(outcome.status))
        return outcome

    async def _end_without_plan(self, outcome: CallOutcome | None) -> CallOutcome:
        """End as the ledger says, or for lack of it; what was heard meanwhile is too late."""
        if outcome is None:
            raise StepFailed("NoOutcome", "the ledger has neither a plan nor an outcome for it")
        self._progress.outcome = outcome
        self._end_hearing(outcome)
        self._enter(Stage(outcome.status))
        await self._keep_the_rest(outcome)
        return outcome

    async def _keep_the_rest(self, outcome: CallOutcome) -> None:
        """Keep what is heard while the end is being kept; the last answer of a poll may be."""
        while (self._hearing or self._hearing.has_suppressed) and self._is_revised():
            self._end_hearing(outcome)
            await self._conclude(Stage(outcome.status), outcome.reason)

    async def _conclude(self, stage: Stage, reason: str | None) -> None:
        await conclude(
            self._host,
            self._request,
            self._progress,
            self._hearing,
            stage,
            reason,
            is_revised=self._is_revised(),
        )

    def _converse(self, prepared: Prepared, plan: Plan, settlement: Settlement) -> Conversation:
        memory = self._memory
        self._state = CallState(
            host=self._host,
            request=self._request,
            plan=plan,
            progress=self._progress,
            hearing=self._hearing,
            orders=self._orders,
            cycles=Cycles(memory.cycles, memory.rounds) if memory else Cycles(),
            settlement=settlement,
        )
        is_fresh = self._is_prepared_at_once and (
            self._host.now() - self._progress.timings.started_at < steps.TASK_KEPT_OPEN
        )
        self._conversation = Conversation(self._state, memory, prepared, is_fresh=is_fresh)
        if memory is not None:
            settlement.resume(memory.debts)
            self._show()
        return self._conversation

    async def _prepare(self) -> Prepared:
        """The plan, or the outcome of a call that needs none (any more)."""
        try:
            return await self._host.perform(
                self._request.provider,
                replace(steps.PREPARE, once_tried=lambda step, *_: self._prepare_again(step)),
                PrepareStep(request=self._request, run_chain=self._run_chain),
                interrupted=self._orders.cancels_work,
            )
        except StepFailed as failure:
            if failure.kind in REFUSALS:
                self._refuse(failure)
                raise
            return Prepared(recorded=self._unprepared(failure))

    def _prepare_again(self, step: Wire) -> Wire:
        self._is_prepared_at_once = False
        return step

    def _refuse(self, refusal: StepFailed) -> None:
        self.refusal = refusal
        self._progress.last_error = refusal.reason
        self._progress.enter(Stage.FAILED)
        self._show()

    def _unprepared(self, failure: StepFailed) -> CallOutcome:
        """The outcome of a call that could not even be prepared: nothing was sent."""
        self._progress.last_error = failure.reason
        cancelled = self._orders.cancelled if failure.kind == INTERRUPTED else None
        status = OutcomeStatus.CANCELLED if cancelled else OutcomeStatus.FAILED
        reason = f"cancelled by {cancelled.by}: {cancelled.reason}" if cancelled else failure.reason
        self._progress.notice = DEFAULT_NOTICES[status]
        return self._progress.draft(status).model_copy(
            update={
                "reason": reason,
                "cancelled": cancelled,
                "notice": self._progress.notice,
                "cycles": 0,
            }
        )

    def _end_hearing(self, outcome: CallOutcome) -> None:
        """Deal with what was heard and is too late now."""
        if self._orders.cancelled and outcome.status is not OutcomeStatus.CANCELLED:
            by = self._orders.cancelled.by
            self.reject(f"cancel by {by}: too late, the call is {outcome.status}")
        while self._hearing and self._is_revised():
            self._hear_too_late(self._hearing.next(), outcome)

    def _hear_too_late(self, message: ProviderMessage, outcome: CallOutcome) -> None:
        """Nothing is dropped: what says something new is kept whole, all of it is logged."""
        if self._state is not None:
            self._state.spoken_of(message)
        reason = f"the call is {outcome.status} already"
        is_news = (
            outcome.status is not OutcomeStatus.COMPLETED and message.kind is MessageKind.RESPONSE
        )
        if is_news:
            self._hearing.hold(message, reason)
        else:
            self._hearing.suppress(message, reason)

    def _is_settled(self) -> bool:
        return self._settlement is None or self._settlement.is_settled

    async def _settle(self, outcome: CallOutcome) -> bool:
        """Wait until nothing is being paid; the ledger has the outcome, and the log, meanwhile.

        Returns:
            Whether the ledger was told meanwhile that something is owed.
        """
        is_revised = not self._is_settled() and self._is_revised()
        if is_revised:
            self._progress.outcome = outcome.model_copy(update={"acknowledgement_owed": True})
        is_kept = outcome.status is OutcomeStatus.COMPLETED
        is_told = False
        while is_revised and not self._is_settled():
            if not is_kept or self._hearing.has_suppressed:
                await self._conclude(Stage.ACKNOWLEDGING, outcome.reason)
                is_kept = is_told = True
            await self._host.wait(
                lambda: self._is_settled() or self._hearing.has_suppressed, None, ""
            )
        await self._host.wait(self._is_settled, None, "acknowledgements we owe")
        return is_told

    async def _keep(self, settlement: Settlement, *, is_told: bool) -> CallOutcome:
        """Keep the whole end in the ledger, where capture and acknowledgement have not."""
        outcome = self._settled(settlement)
        self._progress.outcome = outcome
        is_kept = outcome.status is OutcomeStatus.COMPLETED and not is_told
        if is_kept and outcome.acknowledgement_owed:
            is_kept = not self._is_revised()
        if not is_kept or self._hearing.has_suppressed:
            await self._conclude(Stage(outcome.status), outcome.reason)
        await self._keep_the_rest(outcome)
        return outcome

    def _settled(self, settlement: Settlement) -> CallOutcome:
        """The outcome as it stands when the call is over."""
        outcome = self.outcome
        if outcome is None:
            raise RuntimeError("a call settles what it owes once it has an outcome")
        is_owed = settlement.owed > 0
        acknowledged_at = settlement.paid_at or outcome.timings.acknowledged_at
        is_acknowledged = outcome.status is OutcomeStatus.COMPLETED and not is_owed
        timings = outcome.timings.model_copy(
            update={
                "acknowledged_at": acknowledged_at if is_acknowledged else None,
                "ended_at": self._host.now(),
            }
        )
        return outcome.model_copy(update={"acknowledgement_owed": is_owed, "timings": timings})

    def _enter(self, end: Stage) -> None:
        """The call is over but for what is owed or to be kept; nothing is waited for any more."""
        self._progress.wait_no_longer()
        if self._progress.stage is not end:
            self._progress.enter(end)
        self._show()

    def _is_revised(self) -> bool:
        """Whether the call may do what calls of older workers did not; see `Plan.revision`."""
        return self._state is None or self._state.is_revised

    def _show(self) -> None:
        self._host.show(self.status())
