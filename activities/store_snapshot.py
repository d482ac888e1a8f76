"""The activity `store_snapshot`: copy the snapshot of a provider's control to the ledger."""

from __future__ import annotations

from temporalio import activity

from ackbridge.contracts import names
from ackbridge.contracts.control import ControlSnapshot
from activities.support.dependencies import Dependencies
from activities.support.retry import classified_errors


class StoreSnapshot:
    """Workers read the copy while the engine does not answer."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.STORE_SNAPSHOT)
    async def store_snapshot(self, snapshot: ControlSnapshot) -> None:
        """Store it, unless a newer one is there.

        Raises:
            ApplicationError: Unavailable, retryable: the ledger does not answer.
        """
        with classified_errors():
            await self._deps.ledger.controls.store(snapshot)
