"""conclude: keep where a call stands, and what was suppressed or is held."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import DUPLICATE, ConcludeStep, names
from ackbridge.control.observed import Count

from .failures import classified
from .noting import note, note_ends, noted
from .provisions import Provisions


class Conclude:
    """The ledger answers for a call when no worker does."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.CONCLUDE)
    async def conclude(self, step: ConcludeStep) -> dict[str, str]:
        """Write the stage, the outcome if there is one, and what was suppressed or is held."""
        with noted(self._with, step.request), classified():
            await self._with.ledger.conclude(
                step.request.call_id,
                step.stage,
                step.reason,
                step.outcome,
                step.suppressed,
                step.held,
            )
        note_ends(self._with, step.request, step.ended)
        duplicates = sum(one.reason == DUPLICATE for one in step.suppressed)
        note(self._with, step.request, Count.DUPLICATES, duplicates)
        return {}
