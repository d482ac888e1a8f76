"""The workflows our call is measured against, alone in a module that the sandbox loads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

TASK_QUEUE = "benchmark"
FLOOR = "Floor"
TEXTBOOK = "Textbook"
TIMEOUT = timedelta(seconds=10)
DEADLINE = timedelta(seconds=30)


@workflow.defn(name=FLOOR)
class Floor:
    """One empty activity."""

    @workflow.run
    async def run(self) -> None:
        """Run it."""
        await workflow.execute_activity("nothing", start_to_close_timeout=TIMEOUT)


@workflow.defn(name=TEXTBOOK)
class Textbook:
    """One regular activity for each step, the callback by signal, a timer for the deadline."""

    def __init__(self) -> None:
        self._response: dict[str, Any] | None = None

    @workflow.signal
    def callback(self, response: dict[str, Any]) -> None:
        """The provider's response."""
        self._response = response

    @workflow.run
    async def run(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Prepare, send, wait, record, acknowledge."""
        await self._step("prepare", request)
        reference = await self._step("send", request)
        await workflow.wait_condition(lambda: self._response is not None, timeout=DEADLINE)
        await self._step("record", {"key": request["key"], "response": self._response})
        await self._step("acknowledge", {"reference": reference, "key": request["key"]})
        return self._response

    async def _step(self, name: str, argument: Any) -> Any:
        return await workflow.execute_activity(name, argument, start_to_close_timeout=TIMEOUT)
