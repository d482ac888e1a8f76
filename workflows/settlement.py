"""What we owe the provider: acknowledgements, paid at once or for as long as it takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from temporalio import workflow

from . import steps
from .host import Host, StepFailed

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import AcknowledgementKind, AcknowledgePlan, AcknowledgeStep, Plan


class Settlement:
    """The acknowledgements of one call.

    The first try is waited for. What the provider does not accept then is owed, and paid beside
    the call, so that an acknowledgement API that is down holds nobody up.

    Attributes:
        owed: how many acknowledgements the provider has not accepted so far.
        paid_at: when it accepted the last one.
    """

    def __init__(self, host: Host, changed: Callable[[], None]) -> None:
        self._host = host
        self._changed = changed
        self._paying = 0
        self.owed = 0
        self.paid_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being paid any more, accepted or given up."""
        return self._paying == 0

    async def acknowledge(self, plan: Plan, step: AcknowledgeStep) -> None:
        """Acknowledge once; owe it if the provider does not accept."""
        if plan.acknowledge is None:
            return
        once = steps.acknowledge_once(plan, plan.acknowledge, step.kind)
        try:
            await self._host.perform(step.request.provider, once, step)
        except StepFailed:
            self.owed += 1
            self._paying += 1
            self._host.begin(self._pay(plan.acknowledge, step))
            self._changed()
        else:
            self.paid_at = self._host.now()

    async def _pay(self, acknowledge: AcknowledgePlan, step: AcknowledgeStep) -> None:
        owed = steps.acknowledge_owed(acknowledge, step.kind)
        try:
            await self._host.perform(step.request.provider, owed, step)
        except StepFailed:
            # It stays owed: the status, the outcome and the ledger say so.
            pass
        else:
            self.owed -= 1
            self.paid_at = self._host.now()
        finally:
            self._paying -= 1
            self._changed()


def is_due(plan: Plan, kind: AcknowledgementKind) -> bool:
    """Whether the operation acknowledges this kind of end at all."""
    if plan.acknowledge is None:
        return False
    if kind is AcknowledgementKind.SUCCESS:
        return plan.acknowledge.on_success
    return plan.acknowledge.on_failed
