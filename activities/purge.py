"""The activity `purge_page`: delete expired records from the ledger, for some seconds."""

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
from activities.support.heartbeats import last_heartbeat
from activities.support.retry import activity_failure, classified_errors

PAGE_SECONDS = 20.0
"""After which a page returns, so that the workflow can show its progress."""

MAX_PAUSE_SECONDS = 1.0
"""Between two transactions: as long as the last one took, so that calls can use the ledger."""


class PurgePages:
    """Each transaction is complete in itself: an attempt may end anywhere."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.PURGE_PAGE)
    async def purge_page(self, step: PurgeStep) -> PurgePageResult:
        """Delete for some seconds, starting where the last page or attempt ended.

        Raises:
            ApplicationError: InvalidRequest, final: the retention of calls is shorter than the
                namespace's.
        """
        if step.place is None:
            await self._check_retention(step)
        with classified_errors():
            return await self._purge(step, last_heartbeat(PurgePageResult))

    async def _check_retention(self, step: PurgeStep) -> None:
        """The namespace's retention may have changed since the worker started."""
        try:
            await check_retention(activity.client(), step.retention)
        except ConfigurationError as error:
            raise activity_failure(StepFailure.INVALID_REQUEST, str(error), final=True) from None
        except EngineUnavailableError as error:
            activity.logger.warning("%s", error)

    async def _purge(self, step: PurgeStep, last: PurgePageResult | None) -> PurgePageResult:
        deleted = Counter(last.gone if last else {})
        as_of, place = (last.as_of, last.place) if last else (step.as_of, step.place)
        page_ends_at = time.monotonic() + PAGE_SECONDS
        while True:
            started_at = time.monotonic()
            result = await self._deps.ledger.purge.page(step.retention, as_of, place)
            deleted.update(result.gone)
            as_of, place = result.as_of, result.place
            page = PurgePageResult(as_of=as_of, place=place, gone=dict(deleted))
            is_over = activity.is_worker_shutdown() or time.monotonic() > page_ends_at
            if place is None or is_over:
                return page
            activity.heartbeat(page)
            await asyncio.sleep(min(time.monotonic() - started_at, MAX_PAUSE_SECONDS))
