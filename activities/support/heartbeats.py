"""Long-running activities: what an earlier attempt reported, and waiting until shutdown."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TypeVar

from pydantic import ValidationError
from temporalio import activity

from ackbridge.contracts.wire import Wire

Details = TypeVar("Details", bound=Wire)


def last_heartbeat(model: type[Details]) -> Details | None:
    """The details an earlier attempt last reported; None if there are none of this version."""
    for details in activity.info().heartbeat_details:
        try:
            return model.model_validate(details)
        except ValidationError:
            return None
    return None


async def worker_shuts_down(within: timedelta) -> bool:
    """Wait for this long; true as soon as the worker begins to shut down."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            await activity.wait_for_worker_shutdown()
    except TimeoutError:
        return False
    return True
