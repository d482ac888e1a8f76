"""Acknowledge to the provider: once while the call waits, then in the background until accepted."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import Host, StepError

from .cycles import Cycle
from .state import CallState, PendingAcknowledgement

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Stage
    from ackbridge.contracts.plan import AcknowledgePlan, Plan
    from ackbridge.contracts.steps import (
        Acknowledged,
        AcknowledgementKind,
        AcknowledgeStep,
        FailedAttempt,
        StepFailure,
    )

ASKED_FOR = timedelta(seconds=1)
"""A longer pause after the first attempt is one that the provider has asked for."""


class Acknowledgements:
    """The acknowledgements of one call.

    The call waits for the first attempt. Further attempts run in the background, so that an
    acknowledgement API that is down delays no call.
    """

    def __init__(self, host: Host, state: CallState, plan: Plan) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._are_indexed = bool(state.pending_acknowledgements)
        self._is_stopping = False

    @property
    def can_be_combined(self) -> bool:
        """Whether a success may be acknowledged by the activity that records the response.

        Not while another one is pending: two acknowledgements must not overtake each other.
        """
        is_free = not self._state.pending_acknowledgements
        is_local = steps.acknowledges_locally(self._plan)
        return is_free and is_local and self.is_due(AcknowledgementKind.SUCCESS)

    def is_due(self, kind: AcknowledgementKind) -> bool:
        """Whether the operation has acknowledgements of this kind."""
        acknowledge = self._plan.acknowledge
        if acknowledge is None:
            return False
        is_success = kind is AcknowledgementKind.SUCCESS
        return acknowledge.on_success if is_success else acknowledge.on_failed

    async def acknowledge_success(
        self,
        cycle: Cycle,
        combined: Acknowledged | FailedAttempt | None,
        *,
        needs_queue: bool = False,
    ) -> None:
        """Acknowledge the response of a cycle, if the provider knows of the cycle.

        Args:
            combined: the result of the attempt that was made with the recording.
            needs_queue: whether it may not be sent within a workflow task.
        """
        if not (cycle.was_sent and self.is_due(AcknowledgementKind.SUCCESS)):
            return
        self._state.enter(Stage.ACKNOWLEDGING)
        step = AcknowledgeStep(
            request=self._state.request,
            cycle=cycle.number,
            kind=AcknowledgementKind.SUCCESS,
            reference=cycle.reference,
            kept=cycle.kept,
            outcome=self._state.outcome,
        )
        match combined:
            case Acknowledged():
                self._accepted(step)
            case FailedAttempt():
                later, is_final = combined.again_after, combined.again_after is None
                self._add_pending(_pausing(step, later), combined.kind, is_final=is_final)
            case None:
                await self.acknowledge(step, needs_queue=needs_queue)

    async def acknowledge_failed(self, reason: str) -> None:
        """Give up all cycles that the provider may still be working on, and tell it so."""
        is_due = self.is_due(AcknowledgementKind.FAILED)
        for cycle in self._state.cycles.open:
            cycle.give_up()
            if is_due:
                self._state.enter(Stage.ACKNOWLEDGING)
                await self.acknowledge(
                    AcknowledgeStep(
                        request=self._state.request,
                        cycle=cycle.number,
                        kind=AcknowledgementKind.FAILED,
                        reference=cycle.reference,
                        kept=cycle.kept,
                        reason=reason,
                    )
                )

    async def acknowledge(self, step: AcknowledgeStep, *, needs_queue: bool = False) -> None:
        """Make one attempt; what the provider does not accept becomes pending."""
        acknowledge = self._plan.acknowledge
        if acknowledge is None:
            return
        await self._void_pending(step.cycle)
        # A lost workflow task may be decided otherwise when it is done again: a failed
        # acknowledgement is in history before it is sent. A recorded response stays in any case.
        local = step.kind is AcknowledgementKind.SUCCESS and not needs_queue
        once = steps.acknowledge_once(self._plan, acknowledge, step.kind, local=local)
        try:
            ended = self._state.cycles.take_ended()
            telling = step.model_copy(update={"ended": ended})
            await self._host.perform(step.request.provider, once, telling)
        except StepError as error:
            later, is_final = error.retry_after, error.retry_after is None
            self._add_pending(_pausing(step, later), error.kind, is_final=is_final)
        else:
            self._accepted(step)

    def _accepted(self, step: AcknowledgeStep) -> None:
        self._state.acknowledged_at = self._host.now()
        if step.kind is AcknowledgementKind.FAILED and self._plan.undoes:
            self._state.cycles.numbered(step.cycle).call_off()

    def resume(self) -> None:
        """Go on retrying what the run before this one has left pending."""
        for pending in self._state.pending_acknowledgements:
            if not pending.is_refused:
                self._start_retrying(pending)

    async def stop(self) -> None:
        """Stop retrying, so that the next run can go on with it; attempts under way end first.

        An attempt that outlives its run could reach the provider after a later acknowledgement.
        """
        self._is_stopping = True
        await self._host.wait(lambda: self._state.is_acknowledged, None)

    def _add_pending(self, step: AcknowledgeStep, failure: str, *, is_final: bool) -> None:
        pending = PendingAcknowledgement(
            step,
            self._host.now(),
            needs_reference=failure == StepFailure.NOT_ADDRESSED,
            is_refused=is_final and failure == StepFailure.ACKNOWLEDGEMENT_REFUSED,
        )
        self._state.pending_acknowledgements.append(pending)
        if pending.is_refused:
            self._show()
        else:
            self._start_retrying(pending)

    def _start_retrying(self, pending: PendingAcknowledgement) -> None:
        pending.is_running = True
        self._host.run_in_background(self._retry(pending))
        self._show()

    async def _void_pending(self, cycle: int) -> None:
        """Stop retrying what is pending of a cycle, or two acknowledgements could cross."""
        of_cycle = [p for p in self._state.pending_acknowledgements if p.step.cycle == cycle]
        for pending in of_cycle:
            pending.is_void = True
            await self._host.wait(lambda: not pending.is_running, None)  # noqa: B023 -- awaited before the loop goes on
            self._remove(pending)

    def _remove(self, pending: PendingAcknowledgement) -> None:
        if pending in self._state.pending_acknowledgements:
            self._state.pending_acknowledgements.remove(pending)
            self._show()

    async def _retry(self, pending: PendingAcknowledgement) -> None:
        """Try until the provider accepts, it is void, or its time is over."""
        acknowledge = self._plan.acknowledge
        is_over = acknowledge is None
        while acknowledge and not is_over and not self._must_stop(pending):
            until = pending.since + acknowledge.within
            if pending.needs_reference:
                is_over = not await self._host.wait(
                    lambda: self._must_stop(pending) or not pending.needs_reference,
                    until,
                    "acknowledging needs the provider's reference",
                )
            else:
                is_over = await self._attempt(pending, acknowledge, until - self._host.now())
        # Not in a `finally`: an engine that drops a workflow from its cache runs those as well.
        pending.is_running = False
        if pending.is_void:
            self._remove(pending)
        self._show()

    def _must_stop(self, pending: PendingAcknowledgement) -> bool:
        return pending.is_void or self._is_stopping

    async def _attempt(
        self, pending: PendingAcknowledgement, plan: AcknowledgePlan, within: timedelta
    ) -> bool:
        """Try for as long as there is time; false if it can be tried again later."""
        if within <= timedelta(0):
            return True
        step = steps.acknowledge_pending(plan, pending.step.kind, within)
        try:
            await self._host.perform(
                pending.step.request.provider,
                step,
                pending.step,
                interrupted=lambda: self._must_stop(pending),
            )
        except StepError as error:
            pending.needs_reference = error.kind == StepFailure.NOT_ADDRESSED
            pending.is_refused = error.kind == StepFailure.ACKNOWLEDGEMENT_REFUSED
            # Otherwise it stays pending: the status, the outcome and the ledger say so.
            return not pending.needs_reference
        if pending in self._state.pending_acknowledgements:
            self._state.pending_acknowledgements.remove(pending)
        self._accepted(pending.step)
        return True

    def _show(self) -> None:
        are_pending = bool(self._state.pending_acknowledgements)
        if self._plan.indexed and are_pending is not self._are_indexed:
            self._are_indexed = are_pending
            self._host.index_pending_acknowledgements(are_pending=are_pending)
        self._state.show()


def _pausing(step: AcknowledgeStep, pause: timedelta | None) -> AcknowledgeStep:
    """The step, after the pause that the provider has asked for; shorter ones are our own."""
    if pause is None or pause < ASKED_FOR:
        return step
    return step.model_copy(update={"pause": pause})
