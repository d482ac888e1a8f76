"""Waiting until nothing moves any more: bounded, and then whatever is, is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from ackbridge.contracts import names

from .reading_ledger import read_standing
from .reading_provider import count_provider

LOOK_EVERY = 1.0
"""Seconds between two looks."""

QUIET_LOOKS = 3
"""Looks in a row that have to find everything at rest: visibility lags."""


@dataclass(frozen=True)
class Rest:
    """What is still on its way.

    Attributes:
        moving: calls that are open and not parked for long.
        pending: entries in the inbox.
        provider: its counts; they change while it still talks.
    """

    moving: frozenset[str]
    pending: int
    provider: dict[str, Any]

    def is_after(self, before: Rest | None) -> bool:
        """Whether nothing moves, and nothing has moved since."""
        quiet = not self.moving and not self.pending
        return quiet and before is not None and before.provider == self.provider


async def settle(look: Callable[[], Any], within: timedelta) -> Rest:
    """Look again and again until everything is at rest, or time is up; the last look."""
    until = time.monotonic() + within.total_seconds()
    before: Rest | None = None
    quiet = 0
    while True:
        rest: Rest = await look()
        quiet = quiet + 1 if rest.is_after(before) else 0
        if quiet >= QUIET_LOOKS or time.monotonic() > until:
            return rest
        before = rest
        await asyncio.sleep(LOOK_EVERY)


async def look_around(
    client: Client, ledger: Path, provider_url: str, stays_parked: Callable[[str], bool]
) -> Rest:
    """What moves now.

    Args:
        stays_parked: whether a parked call of this id outlives the run.
    """
    standing = await asyncio.to_thread(read_standing, ledger)
    query = f"WorkflowType = '{names.INTEGRATION_CALL}' AND ExecutionStatus = 'Running'"
    try:
        running = [one.id async for one in client.list_workflows(query)]
    except RPCError:
        running = ["the engine does not say"]
    moving = {
        call_id
        for call_id in running
        if not (standing.stages.get(call_id) == "parked" and stays_parked(call_id))
    }
    return Rest(frozenset(moving), standing.pending, await count_provider(provider_url))
