"""probe: ask a provider whether it is up."""

from __future__ import annotations

from datetime import timedelta

import httpx

from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import render_health
from ackbridge.errors import AckbridgeError
from ackbridge.http.client import ResponseTooLargeError, exchange
from ackbridge.stats.counters import Count
from activities.support.dependencies import Dependencies
from activities.support.retry import is_retryable

MAX_HEALTH_BYTES = 64 * 1024
"""Of an answer whose status is all that counts."""


async def probe(provisions: Dependencies, integration: Integration) -> Count | None:
    """HEALTHY, UNHEALTHY or UNCLEAR; None where there is no such request.

    Unclear is a refusal, which may be about the request, and whatever is our own trouble.
    """
    outbound = render_health(integration)
    if outbound is None:
        return None
    try:
        reply = await exchange(
            provisions.client,
            method=outbound.method,
            url=outbound.url,
            headers=outbound.headers,
            content=outbound.content,
            auth=provisions.auths.get(integration.provider),
            timeout=outbound.timeout or timedelta(seconds=5),
            max_bytes=MAX_HEALTH_BYTES,
        )
    except (httpx.PoolTimeout, AckbridgeError, ValueError) as error:
        # Too long an answer is one all the same.
        return Count.HEALTHY if isinstance(error, ResponseTooLargeError) else Count.UNCLEAR
    except (httpx.HTTPError, TimeoutError):
        return Count.UNHEALTHY
    if reply.status < 400:
        return Count.HEALTHY
    return Count.UNHEALTHY if is_retryable(reply.status) else Count.UNCLEAR
