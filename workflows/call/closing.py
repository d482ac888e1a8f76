"""Closing towards the provider, and ending towards the caller."""

from __future__ import annotations

from temporalio import workflow

from .cycles import Cycle
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
    from ackbridge.contracts.steps import (
        Acknowledged,
        AcknowledgementKind,
        AcknowledgeStep,
        FailedAttempt,
    )


class Closing:
    """What the provider and the caller are told at the end of a cycle and of a call."""

    def __init__(self, state: CallState) -> None:
        self._state = state

    async def acknowledge_success(
        self, cycle: Cycle, along: Acknowledged | FailedAttempt | None = None
    ) -> None:
        """The response of a cycle is ours: tell the provider so, if it knows of the cycle.

        Args:
            along: what became of it when it rode along with the recording.
        """
        is_due = self._state.settlement.is_due(AcknowledgementKind.SUCCESS)
        if cycle.was_sent and is_due:
            await self._acknowledge(cycle, AcknowledgementKind.SUCCESS, None, along)

    async def acknowledge_failed(self, reason: str) -> None:
        """Give up every cycle that the provider may still be working on, and tell it so."""
        is_due = self._state.settlement.is_due(AcknowledgementKind.FAILED)
        for cycle in self._state.cycles.open:
            cycle.give_up(is_definitive=is_due)
            if is_due:
                await self._acknowledge(cycle, AcknowledgementKind.FAILED, reason)

    def end(self, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        """The outcome of a call without an answer, with what to show the user."""
        progress = self._state.progress
        progress.notice = self._state.plan.notices.get(notice)
        is_cancelled = status is OutcomeStatus.CANCELLED
        outcome = progress.draft(status).model_copy(
            update={
                "reason": reason,
                "notice": progress.notice,
                "cancelled": self._state.orders.cancelled if is_cancelled else None,
            }
        )
        progress.outcome = outcome
        return outcome

    async def _acknowledge(
        self,
        cycle: Cycle,
        kind: AcknowledgementKind,
        reason: str | None,
        along: Acknowledged | FailedAttempt | None = None,
    ) -> None:
        """Close a cycle towards the provider."""
        state = self._state
        state.enter(Stage.ACKNOWLEDGING)
        outcome = state.progress.outcome if kind is AcknowledgementKind.SUCCESS else None
        await state.settlement.acknowledge(
            AcknowledgeStep(
                request=state.request,
                cycle=cycle.number,
                kind=kind,
                reference=cycle.reference,
                reason=reason,
                outcome=outcome,
            ),
            along,
        )
