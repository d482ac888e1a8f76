"""bury: keep a notice that could not be delivered, for people."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import names
from ackbridge.contracts.deliveries import DeadLetterStep
from activities.support.dependencies import Dependencies
from activities.support.retry import classified


class DeadLetter:
    """A dead notice stays in the ledger until somebody replays it."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.BURY)
    async def bury(self, step: DeadLetterStep) -> dict[str, str]:
        """Write that the notice is dead, and why."""
        with classified():
            await self._with.ledger.notices.mark_dead(step.delivery, step.reason)
        return {}
