"""Leases for sends of providers that limit how many requests are in flight."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from temporalio import activity

from ackbridge.catalog.model import LimitSpec
from ackbridge.catalog.rendering import fairness_key
from ackbridge.contracts.steps import SendStep
from ackbridge.errors import LedgerUnavailableError
from ackbridge.ledger.leases import LeaseRequest, LeaseResult

from .dependencies import Dependencies
from .retry import HeldBackError

LEDGER_WITHIN: Final = timedelta(seconds=2)
"""Of the time that the activity has besides its request."""

LEDGER_RETRY: Final = timedelta(seconds=5)

OUTLASTS: Final = timedelta(seconds=10)
"""By how much a lease outlasts the request: the engine ends the activity after half of it, and the
clocks of workers may differ by the rest."""

log = logging.getLogger(__name__)


class Leases:
    """A lease outlasts its request: it needs no renewal, and ends by itself if its worker dies."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def acquire(self, step: SendStep, limits: LimitSpec) -> None:
        """Get a lease for the running attempt.

        Raises:
            HeldBackError: too many requests are in flight, or the ledger does not answer.
        """
        wanted = self._request(step, limits)
        try:
            async with asyncio.timeout(LEDGER_WITHIN.total_seconds()):
                result = await self._deps.ledger.leases.acquire(wanted)
        except (LedgerUnavailableError, TimeoutError) as error:
            reason = f"no lease: {error or 'the ledger does not answer in time'}"
            raise HeldBackError(reason, LEDGER_RETRY) from None
        if not result.is_granted:
            await self._wait(step, wanted, result)

    async def release(self, step: SendStep) -> None:
        """Release the lease of the running attempt; where that fails, it ends by itself."""
        try:
            async with asyncio.timeout(LEDGER_WITHIN.total_seconds()):
                await self._deps.ledger.leases.release(step.request.provider, _holder())
        except (LedgerUnavailableError, TimeoutError) as error:
            log.warning("a lease of %s is not released: %s", step.request.provider, error)

    def _request(self, step: SendStep, limits: LimitSpec) -> LeaseRequest:
        request = step.request
        operation = self._deps.catalog.operation(request.provider, request.operation)
        tenant = fairness_key(operation, self._deps.template_context(request, step.cycle))
        return LeaseRequest(
            provider=request.provider,
            holder=_holder(),
            call_id=request.call_id,
            tenant=tenant or "",
            total=limits.concurrent_total,
            per_tenant=limits.concurrent_per_tenant if tenant else None,
            waits_since=activity.info().scheduled_time,
            period=operation.receipt.timeout + OUTLASTS,
        )

    async def _wait(self, step: SendStep, wanted: LeaseRequest, result: LeaseResult) -> None:
        """Come back later, in the queue: the engine repeats the activity."""
        whose = "the tenant's" if result.is_of_tenant else "the provider's"
        reason = (
            f"{result.in_flight} of {result.most} of {whose} requests are in flight,"
            f" {result.waiting} wait before this one"
        )
        waited = self._deps.clock() - wanted.waits_since
        if step.queue_within is None or waited < step.queue_within:
            raise HeldBackError(reason, result.retry_after)
        await self.release(step)
        raise HeldBackError(f"not sent: {reason}", None)


def _holder() -> str:
    """Names the attempt, however often the engine repeats it while it waits."""
    info = activity.info()
    return f"{info.workflow_run_id}:{info.activity_id}"
