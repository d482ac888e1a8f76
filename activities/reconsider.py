"""reconsider: whether a parked call may be sent by now."""

from __future__ import annotations

from temporalio import activity

from ackbridge.catalog.catalog import configured_flags
from ackbridge.contracts import names
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.steps import ReconsiderStep
from activities.support.dependencies import Dependencies
from activities.support.retry import classified


class Reconsider:
    """Flags and breaker, as `prepare` asks them."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.RECONSIDER)
    async def reconsider(self, step: ReconsiderStep) -> AdmissionState:
        """How flags and breaker stand for a call by now.

        Raises:
            ApplicationError: its integration is not served any more.
        """
        with classified():
            integration = self._with.catalog.integration(step.request.provider)
        return await self._with.gate.evaluate(step.request, configured_flags(integration))
