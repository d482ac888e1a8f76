"""purge_page: what is over and old leaves the ledger, for some seconds at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from temporalio import activity

from ackbridge.client.purge import check_retention
from ackbridge.contracts import names
from ackbridge.contracts.purge import PurgePageResult, PurgeStep
from ackbridge.contracts.steps import StepFailure
from ackbridge.errors import ConfigurationError, EngineUnavailableError
from activities.support.dependencies import Dependencies
from activities.support.retry import classified, failure

PAGE_WITHIN = 20.0
"""Seconds after which a page is over: the workflow hears how far it is."""

LONGEST_REST = 1.0
"""Seconds between two transactions: as long as the last one took, so that calls have their turn."""


class PurgePages:
    """Every transaction stands for itself: any attempt may end anywhere."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.PURGE_PAGE)
    async def purge_page(self, step: PurgeStep) -> PurgePageResult:
        """Clean up for some seconds, from where the page before, or the attempt before, has ended.

        Raises:
            ApplicationError: InvalidRequest, final; calls are kept shorter than by the engine.
        """
        if step.place is None:
            await self._check(step)
        with classified():
            return await self._clean(step, _before())

    async def _check(self, step: PurgeStep) -> None:
        """The namespace's retention may be another one since the worker started."""
        try:
            await check_retention(activity.client(), step.retention)
        except ConfigurationError as error:
            raise failure(StepFailure.INVALID_REQUEST, str(error), final=True) from None
        except EngineUnavailableError as error:
            activity.logger.warning("%s", error)

    async def _clean(self, step: PurgeStep, before: PurgePageResult | None) -> PurgePageResult:
        gone = Counter(before.gone if before else {})
        as_of = before.as_of if before else step.as_of
        place = before.place if before else step.place
        over_at = time.monotonic() + PAGE_WITHIN
        while True:
            began = time.monotonic()
            done = await self._with.ledger.purge.page(step.retention, as_of, place)
            gone.update(done.gone)
            page = PurgePageResult(as_of=done.as_of, place=done.place, gone=dict(gone))
            if page.place is None or activity.is_worker_shutdown() or time.monotonic() > over_at:
                return page
            activity.heartbeat(page)
            as_of, place = page.as_of, page.place
            await asyncio.sleep(min(time.monotonic() - began, LONGEST_REST))


def _before() -> PurgePageResult | None:
    """What an attempt that died has told."""
    details = activity.info().heartbeat_details
    return PurgePageResult.model_validate(details[0]) if details else None
