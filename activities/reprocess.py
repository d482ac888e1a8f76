"""The activities `survey_parked` and `reprocess_page`: reprocess parked calls, page by page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.catalog.catalog import configured_flags
from ackbridge.contracts import names
from ackbridge.contracts.batches import ReprocessPageResult, ReprocessPageStep, Survey, SurveyStep
from ackbridge.contracts.control import IntegrationFlags
from ackbridge.contracts.signals import Reprocess
from ackbridge.control.admission import Availability
from ackbridge.errors import EngineUnavailableError
from ackbridge.temporal.connect import as_plain, signal_once
from activities.support.dependencies import Dependencies
from activities.support.heartbeats import worker_shuts_down
from activities.support.retry import classified_errors

FIRST_PAGE_SECONDS = 1.0
PAGE_SECONDS = 5.0
"""After which a page returns that has news for the workflow to show: the longer the batch runs, the
later, because each page is some events in its history."""

WAITING_PAGE_SECONDS = 60.0
"""The same, for a page without news that waits for calls in progress."""

CLOSED_PAGE_SECONDS = 600.0
"""The same, for a page that only waits until its provider accepts calls again."""

CHECK_SECONDS = 0.2
"""Between two checks of calls in progress or of a closed provider; ten times as long after
`IDLE_SECONDS` without a signal."""

IDLE_SECONDS = 6.0

MAX_MARKED = 50
"""Calls that are marked in one transaction."""

SIGNAL_TIMEOUT = timedelta(seconds=5)


class ReprocessPages:
    """The state of a batch is in the ledger: an attempt may end anywhere."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    @activity.defn(name=names.SURVEY_PARKED)
    async def survey_parked(self, step: SurveyStep) -> Survey:
        """Count the selected parked calls."""
        with classified_errors():
            return await self._deps.ledger.batches.survey(step.selection)

    @activity.defn(name=names.REPROCESS_PAGE)
    async def reprocess_page(self, step: ReprocessPageStep) -> ReprocessPageResult:
        """Signal calls for some seconds, or wait for calls in progress or for the provider."""
        page = _Page(self._deps, step)
        try:
            with classified_errors():
                return await page.run()
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or not details.cancel_requested:
                raise
        # An operator paused or stopped the batch: return how far it is.
        with classified_errors():
            return await page.result(closed=step.closed)


class _Page:
    """One attempt of a page."""

    def __init__(self, deps: Dependencies, step: ReprocessPageStep) -> None:
        self._deps = deps
        self._step = step
        self._request = step.request
        self._batches = deps.ledger.batches
        self._started_at = time.monotonic()
        self._next_signal_at = self._started_at + step.pause.total_seconds()
        self._last_signal_at: float | None = None
        self._selected = 0
        self._has_news = False
        self._report_after = self._page_seconds()

    async def run(self) -> ReprocessPageResult:
        if self._step.is_last:
            await self._batches.release(self._step.batch)
            await self._batches.settle(self._step.batch)
            return await self._end()
        self._selected = (await self._batches.counts(self._step.batch)).selected
        claimed = await self._batches.unsignalled(self._step.batch)
        while not self._is_over():
            availability = await self._availability()
            reason = availability.unavailable_until
            if reason is not None and self._step.closed is None:
                await self._batches.release(self._step.batch)
                return await self.result(closed=reason)
            if reason is None and self._step.closed is not None:
                return await self.result()
            if claimed:
                await self._signal_calls(claimed)
                claimed = []
            elif reason is None:
                signalled, in_progress = await self._claim_and_signal(
                    availability.disabled_operations
                )
                if signalled:
                    continue
                if not in_progress and not await self._has_calls_of(
                    availability.failing_operations
                ):
                    return await self._end(is_done=True)
            await self._pause()
        return await self.result(closed=self._step.closed)

    async def result(
        self, *, is_done: bool = False, closed: str | None = None
    ) -> ReprocessPageResult:
        counts = await self._batches.counts(self._step.batch)
        pause = timedelta(seconds=max(self._next_signal_at - time.monotonic(), 0.0))
        return ReprocessPageResult(counts=counts, is_done=is_done, closed=closed, pause=pause)

    async def _end(self, *, is_done: bool = False) -> ReprocessPageResult:
        """The result of the last page, with the calls that are left."""
        selection, step = self._request.selection, self._step
        last = await self.result(is_done=is_done)
        left = await self._batches.count_left(step.batch, selection, step.as_of)
        if selection.at_most is not None:
            left = min(left, max(selection.at_most - last.counts.selected, 0))
        counts = last.counts.model_copy(update={"left": left})
        return last.model_copy(update={"counts": counts})

    async def _has_calls_of(self, failing: frozenset[str]) -> bool:
        """Whether selected calls wait for the breaker of their operation."""
        selection = self._request.selection
        if selection.operations:
            failing = failing.intersection(selection.operations)
        if not failing:
            return False
        waiting = selection.model_copy(update={"operation": tuple(sorted(failing))})
        return bool(await self._batches.parked(waiting, 1))

    async def _claim_and_signal(self, disabled_operations: frozenset[str]) -> tuple[int, int]:
        """Signal as many calls as may run at once; how many, and how many were in progress."""
        batch, request = self._step.batch, self._request
        in_progress = await self._batches.settle(batch)
        self._has_news |= in_progress != self._step.known.in_progress
        # Half a second's worth, at most.
        at_once = max(1, min(MAX_MARKED, round(self._rate() / 2)))
        limit = min(request.concurrency - in_progress, at_once)
        if request.selection.at_most is not None:
            limit = min(limit, request.selection.at_most - self._selected)
        calls: list[str] = []
        if limit > 0:
            calls = await self._batches.claim(
                batch, request.selection, self._step.as_of, limit, disabled_operations
            )
            self._selected += len(calls)
            self._has_news |= bool(calls)
            await self._signal_calls(calls)
        return len(calls), in_progress

    async def _signal_calls(self, calls: list[str]) -> None:
        """Signal calls at the batch's rate, and store which ones even if interrupted.

        The next page signals those for which this one has no time.
        """
        signalled: list[str] = []
        try:
            for call_id in calls:
                if not await self._wait_for_turn():
                    break
                self._next_signal_at = time.monotonic() + 1 / self._rate()
                self._has_news = True
                if await self._signal(call_id):
                    signalled.append(call_id)
                else:
                    await self._batches.skip(self._step.batch, call_id)
        finally:
            await asyncio.shield(self._batches.mark_signalled(self._step.batch, signalled))

    async def _signal(self, call_id: str) -> bool:
        """Signal a call; false if it is not open.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        argument = as_plain(Reprocess(by=self._request.by, batch=self._step.batch))
        if not await self._signal_workflow(call_id, call_id, argument):
            # It may be about to leave its host.
            host = (await self._deps.ledger.calls.hosts([call_id])).get(call_id)
            hosted = {**argument, "call_id": call_id}
            if host is None or not await self._signal_workflow(host, call_id, hosted):
                return False
        self._last_signal_at = time.monotonic()
        return True

    async def _signal_workflow(
        self, workflow_id: str, call_id: str, argument: Mapping[str, Any]
    ) -> bool:
        try:
            await signal_once(
                activity.client(),
                workflow_id,
                names.REPROCESS,
                argument,
                request_id=f"{self._step.batch}:{call_id}",
                timeout=SIGNAL_TIMEOUT,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise EngineUnavailableError(f"the engine answers {error.status.name}") from None
        return True

    async def _wait_for_turn(self) -> bool:
        """Wait until the rate allows another signal; false if the page is over before that."""
        while (left := self._next_signal_at - time.monotonic()) > 0 and not self._is_over():
            activity.heartbeat()
            await asyncio.sleep(min(left, CHECK_SECONDS))
        activity.heartbeat()
        return left <= 0 and not activity.is_worker_shutdown()

    def _rate(self) -> float:
        """The current limit, in calls per second."""
        elapsed = timedelta(seconds=time.monotonic() - self._started_at)
        ramp, full_rate = self._request.ramp, self._request.rate
        return ramp.rate(self._step.gentle_for + elapsed, full_rate) if ramp else full_rate

    async def _pause(self) -> None:
        activity.heartbeat()
        idle = time.monotonic() - (self._last_signal_at or self._started_at)
        seconds = CHECK_SECONDS if idle < IDLE_SECONDS else CHECK_SECONDS * 10
        await worker_shuts_down(timedelta(seconds=seconds))

    async def _availability(self) -> Availability:
        provider = self._request.selection.provider
        integration = self._deps.catalog.integrations.get(provider)
        configured = configured_flags(integration) if integration else IntegrationFlags()
        return await self._deps.admission.availability(provider, configured)

    def _is_over(self) -> bool:
        if activity.is_worker_shutdown():
            return True
        if self._has_news:
            limit = self._report_after
        else:
            is_closed = self._step.closed is not None
            limit = CLOSED_PAGE_SECONDS if is_closed else WAITING_PAGE_SECONDS
        return time.monotonic() - self._started_at > limit

    def _page_seconds(self) -> float:
        age = (self._deps.clock() - self._step.as_of).total_seconds()
        return min(max(age / 10, FIRST_PAGE_SECONDS), PAGE_SECONDS)
