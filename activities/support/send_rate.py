"""Set the dispatch rate of a provider's send queue in the engine, for all workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit
from temporalio.api.workflowservice.v1 import UpdateTaskQueueConfigRequest
from temporalio.client import Client

from ackbridge.contracts import names
from ackbridge.contracts.breaker import SendRate
from ackbridge.contracts.limits import MAX_ERROR_LENGTH
from ackbridge.contracts.quotas import WHOLE_QUOTA, QuotaStatus
from ackbridge.control.quotas import MIN_RATE, effective_rate

UNLIMITED_TENANT: Final = 1000.0
"""Sends per second of a tenant without a limit, while another tenant of the provider has one."""

RPC_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class QueueRate:
    """Sends per second, of all and of each tenant.

    Attributes:
        per_tenant: of tenants that are not in `tenants`.
    """

    per_second: float | None = None
    per_tenant: float | None = None
    tenants: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, base: SendRate, quotas: Mapping[str, QuotaStatus], now: datetime) -> QueueRate:
        """What quotas leave of the rate that the file, an operator and the breaker allow."""
        per_tenant = base.per_tenant
        limits = {
            tenant: effective_rate(status, per_tenant, now)
            for tenant, status in quotas.items()
            if tenant != WHOLE_QUOTA
        }
        if limits and per_tenant is None:
            per_tenant = UNLIMITED_TENANT
        return cls(
            per_second=effective_rate(quotas.get(WHOLE_QUOTA), base.per_second, now),
            per_tenant=per_tenant,
            tenants={
                tenant: max(MIN_RATE, limit)
                for tenant, limit in limits.items()
                if limit is not None
            },
        )


async def set_rate(
    client: Client,
    provider: str,
    rate: QueueRate,
    reason: str,
    *,
    no_longer: Iterable[str] = (),
) -> None:
    """Set the rate, which the engine keeps until it is set again.

    Args:
        no_longer: tenants that have no limit of their own any more.

    Raises:
        RPCError: the engine does not answer, or refuses.
    """
    # The rate of a fairness key is the default rate times its weight.
    weights = {
        tenant: limit / rate.per_tenant
        for tenant, limit in rate.tenants.items()
        if rate.per_tenant is not None
    }
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace,
        identity="ackbridge",
        task_queue=names.send_queue(provider),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        update_queue_rate_limit=_update(rate.per_second, reason),
        update_fairness_key_rate_limit_default=_update(rate.per_tenant, reason),
        set_fairness_weight_overrides=weights,
        unset_fairness_weight_overrides=[one for one in no_longer if one != WHOLE_QUOTA],
    )
    await client.workflow_service.update_task_queue_config(request, timeout=RPC_TIMEOUT)


def _update(per_second: float | None, reason: str) -> UpdateTaskQueueConfigRequest.RateLimitUpdate:
    limit = None if per_second is None else RateLimit(requests_per_second=per_second)
    return UpdateTaskQueueConfigRequest.RateLimitUpdate(
        rate_limit=limit, reason=reason[:MAX_ERROR_LENGTH]
    )
