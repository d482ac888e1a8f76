"""ask_status: before giving up, ask the provider how its work stands."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import names
from ackbridge.contracts.steps import Asked, AskStep, StepFailure
from ackbridge.stats.counters import Count
from activities.support.counters import note, noted
from activities.support.dependencies import Dependencies
from activities.support.retry import classified
from activities.support.status_reply import ask


class AskStatus:
    """The answer goes through the same capture as a callback."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.ASK_STATUS)
    async def ask_status(self, step: AskStep) -> Asked:
        """Ask once.

        Raises:
            ApplicationError: NoReceipt, to be tried again a few times.
        """
        with (
            noted(self._with, step.request, Count.STATUS_UNANSWERED),
            classified(StepFailure.NO_RECEIPT),
        ):
            word = await ask(self._with, step)
        note(self._with, step.request, Count.STATUS_ANSWERED)
        return Asked(message=word.message if word else None)
