"""Wait, up to a timeout, until no call, message or callback is in progress."""

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

from .ledger_reader import read_progress
from .provider_reader import count_provider

CHECK_EVERY = 1.0
"""Seconds between two checks."""

QUIET_CHECKS = 3
"""Consecutive checks that must find no activity: visibility lags."""


@dataclass(frozen=True)
class Activity:
    """What is still in progress.

    Attributes:
        moving: workflows that are open, and have no call that is parked for long.
        pending: entries in the inbox.
        provider: its counters, which change while it still sends.
    """

    moving: frozenset[str]
    pending: int
    provider: dict[str, Any]

    def is_after(self, before: Activity | None) -> bool:
        """Whether nothing is in progress, and nothing has changed since."""
        quiet = not self.moving and not self.pending
        return quiet and before is not None and before.provider == self.provider


async def wait_until_quiet(look: Callable[[], Any], within: timedelta) -> Activity:
    """Check until everything is quiet, or time is up; returns the last result."""
    until = time.monotonic() + within.total_seconds()
    before: Activity | None = None
    quiet = 0
    while True:
        rest: Activity = await look()
        quiet = quiet + 1 if rest.is_after(before) else 0
        if quiet >= QUIET_CHECKS or time.monotonic() > until:
            return rest
        before = rest
        await asyncio.sleep(CHECK_EVERY)


async def read_activity(
    client: Client, ledger: Path, provider_url: str, stays_parked: Callable[[str], bool]
) -> Activity:
    """What is in progress now.

    Args:
        stays_parked: whether a parked call of this id outlives the run.
    """
    standing = await asyncio.to_thread(read_progress, ledger)
    types = f"'{names.INTEGRATION_CALL}', '{names.BULK_CALLS}'"
    query = f"WorkflowType IN ({types}) AND ExecutionStatus = 'Running'"
    try:
        running = [one.id async for one in client.list_workflows(query)]
    except RPCError:
        running = ["the engine does not say"]
    parked = {
        call_id
        for call_id, stage in standing.stages.items()
        if stage == "parked" and stays_parked(call_id)
    }
    # A call is parked in its host where a workflow of its own id waits for that.
    parked |= {host for call_id, host in standing.hosts.items() if call_id in parked}
    moving = set(running) - parked
    return Activity(frozenset(moving), standing.pending, await count_provider(provider_url))
