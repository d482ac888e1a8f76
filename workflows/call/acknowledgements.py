"""What we owe the provider: acknowledgements, paid at once or for as long as it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import Host, StepError

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.continuation import PendingAcknowledgementState
    from ackbridge.contracts.plan import AcknowledgePlan, Plan
    from ackbridge.contracts.steps import (
        Acknowledged,
        AcknowledgementKind,
        AcknowledgeStep,
        FailedAttempt,
        StepFailure,
    )


@dataclass
class PendingAcknowledgement:
    """One acknowledgement that the provider has not accepted.

    Attributes:
        since: when it was tried first.
        is_void: a later acknowledgement of the same cycle takes its place.
        is_paying: it is being tried.
        lacks_reference: it cannot be addressed until the provider's reference is known.
    """

    step: AcknowledgeStep
    since: datetime
    is_void: bool = False
    is_paying: bool = False
    lacks_reference: bool = False


class Acknowledgements:
    """The acknowledgements of one call.

    The first try is waited for. What the provider does not accept then is owed, and paid beside
    the call, so that an acknowledgement API that is down holds nobody up.

    Attributes:
        paid_at: when the provider accepted the last one.
    """

    def __init__(self, host: Host, plan: Plan, changed: Callable[[], None]) -> None:
        self._host = host
        self._plan = plan
        self._changed = changed
        self._debts: list[PendingAcknowledgement] = []
        self._is_indexed = False
        self._is_resting = False
        self.paid_at: datetime | None = None

    @property
    def owed(self) -> int:
        """How many acknowledgements the provider has not accepted so far."""
        return len(self._debts)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being paid any more, accepted or given up."""
        return not any(debt.is_paying for debt in self._debts)

    def is_due(self, kind: AcknowledgementKind) -> bool:
        """Whether the operation acknowledges this kind of end at all."""
        acknowledge = self._plan.acknowledge
        if acknowledge is None:
            return False
        is_success = kind is AcknowledgementKind.SUCCESS
        return acknowledge.on_success if is_success else acknowledge.on_failed

    @property
    def may_ride(self) -> bool:
        """Whether a success may be acknowledged with the recording of its response.

        Not while anything is owed: words about one work must not overtake each other.
        """
        may_be_local = self._plan.send.local and self._plan.is_revised
        return may_be_local and not self._debts and self.is_due(AcknowledgementKind.SUCCESS)

    async def acknowledge(
        self, step: AcknowledgeStep, along: Acknowledged | FailedAttempt | None = None
    ) -> None:
        """Acknowledge once; owe it if the provider does not accept.

        Args:
            along: what became of it when it rode along with the recording.
        """
        acknowledge = self._plan.acknowledge
        if acknowledge is None:
            return
        if isinstance(along, Acknowledged):
            self.paid_at = self._host.now()
            return
        if along is not None:
            self._owe_from(step, along.kind)
            return
        await self._void(step.cycle)
        # A lost workflow task may be decided otherwise when it is done again: what gives up on the
        # provider is scheduled before it is done. A response that is recorded stands in any case.
        local = step.kind is AcknowledgementKind.SUCCESS or not self._plan.is_revised
        once = steps.acknowledge_once(self._plan, acknowledge, step.kind, local=local)
        try:
            await self._host.perform(step.request.provider, once, step)
        except StepError as failure:
            self._owe_from(step, failure.kind)
        else:
            self.paid_at = self._host.now()

    def learn(self, cycle: int, reference: str) -> None:
        """The provider's reference of a cycle has become known: what waited for it can be paid."""
        for debt in self._debts:
            if debt.lacks_reference and debt.step.cycle == cycle:
                debt.step = debt.step.model_copy(update={"reference": reference})
                debt.lacks_reference = False

    def memory(self) -> tuple[PendingAcknowledgementState, ...]:
        """For the run that continues this one."""
        return tuple(
            PendingAcknowledgementState(step=debt.step, since=debt.since) for debt in self._debts
        )

    async def rest(self) -> None:
        """Pay no further, for the run that continues this one; what is under way comes to its end.

        An attempt that outlives its run could reach the provider after a later word of ours.
        """
        self._is_resting = True
        await self._host.wait(lambda: self.is_settled, None, "")

    def resume(self, debts: tuple[PendingAcknowledgementState, ...]) -> None:
        """Go on paying what the run before this one owed."""
        self._is_indexed = bool(debts)
        for debt in debts:
            self._owe(PendingAcknowledgement(debt.step, debt.since))

    def _owe_from(self, step: AcknowledgeStep, failure: str) -> None:
        lacks_reference = failure == StepFailure.NOT_ADDRESSED
        self._owe(PendingAcknowledgement(step, self._host.now(), lacks_reference=lacks_reference))

    def _owe(self, debt: PendingAcknowledgement) -> None:
        debt.is_paying = True
        self._debts.append(debt)
        self._host.begin(self._pay(debt))
        self._show()

    async def _void(self, cycle: int) -> None:
        """Stop paying what this cycle owes: two words about one work could arrive in any order."""
        for debt in [one for one in self._debts if one.step.cycle == cycle]:
            debt.is_void = True
            await self._host.wait(lambda: not debt.is_paying, None, "")  # noqa: B023 -- awaited before the loop goes on
            if debt in self._debts:
                self._debts.remove(debt)
                self._show()

    async def _pay(self, debt: PendingAcknowledgement) -> None:
        """Try until the provider accepts, the debt is void, or its time is up."""
        acknowledge = self._plan.acknowledge
        is_over = acknowledge is None
        while acknowledge and not is_over and not self._is_let_be(debt):
            until = debt.since + acknowledge.within
            if debt.lacks_reference:
                is_over = not await self._is_addressable(debt, until)
            else:
                is_over = await self._is_over(debt, acknowledge, until - self._host.now())
        # Not in a `finally`: an engine that drops a workflow from its cache runs those as well.
        debt.is_paying = False
        self._show()

    def _is_let_be(self, debt: PendingAcknowledgement) -> bool:
        return debt.is_void or self._is_resting

    async def _is_addressable(self, debt: PendingAcknowledgement, until: datetime) -> bool:
        """Wait for the provider's reference; what has no address cannot be sent."""
        return await self._host.wait(
            lambda: self._is_let_be(debt) or not debt.lacks_reference,
            until,
            "the provider's reference is needed to acknowledge",
        )

    async def _is_over(
        self, debt: PendingAcknowledgement, plan: AcknowledgePlan, within: timedelta
    ) -> bool:
        """Try for as long as there is time; false when it can be tried again later."""
        if within <= timedelta(0):
            return True
        provider = debt.step.request.provider
        owed = steps.acknowledge_owed(plan, debt.step.kind, within)
        try:
            await self._host.perform(
                provider, owed, debt.step, interrupted=lambda: self._is_let_be(debt)
            )
        except StepError as failure:
            debt.lacks_reference = failure.kind == StepFailure.NOT_ADDRESSED
            # Otherwise it stays owed: the status, the outcome and the ledger say so.
            return not debt.lacks_reference
        self._debts.remove(debt)
        self.paid_at = self._host.now()
        return True

    def _show(self) -> None:
        is_owed = bool(self._debts)
        if self._plan.owed_indexed and is_owed is not self._is_indexed:
            self._is_indexed = is_owed
            self._host.index_owed(is_owed)
        self._changed()
