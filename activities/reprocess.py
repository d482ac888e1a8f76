"""survey_parked, reprocess_page: a batch takes parked calls up again, a page at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.catalog.catalog import configured_flags
from ackbridge.contracts import names
from ackbridge.contracts.batches import ReprocessPageResult, ReprocessPageStep, Survey, SurveyStep
from ackbridge.contracts.control import IntegrationFlags
from ackbridge.contracts.signals import Reprocess
from ackbridge.control.admission import Availability
from ackbridge.errors import EngineUnavailableError
from ackbridge.temporal.signals import as_plain, signal_once
from activities.support.dependencies import Dependencies
from activities.support.retry import classified

PAGE_WITHIN = 5.0
"""Seconds after which a page that has told calls is over: the workflow hears how far it is."""

WAIT_WITHIN = 60.0
"""Seconds of a page that only waits for calls under way."""

CLOSED_WITHIN = 600.0
"""Seconds of a page that only waits for its provider."""

LOOK_EVERY = 0.2
"""Seconds between two looks at calls under way, or at a closed provider; ten times as long when
nothing happens."""

MOST_AT_ONCE = 50
"""Calls that are marked together."""

SIGNAL_TIMEOUT = timedelta(seconds=5)


class ReprocessPages:
    """What a batch has done stands in the ledger: any attempt may end anywhere."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.SURVEY_PARKED)
    async def survey_parked(self, step: SurveyStep) -> Survey:
        """How many parked calls are selected, as of now."""
        with classified():
            return await self._with.ledger.batches.survey(step.selection)

    @activity.defn(name=names.REPROCESS_PAGE)
    async def reprocess_page(self, step: ReprocessPageStep) -> ReprocessPageResult:
        """Take calls up again for some seconds, or wait for those under way or for the provider."""
        turning = _Turning(self._with, step)
        try:
            with classified():
                return await turning.turn()
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or not details.cancel_requested:
                raise
        # Somebody has paused or stopped the batch: say how far it has come.
        with classified():
            return await turning.page(closed=step.closed)


class _Turning:
    """One attempt of a page."""

    def __init__(self, provisions: Dependencies, step: ReprocessPageStep) -> None:
        self._with = provisions
        self._step = step
        self._request = step.request
        self._batches = provisions.ledger.batches
        self._began = time.monotonic()
        self._told_last = self._began
        self._next_at = self._began
        self._has_told = False
        self._selected = 0

    async def turn(self) -> ReprocessPageResult:
        """The page, to its end."""
        if self._step.is_last:
            await self._batches.release(self._step.batch)
            await self._batches.settle(self._step.batch)
            return await self.page()
        self._selected = (await self._batches.counts(self._step.batch)).selected
        await self._tell(await self._batches.unsignalled(self._step.batch))
        while not self._is_over():
            availability = await self._availability()
            reason, operations = availability.unavailable_until, availability.disabled_operations
            if reason is not None and self._step.closed is None:
                return await self.page(closed=reason)
            if reason is None and self._step.closed is not None:
                return await self.page()
            if reason is None:
                taken, under_way = await self._take(operations)
                if taken:
                    continue
                if not under_way:
                    return await self.page(is_done=True)
            await self._rest()
        await self._until_next()
        return await self.page(closed=self._step.closed)

    async def page(
        self, *, is_done: bool = False, closed: str | None = None
    ) -> ReprocessPageResult:
        """How far the batch is."""
        counts = await self._batches.counts(self._step.batch)
        return ReprocessPageResult(counts=counts, is_done=is_done, closed=closed)

    async def _take(self, closed: frozenset[str]) -> tuple[int, int]:
        """Take calls up as far as there is room: how many, and how many were under way before."""
        under_way = await self._batches.settle(self._step.batch)
        room = min(self._request.concurrency - under_way, self._at_once())
        wanted = self._request.selection.at_most
        if wanted is not None:
            room = min(room, wanted - self._selected)
        taken: list[str] = []
        if room > 0:
            batch, selection = self._step.batch, self._request.selection
            taken = await self._batches.claim(batch, selection, self._step.as_of, room, closed)
            self._selected += len(taken)
            await self._tell(taken)
        return len(taken), under_way

    async def _tell(self, calls: list[str]) -> None:
        """Tell calls to try again, at the rate; what was told is kept, whatever comes between."""
        told: list[str] = []
        try:
            for call_id in calls:
                await self._pace()
                if activity.is_worker_shutdown():
                    break
                if await self._signal(call_id):
                    told.append(call_id)
                else:
                    await self._batches.skip(self._step.batch, call_id)
        finally:
            await asyncio.shield(self._batches.mark_signalled(self._step.batch, told))

    async def _signal(self, call_id: str) -> bool:
        """Whether there is such an open call.

        Raises:
            EngineUnavailableError: the engine does not answer.
        """
        batch = self._step.batch
        try:
            await signal_once(
                activity.client(),
                call_id,
                names.REPROCESS,
                as_plain(Reprocess(by=self._request.by, batch=batch)),
                request_id=f"{batch}:{call_id}",
                timeout=SIGNAL_TIMEOUT,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise EngineUnavailableError(f"the engine answers {error.status.name}") from None
        self._has_told = True
        self._told_last = time.monotonic()
        return True

    async def _pace(self) -> None:
        """Wait until the next call may be told; the rate holds from each call to the next one."""
        await self._until_next()
        self._next_at = time.monotonic() + 1 / self._rate()

    async def _until_next(self) -> None:
        while (left := self._next_at - time.monotonic()) > 0 and not activity.is_worker_shutdown():
            activity.heartbeat()
            await asyncio.sleep(min(left, 1.0))
        activity.heartbeat()

    def _rate(self) -> float:
        """Calls per second at the moment."""
        elapsed = timedelta(seconds=time.monotonic() - self._began)
        ramp, full = self._request.ramp, self._request.rate
        return ramp.rate(self._step.gentle_for + elapsed, full) if ramp else full

    async def _rest(self) -> None:
        """Wait before the next look."""
        activity.heartbeat()
        quiet = time.monotonic() - self._told_last
        within = LOOK_EVERY if quiet < WAIT_WITHIN / 10 else LOOK_EVERY * 10
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await activity.wait_for_worker_shutdown()

    async def _availability(self) -> Availability:
        provider = self._request.selection.provider
        integration = self._with.catalog.integrations.get(provider)
        configured = configured_flags(integration) if integration else IntegrationFlags()
        return await self._with.gate.availability(provider, configured)

    def _at_once(self) -> int:
        """How many calls to mark together: those of about half a second."""
        return max(1, min(MOST_AT_ONCE, round(self._rate() / 2)))

    def _is_over(self) -> bool:
        if activity.is_worker_shutdown():
            return True
        within = CLOSED_WITHIN if self._step.closed is not None else WAIT_WITHIN
        if self._has_told:
            within = PAGE_WITHIN
        return time.monotonic() - self._began > within
