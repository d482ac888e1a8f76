"""The end of a call: the outcome, what comes too late, and what the ledger stores of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import Host

from .cycles import Failure
from .notifications import Notifications
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, Effect, Notice, OutcomeStatus, Stage
    from ackbridge.contracts.notices import default_notices, notice_kind
    from ackbridge.contracts.plan import Plan
    from ackbridge.contracts.steps import Concluded, ConcludeStep, Parking


class Conclusion:
    """Stores the state of a call in the ledger, which answers for it when no worker does."""

    def __init__(
        self,
        host: Host,
        state: CallState,
        notifications: Notifications,
        plan: Plan | None,
        move_out: Callable[[CallOutcome], Awaitable[None]] | None = None,
    ) -> None:
        """Store a call.

        Args:
            plan: with the operation's notices; the built-in ones replace what is missing.
            move_out: lets a call that owes acknowledgements for long leave its host.
        """
        self._host = host
        self._state = state
        self._notifications = notifications
        self._move_out = move_out
        self._notices = plan.notices if plan is not None else {}
        self._amount = plan.amount if plan is not None else None

    def notice(self, kind: str) -> Notice:
        """What the caller can show a user."""
        return self._notices.get(kind) or default_notices(self._state.request.language)[kind]

    async def store(
        self, stage: Stage, reason: str | None, parking: Parking | None = None
    ) -> Concluded:
        """Store the stage, the outcome if there is one, and messages to be logged or held.

        Args:
            parking: of a parked call.
        """
        state, outcome = self._state, self._state.outcome
        has_no_response = outcome is not None and outcome.status is not OutcomeStatus.COMPLETED
        return await self._host.perform(
            state.request.provider,
            steps.CONCLUDE_FOR_GOOD if has_no_response else steps.CONCLUDE,
            ConcludeStep(
                request=state.request,
                stage=stage,
                reason=reason,
                outcome=outcome,
                suppressed=state.messages.take_suppressed(),
                held=state.messages.take_held(),
                parking=parking,
                effect=state.effect,
                provider_code=state.provider_code,
                amount=self._amount if state.effect is Effect.UNKNOWN else None,
                ended=state.cycles.take_ended(),
                written_off=state.take_written_off(),
                notice=state.notice if parking is not None else None,
            ),
        )

    def without_response(self, status: OutcomeStatus, failure: Failure) -> CallOutcome:
        """The outcome of a call that failed or was cancelled, with its notice."""
        state, requests = self._state, self._state.operator_requests
        state.code, state.provider_code = failure.code, failure.provider_code
        state.notice = self.notice(notice_kind(failure.code, state.effect))
        is_cancelled = status is OutcomeStatus.CANCELLED
        return state.draft_outcome(status).model_copy(
            update={
                "reason": failure.reason,
                "notice": state.notice,
                "code": failure.code,
                "provider_code": failure.provider_code,
                "cancelled": requests.cancelled if is_cancelled else None,
                "settled": requests.resolved,
            }
        )

    async def publish(self, outcome: CallOutcome, stage: Stage) -> None:
        """Set an outcome with unknown effect, which may be replaced."""
        state = self._state
        is_owed = bool(state.pending_acknowledgements)
        state.outcome = outcome.model_copy(update={"acknowledgement_owed": is_owed})
        self._notifications.ended(outcome, was_delayed=state.parked_times > 0)
        self._enter(stage)
        await self.store(stage, outcome.reason)

    def corrected(self, outcome: CallOutcome, reported: Failure | None = None) -> CallOutcome:
        """An outcome without a response with what is known by now of its effect.

        Args:
            reported: the failure of the work, if the provider has reported it meanwhile.
        """
        state, code = self._state, outcome.code
        if code is None or outcome.effect is state.effect:
            return outcome
        if reported is not None and outcome.status is OutcomeStatus.FAILED:
            outcome, code = self._restated(outcome, reported), reported.code
        state.notice = self.notice(notice_kind(code, state.effect))
        return outcome.model_copy(
            update={
                "effect": state.effect,
                "notice": state.notice,
                "settled": state.operator_requests.resolved,
            }
        )

    def _restated(self, outcome: CallOutcome, failure: Failure) -> CallOutcome:
        """An outcome that says why the provider has failed."""
        state = self._state
        state.code, state.provider_code = failure.code, failure.provider_code
        return outcome.model_copy(
            update={
                "reason": failure.reason,
                "code": failure.code,
                "provider_code": failure.provider_code,
            }
        )

    async def end(self, outcome: CallOutcome, *, has_moved: bool = False) -> CallOutcome:
        """End with an outcome, as soon as nothing is being acknowledged any more.

        Args:
            has_moved: the run before had it, and may have stored that it owes acknowledgements.
        """
        state = self._state
        state.outcome = outcome
        self._notifications.ended(outcome, was_delayed=state.parked_times > 0)
        self._receive_after_end(outcome)
        self._enter(Stage(outcome.status) if state.is_acknowledged else Stage.ACKNOWLEDGING)
        is_stored = await self._await_acknowledgements(outcome) or has_moved
        state.outcome = outcome = self._final(state.outcome)
        self._notifications.ended(outcome, was_delayed=state.parked_times > 0)
        # A response is stored with its recording; what has changed since then is not.
        is_recorded = outcome.status is OutcomeStatus.COMPLETED and not is_stored
        is_unchanged = is_recorded and not outcome.acknowledgement_owed
        if not is_unchanged or state.has_entries:
            await self.store(Stage(outcome.status), outcome.reason)
        return await self._finish(outcome)

    async def end_unplanned(self, outcome: CallOutcome) -> CallOutcome:
        """End a call that has no plan: the ledger has its outcome already, or cannot store it."""
        self._state.outcome = outcome
        self._notifications.ended(outcome, was_delayed=False)
        self._receive_after_end(outcome)
        self._enter(Stage(outcome.status))
        return await self._finish(outcome)

    def _receive_after_end(self, outcome: CallOutcome) -> None:
        """Log or hold what is too late now."""
        state, cancelled = self._state, self._state.operator_requests.cancelled
        if cancelled and outcome.status is not OutcomeStatus.CANCELLED:
            state.last_error = f"cancel by {cancelled.by}: too late, the call is {outcome.status}"
            state.show()
        while state.messages:
            state.receive_after_end(state.next_message(), outcome)

    async def _await_acknowledgements(self, outcome: CallOutcome) -> bool:
        """Wait until none is being tried any more; store the outcome and the log meanwhile.

        Returns:
            Whether the ledger knows that an acknowledgement is pending.
        """
        state = self._state
        if state.is_acknowledged:
            return False
        state.outcome = outcome.model_copy(update={"acknowledgement_owed": True})
        is_recorded = outcome.status is OutcomeStatus.COMPLETED
        is_stored = False
        while not state.is_acknowledged:
            if not is_recorded or state.has_entries:
                await self.store(Stage.ACKNOWLEDGING, outcome.reason)
                is_recorded = is_stored = True
                # Storing it takes time, in which the last one may have been accepted.
                continue
            if self._move_out is not None and self._host.should_move_out():
                await self._move_out(outcome)
            await self._host.wait(self._goes_on, None)
        return is_stored

    def _goes_on(self) -> bool:
        state = self._state
        return state.is_acknowledged or state.has_entries or self._host.should_move_out()

    async def _finish(self, outcome: CallOutcome) -> CallOutcome:
        """Handle what arrives while the end is being stored, such as the last answer of a poll."""
        state = self._state
        await self._notifications.all_started()
        while state.messages or state.has_entries:
            self._receive_after_end(outcome)
            state.outcome = outcome = self._final(outcome)
            await self.store(Stage(outcome.status), outcome.reason)
        self._enter(Stage(outcome.status))
        return outcome

    def _final(self, outcome: CallOutcome) -> CallOutcome:
        state = self._state
        is_owed = bool(state.pending_acknowledgements)
        acknowledged_at = state.acknowledged_at or outcome.timings.acknowledged_at
        is_acknowledged = outcome.status is OutcomeStatus.COMPLETED and not is_owed
        timings = outcome.timings.model_copy(
            update={
                "acknowledged_at": acknowledged_at if is_acknowledged else None,
                "ended_at": self._host.now(),
            }
        )
        update = {
            "acknowledgement_owed": is_owed,
            "timings": timings,
            "disputed": self._state.is_disputed,
        }
        return self.corrected(outcome.model_copy(update=update))

    def _enter(self, stage: Stage) -> None:
        self._state.stop_waiting()
        if self._state.stage is not stage:
            self._state.enter(stage)
        else:
            self._state.show()
