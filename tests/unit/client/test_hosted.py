"""Collecting outcomes from hosts ends when its task is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError

from ackbridge.client.bulk import BulkLane


class NeverAnswers:
    """A handle whose updates wait, and report a cancellation as the SDK does."""

    id = "bulk:1"

    async def start_update(self, *_: Any, **__: Any) -> Any:
        """Wait for ever."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise WorkflowUpdateRPCTimeoutOrCancelledError from error


async def test_a_cancelled_task_does_not_ask_again() -> None:
    """The SDK raises another error for it; a client that went on asking could not be closed."""
    nobody: Any = None
    handle: Any = NeverAnswers()
    asking = asyncio.create_task(BulkLane(nobody, nobody)._take_ends(handle, 0, lambda: None))
    await asyncio.sleep(0)
    asking.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await asking
