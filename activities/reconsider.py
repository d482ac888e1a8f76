"""reconsider: whether a parked call may be sent by now."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog import configured_flags
from ackbridge.contracts import ReconsiderStep, Standing, names

from .failures import classified
from .provisions import Provisions


class Reconsider:
    """Flags and breaker, as `prepare` asks them."""

    def __init__(self, provisions: Provisions) -> None:
        self._with = provisions

    @activity.defn(name=names.RECONSIDER)
    async def reconsider(self, step: ReconsiderStep) -> Standing:
        """How flags and breaker stand for a call by now.

        Raises:
            ApplicationError: its integration is not served any more.
        """
        with classified():
            integration = self._with.catalog.integration(step.request.provider)
        return await self._with.gate.standing(step.request, configured_flags(integration))
