"""Single exchanges through our HTTP client."""

from __future__ import annotations

from datetime import timedelta

import httpx

from ackbridge.http.client import HttpResponse, exchange

PATIENCE = timedelta(seconds=30)
MAX_BYTES = 10_000


async def get(
    client: httpx.AsyncClient, url: str, *, auth: httpx.Auth | None = None, pool: str = ""
) -> HttpResponse:
    """One GET, bounded."""
    return await exchange(
        client,
        method="GET",
        url=url,
        headers={},
        content=None,
        auth=auth,
        timeout=PATIENCE,
        max_bytes=MAX_BYTES,
        pool=pool,
    )
