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

from workflows.hosting import steps
from workflows.hosting.host import INTERRUPTED, Host, StepError

from .acknowledgements import Acknowledgements
from .conclusion import Conclusion
from .conduct import Conduct
from .cycles import Cycles
from .messages import Messages
from .notifications import Notifications
from .operator_requests import OperatorRequests
from .progress import Progress
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import (
        CallOutcome,
        CallRequest,
        CallStatus,
        Intervention,
        OutcomeStatus,
        Stage,
    )
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.deliveries import ReplyPlan
    from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
    from ackbridge.contracts.notices import default_notices
    from ackbridge.contracts.plan import Plan, Prepared
    from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess
    from ackbridge.contracts.steps import PrepareStep, StepFailure

ARRIVALS_ARE_TOLD = 3
"""The revision from which on one arrival by two ways is no duplicate."""

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
        memory: CallContinuation | None = None,
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
        self._hearing = Messages(memory.hearing if memory else None)
        self._orders = OperatorRequests()
        self._settlement: Acknowledgements | None = None
        self._state: CallState | None = None
        self._conversation: Conduct | None = None
        self._is_prepared_at_once = True
        self.refusal: StepError | None = None
        if memory is not None:
            self._progress.recall(memory.status, memory.timings)
            self._orders = OperatorRequests(
                memory.cancelled,
                memory.forced,
                memory.reprocess,
                is_prompt=True,
                batches=memory.batches,
            )
        self._telling = Notifications(host, request, memory.told if memory else None)
        self._keeping = Conclusion(
            host,
            request,
            self._progress,
            self._hearing,
            self._orders,
            self._telling,
            self._show,
        )

    # What it is told

    def hear(self, message: ProviderMessage) -> None:
        """Take a provider's message; each counts once, and none after the outcome."""
        if self.outcome is None:
            self._hearing.hear(message)
        elif not self._hearing.has_heard(message):
            self._keeping.hear_too_late(message, self.outcome)

    def cancel(self, order: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"cancel by {order.by}: too late, the call is {self.outcome.status}")
        elif self._orders.cancelled is None:
            self._orders.cancelled = Intervention(by=order.by, reason=order.reason)
            self._orders.is_prompt = self._is_revised()

    def force(self, order: ForceAck) -> None:
        """Take an operator's word for the answer; too late once there is an outcome."""
        if self.outcome is not None:
            self.reject(f"force_ack by {order.by}: too late, the call is {self.outcome.status}")
            return
        if self._orders.forced is not None:
            self.reject(f"force_ack by {order.by}: {self._orders.forced.by} has forced it already")
            return
        self._orders.forced = Intervention(by=order.by, reason=order.reason)
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
        """Take a parked call up again; a batch may once."""
        stage, batch = self._progress.stage, order.batch
        if stage is not Stage.PARKED:
            self.reject(f"reprocess by {order.by}: the call is not parked but {stage}")
        elif batch is not None and batch in self._orders.batches and self._knows_batches():
            self.reject(f"reprocess by {order.by}: {batch} has taken the call up before")
        else:
            self._orders.reprocess_for(batch)
            self._progress.reprocessed_by = batch or order.by

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

    def memory(self) -> CallContinuation:
        """For the run that continues this one; the last thing to be asked of this one."""
        if self._conversation is None:
            raise RuntimeError("a call without a plan does not continue as new")
        return self._conversation.memory()

    # What it does

    async def run(self) -> CallOutcome:
        """Conduct the call to its end.

        Raises:
            StepError: it was refused before anything was sent.
            Renewal: it is parked and asks to continue as new.
        """
        prepared = Prepared(plan=self._memory.plan) if self._memory else await self._prepare()
        plan = prepared.plan
        if plan is None:
            if prepared.recorded is None:
                raise StepError("NoOutcome", "the ledger has neither a plan nor an outcome for it")
            return await self._keeping.end_without_plan(prepared.recorded)
        self._progress.standing = self._progress.standing or (
            str(plan.standing) if plan.standing else None
        )
        if plan.indexed:
            self._host.index_at_start(self._request.provider, self._request.operation)
        self._settlement = Acknowledgements(self._host, plan, self._show)
        conversation = self._converse(prepared, plan, self._settlement)
        return await self._keeping.end(await conversation.hold())

    def _converse(self, prepared: Prepared, plan: Plan, settlement: Acknowledgements) -> Conduct:
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
            telling=self._telling,
        )
        self._telling.plan(plan.reply, plan.notices)
        self._keeping.state = self._state
        self._hearing.tells_arrivals = plan.revision >= ARRIVALS_ARE_TOLD
        is_fresh = self._is_prepared_at_once and (
            self._host.now() - self._progress.timings.started_at < steps.TASK_KEPT_OPEN
        )
        self._conversation = Conduct(
            self._state, self._keeping, memory, prepared, is_fresh=is_fresh
        )
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
                PrepareStep(
                    request=self._request,
                    run_chain=self._run_chain,
                    sends=not self._orders.interrupts_work() and not self._hearing,
                ),
                interrupted=self._orders.cancels_work,
            )
        except StepError as failure:
            if failure.kind in REFUSALS:
                self._refuse(failure)
                raise
            return Prepared(recorded=self._unprepared(failure))

    def _prepare_again(self, step: PrepareStep) -> PrepareStep:
        self._is_prepared_at_once = False
        return step.model_copy(update={"sends": False})

    def _refuse(self, refusal: StepError) -> None:
        self.refusal = refusal
        self._progress.last_error = refusal.reason
        self._progress.enter(Stage.FAILED)
        self._show()

    def _unprepared(self, failure: StepError) -> CallOutcome:
        """The outcome of a call that could not even be prepared: nothing was sent."""
        self._progress.last_error = failure.reason
        cancelled = self._orders.cancelled if failure.kind == INTERRUPTED else None
        status = OutcomeStatus.CANCELLED if cancelled else OutcomeStatus.FAILED
        reason = f"cancelled by {cancelled.by}: {cancelled.reason}" if cancelled else failure.reason
        self._progress.notice = default_notices(self._request.language)[status]
        outcome = self._progress.draft(status).model_copy(
            update={
                "reason": reason,
                "cancelled": cancelled,
                "notice": self._progress.notice,
                "cycles": 0,
            }
        )
        if self._request.reply_to is not None:
            self._telling.plan(ReplyPlan(subscriber=self._request.reply_to), {})
            self._telling.ended(outcome, was_delayed=False)
        return outcome

    def _is_revised(self) -> bool:
        """Whether the call may do what calls of older workers did not; see `Plan.revision`."""
        return self._state is None or self._state.is_revised

    def _knows_batches(self) -> bool:
        """Whether it was planned since there are batches."""
        return self._state is not None and self._state.plan.knows_batches

    def _show(self) -> None:
        self._host.show(self.status())
