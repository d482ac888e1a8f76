"""How fast a provider is sent requests, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ackbridge.clock import Clock
from ackbridge.contracts.breaker import LimitOverride, SendRate
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.quotas import WHOLE_QUOTA, QuotaReport, QuotaStatus
from ackbridge.contracts.wire import Wire
from ackbridge.control.quotas import WINDOW, effective_rate, merged
from ackbridge.ledger.ledger import Ledger


class QuotaView(Wire):
    """What a provider, or one tenant there, is sent.

    Attributes:
        tenant: empty for the provider as a whole.
        now: sends per second now; None: unlimited.
        accepted, throttled: requests of the last minute, where workers report them.
        in_flight, waiting: requests that have a lease, and that wait for one, where the file limits
            how many there are at once.
    """

    tenant: str
    now: float | None
    accepted: int = 0
    throttled: int = 0
    in_flight: int = 0
    waiting: int = 0
    status: QuotaStatus | None = None


class LimitView(Wire):
    """The limits of a provider's sends.

    Attributes:
        rate: what the integration file, an operator and the breaker allow; None: not set yet.
        limit: an operator's, in place of the file's.
        quotas: the provider's, then those of its tenants.
    """

    provider: str
    rate: SendRate | None
    limit: LimitOverride | None
    quotas: tuple[QuotaView, ...]


async def read_limits(snapshot: ControlSnapshot, ledger: Ledger, clock: Clock) -> LimitView:
    """The limits of a provider, with what the ledger knows of its quotas and leases."""
    now, provider = clock(), snapshot.provider
    statuses = await ledger.stats.quotas(provider)
    reports = await ledger.stats.quota_reports(provider, now - WINDOW)
    leases = await ledger.leases.counts(provider)
    tenants = {WHOLE_QUOTA, *statuses, *leases, *(one.tenant for one in reports)}
    base = snapshot.rate or SendRate()
    quotas = [
        _view(
            tenant,
            base.per_second if tenant == WHOLE_QUOTA else base.per_tenant,
            statuses.get(tenant),
            [one for one in reports if one.tenant == tenant],
            [counts for one, counts in leases.items() if tenant in (WHOLE_QUOTA, one)],
            now,
        )
        for tenant in sorted(tenants)
    ]
    return LimitView(
        provider=provider, rate=snapshot.rate, limit=snapshot.limit, quotas=tuple(quotas)
    )


def _view(
    tenant: str,
    base: float | None,
    status: QuotaStatus | None,
    reports: Sequence[QuotaReport],
    leases: Sequence[tuple[int, int]],
    now: datetime,
) -> QuotaView:
    seconds = [one for one in merged(reports) if one.at >= (now - WINDOW).timestamp()]
    return QuotaView(
        tenant=tenant,
        now=effective_rate(status, base, now),
        accepted=sum(one.accepted for one in seconds),
        throttled=sum(one.throttled for one in seconds),
        in_flight=sum(in_flight for in_flight, _ in leases),
        waiting=sum(waiting for _, waiting in leases),
        status=status,
    )
