"""conclude: keep where a call stands, and what was suppressed or is held."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import ConcludeStep, names

from .failures import classified
from .provisions import Provisions


class Conclude:
    """The ledger answers for a call when no worker does."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.CONCLUDE)
    async def conclude(self, step: ConcludeStep) -> dict[str, str]:
        """Write the stage, the outcome if there is one, and what was suppressed or is held."""
        with classified():
            await self._with.ledger.conclude(
                step.request.call_id,
                step.stage,
                step.reason,
                step.outcome,
                step.suppressed,
                step.held,
            )
        return {}
