"""ask_status: before giving up, ask the provider how its work stands."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import Asked, AskStep, StepFailure, names
from ackbridge.control.observed import Count

from .answers import ask
from .failures import classified
from .noting import note, noted
from .provisions import Provisions


class AskStatus:
    """The answer goes through the same capture as a callback."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.ASK_STATUS)
    async def ask_status(self, step: AskStep) -> Asked:
        """Ask once.

        Raises:
            ApplicationError: NoReceipt, to be tried again a few times.
        """
        with (
            noted(self._with, step.request, Count.ASKED_IN_VAIN),
            classified(StepFailure.NO_RECEIPT),
        ):
            word = await ask(self._with, step)
        note(self._with, step.request, Count.ASKED)
        return Asked(message=word.message if word else None)
