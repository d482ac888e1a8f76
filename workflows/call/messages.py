"""Handle what a call receives until something decides: a message, an operator, or the deadline."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import INTERRUPTED, Condition, Host, StepError

from .acknowledgements import Acknowledgements
from .cycles import (
    Answered,
    CancelRequested,
    Cycle,
    Decision,
    Failure,
    ReprocessRequested,
    ResolvedAsNone,
    TimedOut,
    Woken,
)
from .sending import Sending
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeCode, OutcomeStatus, Stage
    from ackbridge.contracts.continuation import WorkEnd
    from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
    from ackbridge.contracts.plan import LatePolicy, Plan
    from ackbridge.contracts.steps import AcknowledgementKind, RecordStep


class MessageHandler:
    """Handles what the provider and the operators send to a call."""

    def __init__(
        self,
        host: Host,
        state: CallState,
        plan: Plan,
        acknowledgements: Acknowledgements,
        sending: Sending,
    ) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._acknowledgements = acknowledgements
        self._sending = sending
        self._handlers = {
            MessageKind.RESPONSE: self._record,
            MessageKind.FAILURE: self._fail,
            MessageKind.EXTENSION: self._extend,
        }

    async def wait(
        self, deadline: datetime, summary: str, woken: Condition | None = None
    ) -> Decision | TimedOut | Woken:
        """Handle messages as they come, until one decides, an operator does, or time is up.

        Args:
            summary: of the timer, for the Temporal UI.
            woken: what else ends the waiting.
        """
        state, requests = self._state, self._state.operator_requests
        while True:
            if state.messages:
                message = state.next_message()
                handle = self._handlers[message.kind]
                decision = await handle(message, state.cycle_for(message))
                if decision is not None:
                    return decision
                if state.stage is Stage.AWAITING_RESPONSE:
                    deadline = max(deadline, state.deadline or deadline)
            elif state.outcome is None and requests.is_resolved_as_none:
                return ResolvedAsNone()
            elif state.outcome is None and requests.cancelled is not None:
                return CancelRequested()
            elif requests.reprocess:
                requests.reprocess = False
                return ReprocessRequested()
            elif woken is not None and woken():
                return Woken()
            elif (ask_at := self._ask_at()) is not None and ask_at <= self._host.now():
                await self._ask_about_doorbells()
            else:
                until = min(deadline, ask_at or deadline)
                is_over = not await self._host.wait(
                    lambda: state.has_pending_input or bool(woken and woken()), until, summary
                )
                if is_over and until == deadline:
                    return TimedOut()

    def _ask_at(self) -> datetime | None:
        """When the provider is asked about its doorbells; None if there are none."""
        messages = self._state.messages
        return (messages.ask_at or self._host.now()) if messages.doorbells else None

    async def _ask_about_doorbells(self) -> None:
        """Ask the provider what there is, once for each cycle that it may be about."""
        state = self._state
        about: dict[int, list[ProviderMessage]] = {}
        for doorbell in state.messages.take_doorbells():
            about.setdefault(state.cycle_for(doorbell).number, []).append(doorbell)
        unanswered: list[ProviderMessage] = []
        for cycle, doorbells in ((state.cycles.numbered(n), of) for n, of in about.items()):
            if not (cycle.was_sent and self._plan.ask_status):
                for doorbell in doorbells:
                    state.messages.suppress(doorbell, "a doorbell, and there is nothing to ask")
            elif not await self._sending.ask_status(cycle, steps.DOORBELL):
                unanswered += doorbells
        state.messages.put_back_doorbells(unanswered, self._host.now())

    async def drain(self) -> Decision | TimedOut | Woken:
        """Handle what is there, and do not wait for more."""
        return await self.wait(self._host.now(), "")

    async def _record(self, message: ProviderMessage, cycle: Cycle) -> Answered | Failure | None:
        """Record the response of a cycle; None if it is not this call's to have."""
        state = self._state
        is_forced = state.is_forced(message)
        is_late = cycle.has_given_up and not is_forced
        if not is_forced and not await self._is_consistent(message, cycle):
            return None
        if is_late and not self._accepts_late(message):
            cycle.complete()
            return None
        previous_stage, due = state.stage, state.response_due
        state.enter(Stage.CAPTURING)
        if self._plan.result is not None and not is_forced:
            try:
                message = await self._sending.fetch_result(self._plan.result, cycle, message)
            except StepError as error:
                return self._without_result(error, cycle, previous_stage)
        state.response_arrived()
        outcome = self._outcome(message, cycle, is_late=is_late, is_forced=is_forced)
        took = None if is_forced else cycle.elapsed(state.arrived_at(message, cycle))
        is_in_time = cycle.was_sent and not is_late and not is_forced
        combines = is_in_time and self._acknowledgements.can_be_combined
        recorded = await self._host.perform(
            state.request.provider,
            steps.record(self._plan, acknowledges=combines),
            RecordStep(
                request=state.request,
                cycle=cycle.number,
                message=message,
                # The engine takes 2 MiB, and the message has the response already.
                outcome=outcome.model_copy(update={"response": None}),
                was_parked=state.parked_times > 0,
                took=took,
                overdue=took is not None and took > (state.awaited or self._plan.deadline),
                due=due,
                taken_back=cycle.timeouts if took is not None else (),
                ended=state.cycles.take_ended(),
                acknowledges=combines and self._plan.poll is None,
                reference=cycle.reference,
                kept=cycle.kept,
            ),
        )
        if not recorded.accepted:
            state.messages.suppress(message, recorded.reason or "the ledger has it already")
            state.enter(previous_stage)
            return None
        state.notice, state.outcome, state.code, state.provider_code = None, outcome, None, None
        state.reference = outcome.reference
        cycle.complete()
        return Answered(cycle, outcome, recorded.acknowledged, needs_queue=recorded.needs_queue)

    def _without_result(
        self, error: StepError, cycle: Cycle, previous_stage: Stage
    ) -> Failure | None:
        """The work is done, and its result cannot be had; None if an operator decides instead."""
        self._state.last_error = error.reason
        if error.kind == INTERRUPTED:
            cycle.report_success()
            self._state.enter(previous_stage)
            return None
        cycle.complete()
        reason = f"the work is done, and its result cannot be read: {error.reason}"
        return Failure(reason, OutcomeCode.UNREADABLE, error.code)

    def restore(self, outcome: CallOutcome) -> Answered:
        """Take over what was recorded in a workflow task that was lost; it is the first cycle's."""
        state, cycle = self._state, self._state.cycles.current
        if outcome.attempts or outcome.acknowledgement_owed:
            cycle.mark_sent(self._host.now())
        cycle.reference = outcome.reference
        cycle.complete()
        state.attempts, state.reference = outcome.attempts, outcome.reference
        state.timings, state.outcome = outcome.timings, outcome
        return Answered(cycle, outcome)

    def _outcome(
        self, message: ProviderMessage, cycle: Cycle, *, is_late: bool, is_forced: bool
    ) -> CallOutcome:
        state, requests = self._state, self._state.operator_requests
        is_due = cycle.was_sent and self._acknowledgements.is_due(AcknowledgementKind.SUCCESS)
        was_delayed = state.parked_times > 0 or state.outcome is not None
        return state.draft_outcome(OutcomeStatus.COMPLETED).model_copy(
            update={
                "response": message.data,
                "reference": cycle.reference or state.reference,
                "late": is_late or (was_delayed and not is_forced),
                "forced": requests.forced if is_forced else None,
                "settled": requests.resolved if is_forced else None,
                "acknowledgement_owed": is_due,
                "effect": Effect.DONE,
            }
        )

    async def _is_consistent(self, message: ProviderMessage, cycle: Cycle) -> bool:
        """Note that the work is done; a success of work that was called off needs confirmation."""
        was_called_off = cycle.work in (WorkEnd.CALLED_OFF, WorkEnd.CONTRADICTED)
        is_confirmed = message.source is MessageSource.STATUS
        if was_called_off and not is_confirmed and self._plan.ask_status:
            try:
                confirmation = await self._sending.ask(cycle)
            except StepError as error:
                self._state.last_error = error.reason
            else:
                if confirmation is not None:
                    is_confirmed = confirmation.kind is MessageKind.RESPONSE
                    reason = "asked whether a success counts of work that was called off"
                    self._state.messages.suppress(confirmation, reason)
        if was_called_off and not is_confirmed:
            cycle.report_success()
            reason = "a success of work whose failed acknowledgement the provider had accepted"
            self._state.messages.hold(message, reason)
            self._state.show()
            return False
        return True

    def _accepts_late(self, message: ProviderMessage) -> bool:
        """Whether the operation accepts a response after we have given up its cycle."""
        outcome = self._state.outcome
        is_cancelled = outcome is not None and outcome.status is OutcomeStatus.CANCELLED
        if is_cancelled and self._plan.reconcile is None:
            # It goes on only to tell the provider that nothing is wanted.
            self._state.messages.hold(message, f"the call is {OutcomeStatus.CANCELLED} already")
            return False
        policy = self._plan.late
        reason = f"late, and the operation says: {policy}"
        match policy:
            case LatePolicy.ACCEPT:
                return True
            case LatePolicy.HOLD:
                self._state.messages.hold(message, reason)
            case LatePolicy.IGNORE:
                self._state.messages.suppress(message, reason)
        return False

    async def _fail(self, message: ProviderMessage, cycle: Cycle) -> Failure | None:
        """End a cycle; a retryable failure of a parked call decides nothing."""
        state = self._state
        reason = f"the provider reported a failure: {message.reason or 'no reason given'}"
        failure = Failure(
            reason,
            OutcomeCode.PROVIDER_FAILED,
            message.code,
            is_retryable=message.retryable,
            retry_at=self._host.now() + message.retry_after if message.retry_after else None,
        )
        if cycle.has_given_up and not cycle.is_uncertain:
            state.messages.suppress(message, "a failure of a cycle that was given up already")
            return None
        is_late, state.last_error = cycle.has_given_up, reason
        if is_late:
            cycle.report_failure()
        else:
            arrived_at, sent_at = state.arrived_at(message, cycle), state.timings.sent_at
            state.cycles.fail(cycle, arrived_at, sent_at, state.response_due)
        if state.stage is not Stage.PARKED:
            # A late failure of another cycle does not end the round of this one.
            is_other = is_late and state.stage in (Stage.SENDING, Stage.AWAITING_RESPONSE)
            return None if is_other else failure
        await self._acknowledgements.acknowledge_failed(reason)
        is_over = state.effect is Effect.NONE and not message.retryable
        state.enter(Stage.PARKED)
        return failure if is_over else None

    async def _extend(self, message: ProviderMessage, cycle: Cycle) -> None:
        """Move the deadline as the provider asks, up to the operation's ceiling."""
        state, plan = self._state, self._plan
        if cycle.has_given_up or cycle is not state.cycles.current:
            state.messages.suppress(message, "an extension of a cycle that was given up already")
            return
        stage = state.stage
        if stage is Stage.SENDING and cycle.was_sent:
            # The receipt was lost, and the provider works on the request all the same.
            state.receipt_presumed(plan.deadline, plan.deadline_reason)
            state.cycles.rounds += 1
            state.enter(Stage.AWAITING_RESPONSE)
        until = message.until or self._host.now() + (message.extend_by or plan.deadline)
        if state.extend_deadline(until, plan.ceiling):
            state.show()
        else:
            state.messages.suppress(message, f"an extension of a call that is {stage}")
