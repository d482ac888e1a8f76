"""Collecting outcomes from hosts ends when its task is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ackbridge.client.bulk import BulkLane, CallMany
from ackbridge.contracts.bulk import CallEnds
from ackbridge.contracts.calls import CallRequest
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


class Update:
    """An update that has its result."""

    async def result(self) -> CallEnds:
        return CallEnds(ends=(), remaining=0)


class Stored:
    """A handle of a host that runs."""

    id = "bulk:1"

    async def start_update(self, *_: Any, **__: Any) -> Update:
        return Update()


async def test_a_host_whose_first_answer_was_lost_is_asked_again() -> None:
    """The repeated start says that it is there; its calls would be reported as unknown."""
    nobody: Any = None
    handle: Any = Stored()

    async def start() -> Any:
        raise WorkflowAlreadyStartedError("bulk:1", "BulkCalls")

    starting = asyncio.create_task(start())
    ends = await BulkLane(nobody, nobody)._take_ends(handle, 0, lambda: None, starting)
    assert ends.remaining == 0


class Broken:
    """A lane with a defect."""

    def submit(self, _request: CallRequest) -> Any:
        raise ZeroDivisionError


async def test_no_request_of_many_goes_missing() -> None:
    """An error that nobody has thought of is how this request ended, and the others go on."""
    lane: Any = Broken()

    async def check(_request: CallRequest) -> None:
        pass

    async def follow(_request: CallRequest) -> Any:
        pass

    requests = [
        CallRequest(provider="shop", operation="order", key=str(number), payload={})
        for number in range(3)
    ]
    async with asyncio.timeout(5):
        ended = [one async for one in CallMany(lane, check, follow, 2).run(requests)]
    assert [one.request.key for one in ended] == ["0", "1", "2"]
    assert {str(one.error) for one in ended} == {"unexpected error: ZeroDivisionError"}
