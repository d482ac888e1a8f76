"""Capturing the response: written exactly once, or kept for people when it comes too late."""

from __future__ import annotations

from temporalio import workflow

from . import steps
from .cycles import Cycle
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        AcknowledgementKind,
        CallOutcome,
        LatePolicy,
        OutcomeStatus,
        ProviderMessage,
        RecordStep,
        Stage,
    )


class Capture:
    """Takes the one response of a call.

    Attributes:
        cycle: the cycle whose response was taken, once one was.
    """

    def __init__(self, state: CallState) -> None:
        self._state = state
        self.cycle: Cycle | None = None

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
        recorded = await state.host.perform(
            state.request.provider,
            steps.RECORD if state.plan.poll is None else steps.RECORD_POLLED,
            RecordStep(
                request=state.request,
                cycle=cycle.number,
                message=message,
                outcome=outcome.model_copy(update={"response": None}),
                was_parked=state.progress.parked_times > 0,
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
