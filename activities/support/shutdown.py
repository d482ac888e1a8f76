"""Waiting in an activity, and noticing that its worker stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity


async def worker_stops(within: timedelta) -> bool:
    """Wait for so long; true at once when this worker is told to stop."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            await activity.wait_for_worker_shutdown()
    except TimeoutError:
        return False
    return True
