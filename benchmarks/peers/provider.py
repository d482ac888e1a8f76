"""The provider as every peer reaches it."""

from __future__ import annotations

import os
from typing import Any

import aiohttp

IN_FLIGHT = 200
TIMEOUT = aiohttp.ClientTimeout(total=30)


class Provider:
    """Sends orders and acknowledges them, by aiohttp: the cheapest client there is."""

    def __init__(self, url: str) -> None:
        """Prepare; must be made where the event loop runs.

        Args:
            url: of the simulated provider, whose API key is in `SANDBOX_API_KEY`.
        """
        self._session = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {os.environ['SANDBOX_API_KEY']}"},
            connector=aiohttp.TCPConnector(limit=IN_FLIGHT),
            timeout=TIMEOUT,
        )

    async def send(self, key: str, payload: dict[str, Any], callback_url: str) -> str:
        """Send an order; the answer is the provider's reference."""
        order = {"call_id": key, "callback_url": callback_url, **payload}
        async with self._session.post(
            "/v1/orders", json=order, headers={"Idempotency-Key": key}
        ) as reply:
            reply.raise_for_status()
            return str((await reply.json())["id"])

    async def acknowledge(self, key: str, reference: str) -> None:
        """Confirm the provider's response to it."""
        async with self._session.post(
            f"/v1/orders/{reference}/acknowledgements",
            json={"status": "success", "call_id": key},
            headers={"Idempotency-Key": f"{key}:success"},
        ) as reply:
            reply.raise_for_status()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
