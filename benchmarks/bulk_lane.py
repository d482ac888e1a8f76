"""The bulk lane: calls that share workflows, measured as every other lane."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus

from .lanes import PAYLOAD

IN_FLIGHT = 10_000
"""Of `call_many`: the load decides how many calls are in flight."""
BULK, OPERATION = "bulk", "create_order"
"""The sandbox under a name of its own."""
SILENT: Mapping[str, Any] = {**PAYLOAD, "behaviour": {"stuck": True}}
"""The payload of a call that gets no response."""


class NotCompletedError(Exception):
    """A call did not end as the lane expects."""


class ManyCalls:
    """One `call_many` that is fed call by call; each caller waits for its own outcome."""

    def __init__(self, calls: AckbridgeClient, providers: Sequence[str] = (BULK,)) -> None:
        """Make calls of these providers in turn."""
        self._calls = calls
        self._providers = cycle(providers)
        self._requests: asyncio.Queue[CallRequest] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[CallOutcome]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take calls until the end of the block."""
        taking = asyncio.create_task(self._take())
        try:
            yield
        finally:
            taking.cancel()

    async def run(self, key: str) -> str:
        """One call to its end; gives its id."""
        request = self._request(key, PAYLOAD)
        ended = asyncio.get_running_loop().create_future()
        self._waiting[request.call_id] = ended
        self._requests.put_nowait(request)
        outcome = await ended
        if outcome.status is not OutcomeStatus.COMPLETED:
            raise NotCompletedError(f"{request.call_id} is {outcome.status}: {outcome.reason}")
        return request.call_id

    def start_silent(self) -> None:
        """Start a call that gets no response, and wait for nothing."""
        self._requests.put_nowait(self._request(f"silent-{uuid.uuid4().hex}", SILENT))

    def _request(self, key: str, payload: Mapping[str, Any]) -> CallRequest:
        provider = next(self._providers)
        return CallRequest(provider=provider, operation=OPERATION, key=key, payload=payload)

    async def _take(self) -> None:
        async for one in self._calls.call_many(self._endless(), in_flight=IN_FLIGHT):
            ended = self._waiting.pop(one.request.call_id, None)
            if ended is None or ended.done():
                continue
            if one.outcome is not None:
                ended.set_result(one.outcome)
            else:
                ended.set_exception(one.error or NotCompletedError(one.request.call_id))

    async def _endless(self) -> AsyncIterator[CallRequest]:
        while True:
            yield await self._requests.get()
