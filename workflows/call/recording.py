"""Capturing the response: written exactly once, or kept for people when it comes too late."""

from __future__ import annotations

from temporalio import workflow

from workflows.hosting import steps

from .cycles import Cycle
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
    from ackbridge.contracts.messages import ProviderMessage
    from ackbridge.contracts.plan import LatePolicy
    from ackbridge.contracts.steps import (
        Acknowledged,
        AcknowledgementKind,
        FailedAttempt,
        RecordStep,
    )


class Recording:
    """Takes the one response of a call.

    Attributes:
        cycle: the cycle whose response was taken, once one was.
        acknowledged: what became of the acknowledgement that rode along with it; None: none did.
    """

    def __init__(self, state: CallState) -> None:
        self._state = state
        self.cycle: Cycle | None = None
        self.acknowledged: Acknowledged | FailedAttempt | None = None

    async def take(self, message: ProviderMessage, cycle: Cycle) -> bool:
        """Write the response of a cycle. False: it is not this call's to have."""
        state = self._state
        is_forced = message.event_key == state.orders.forced_key(state.request.call_id)
        late = cycle.has_given_up and not is_forced
        if late and not self._is_welcome(message):
            return False
        before = state.progress.stage
        state.enter(Stage.CAPTURING)
        state.progress.answered()
        is_due = cycle.was_sent and state.settlement.is_due(AcknowledgementKind.SUCCESS)
        outcome = state.progress.draft(OutcomeStatus.COMPLETED).model_copy(
            update={
                "response": message.data,
                "reference": cycle.reference or state.progress.reference,
                "late": late or (state.progress.parked_times > 0 and not is_forced),
                "forced": state.orders.forced if is_forced else None,
                "acknowledgement_owed": is_due,
            }
        )
        took = None if is_forced else cycle.waited(state.heard_at(message, cycle))
        rides = cycle.was_sent and not late and not is_forced and state.settlement.may_ride
        recorded = await state.host.perform(
            state.request.provider,
            steps.record(state.plan, acknowledges=rides),
            RecordStep(
                request=state.request,
                cycle=cycle.number,
                message=message,
                outcome=outcome.model_copy(update={"response": None}),
                was_parked=state.progress.parked_times > 0,
                took=took,
                overdue=took is not None and took > state.plan.deadline,
                taken_back=cycle.silences if took is not None else (),
                ended=state.cycles.take_ends(),
                acknowledges=rides and state.plan.poll is None,
                reference=cycle.reference,
            ),
        )
        if not recorded.accepted:
            state.hearing.suppress(message, recorded.reason or "the ledger has it already")
            state.enter(before)
            return False
        state.progress.notice = None
        state.progress.outcome = outcome
        cycle.answered()
        self.cycle = cycle
        self.acknowledged = recorded.acknowledged
        return True

    def recall(self, outcome: CallOutcome) -> None:
        """Take what was recorded in a workflow task that was lost; only the first one can be so."""
        state, cycle = self._state, self._state.cycles.current
        if outcome.attempts or outcome.acknowledgement_owed:
            cycle.sent()
        cycle.reference = outcome.reference
        cycle.answered()
        self.cycle = cycle
        progress = state.progress
        progress.attempts, progress.reference = outcome.attempts, outcome.reference
        progress.timings, progress.outcome = outcome.timings, outcome

    def _is_welcome(self, message: ProviderMessage) -> bool:
        """Whether the operation takes an answer that comes after we have given up on it."""
        policy = self._state.plan.late
        if policy is LatePolicy.ACCEPT:
            return True
        reason = f"late, and the operation says: {policy}"
        if policy is LatePolicy.HOLD:
            self._state.hearing.hold(message, reason)
        else:
            self._state.hearing.suppress(message, reason)
        return False
