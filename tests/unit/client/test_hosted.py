"""Collecting outcomes from hosts ends when its task is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.client.bulk import BulkLane
from ackbridge.errors import CallError


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


class Deleted:
    """A handle of a workflow that the engine does not know any more."""

    id = "bulk:1"

    async def start_update(self, *_: Any, **__: Any) -> Any:
        raise RPCError("not found", RPCStatusCode.NOT_FOUND, b"")

    async def result(self) -> Any:
        raise RPCError("not found", RPCStatusCode.NOT_FOUND, b"")


async def test_a_host_that_was_deleted_is_no_engine_that_is_away() -> None:
    """`call-many` would give up all other calls for that."""
    nobody: Any = None
    handle: Any = Deleted()
    with pytest.raises(CallError, match="bulk:1: it was deleted"):
        await BulkLane(nobody, nobody)._take_ends(handle, 0, lambda: None)
