"""Limits the sends of a provider to the rate that it turns out to accept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from temporalio import activity
from temporalio.service import RPCError

from ackbridge.contracts.breaker import SendRate
from ackbridge.contracts.control import ObserveStep
from ackbridge.contracts.quotas import WHOLE_QUOTA, QuotaReport, QuotaStatus
from ackbridge.control.quotas import WINDOW, adapt, effective_rate
from ackbridge.ledger.ledger import Ledger

from .send_rate import QueueRate, set_rate

PUBLISHED_WITHIN: Final = 1.5
"""A rate is published again when it has changed by this factor: each time costs history."""

MIN_PUBLISHED_PAUSE: Final = 5.0
"""Seconds: a shorter pause is over when other workers read of it."""

MAX_TENANTS: Final = 100

log = logging.getLogger(__name__)


class QuotaControl:
    """Adapts the rates of one provider and its tenants, for as long as its monitoring runs.

    The rates are in the ledger, where another worker goes on with them, and in the engine. Only
    that a limit begins, ends or changes much is a decision of the control.
    """

    def __init__(self, ledger: Ledger, step: ObserveStep) -> None:
        self._ledger = ledger
        self._step = step
        self._statuses: dict[str, QuotaStatus] | None = None
        self._applied: QueueRate | None = None

    async def check(self, base: SendRate, now: datetime) -> dict[str, QuotaStatus] | None:
        """Adapt all rates; what has to be published, None if nothing has.

        Args:
            base: the rate without quotas.

        Raises:
            LedgerUnavailableError: the ledger does not answer.
        """
        provider = self._step.provider
        before = self._statuses
        if before is None:
            before = await self._read(provider)
        reports = await self._ledger.stats.quota_reports(provider, now - WINDOW)
        after = _adapted(before, reports, now)
        if after or before:
            await self._apply(base, after, before, now)
        if after != before:
            await self._ledger.stats.save_quotas(provider, after)
        self._statuses = after
        return after if _is_news(self._step.quotas, after, now) else None

    async def _read(self, provider: str) -> dict[str, QuotaStatus]:
        """The limits of before, but for those that an operator's limit has ended."""
        changed_at = self._step.limit_changed_at
        known = await self._ledger.stats.quotas(provider)
        if changed_at is None:
            return known
        kept = {tenant: one for tenant, one in known.items() if one.since > changed_at}
        if kept != known:
            await self._ledger.stats.save_quotas(provider, kept)
        return kept

    async def _apply(
        self,
        base: SendRate,
        after: Mapping[str, QuotaStatus],
        before: Mapping[str, QuotaStatus],
        now: datetime,
    ) -> None:
        rate = QueueRate.of(base, after, now)
        if rate == self._applied:
            return
        whole = after.get(WHOLE_QUOTA)
        reason = whole.reason if whole else "what the provider accepts"
        try:
            await set_rate(
                activity.client(),
                self._step.provider,
                rate,
                reason,
                no_longer=before.keys() - after,
            )
        except RPCError as error:
            log.warning("sends of %s are not slowed: %s", self._step.provider, error.status.name)
        self._applied = rate


def _adapted(
    before: Mapping[str, QuotaStatus], reports: list[QuotaReport], now: datetime
) -> dict[str, QuotaStatus]:
    after = {}
    by_tenant: dict[str, list[QuotaReport]] = {tenant: [] for tenant in before}
    for report in reports:
        if report.tenant in by_tenant or len(by_tenant) < MAX_TENANTS:
            by_tenant.setdefault(report.tenant, []).append(report)
    for tenant, known in by_tenant.items():
        status = adapt(before.get(tenant), known, now)
        if status is not None:
            after[tenant] = status
    return after


def _is_news(
    published: Mapping[str, QuotaStatus], after: Mapping[str, QuotaStatus], now: datetime
) -> bool:
    return any(
        _is_other(published.get(tenant), after.get(tenant), now)
        for tenant in published.keys() | after
    )


def _is_other(published: QuotaStatus | None, status: QuotaStatus | None, now: datetime) -> bool:
    if published is None or status is None:
        return status is None or _is_lasting(status, now)
    before, after = (effective_rate(one, None, max(one.since, now)) for one in (published, status))
    if not before or not after:
        return False
    return not before / PUBLISHED_WITHIN < after < before * PUBLISHED_WITHIN


def _is_lasting(status: QuotaStatus, now: datetime) -> bool:
    if status.per_second is not None or status.stated is not None or status.paused_until is None:
        return True
    return (status.paused_until - now).total_seconds() >= MIN_PUBLISHED_PAUSE
