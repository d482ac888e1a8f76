"""Writes golden histories: `python -m tests.replay.capture`.

Only those that are not there yet: a history is never made anew to turn a test green.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ackbridge.contracts import CallRequest
from ackbridge.embedded import EmbeddedEngine
from ackbridge.errors import CallError
from tests.integration.stage import Stage, set_up

HISTORIES = Path(__file__).with_name("histories")
PATIENCE = timedelta(minutes=1)

WORKER = re.compile(r"^\d+@[\w.-]+")
"""Process and host, as the names of sticky queues begin."""

Scenario = Callable[[Stage], Awaitable[CallRequest]]


async def completed(stage: Stage) -> CallRequest:
    """The happy path of the four steps."""
    return await _run(stage, stage.request(delay_ms=100))


async def completed_sync(stage: Stage) -> CallRequest:
    """A synchronous answer."""
    return await _run(stage, stage.request("quote"))


async def completed_duplicate(stage: Stage) -> CallRequest:
    """The same message by two ways, so that the workflow itself suppresses one."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    message = {"kind": "response", "event_key": "evt-1", "data": {"ok": True}}
    await asyncio.gather(
        *(stage.handle(request).signal("provider_message", message) for _ in range(2))
    )
    return await _run(stage, request)


async def completed_after_retries(stage: Stage) -> CallRequest:
    """The first sends and the first acknowledgements were not taken."""
    return await _run(stage, stage.request(receipt_failures=2, acknowledgement_failures=2))


async def failed_silent(stage: Stage) -> CallRequest:
    """Two cycles of silence."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=90))
    return await _run(stage, request)


async def completed_by_asking(stage: Stage) -> CallRequest:
    """The callback never came; the provider was asked."""
    request = stage.request(silent=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
    return await _run(stage, request)


async def failed_by_provider(stage: Stage) -> CallRequest:
    """The provider reports a final failure."""
    return await _run(stage, stage.request(fail=9))


async def failed_invalid(stage: Stage) -> CallRequest:
    """The payload does not validate."""
    return await _run(stage, stage.request().model_copy(update={"payload": {}}))


async def cancelled(stage: Stage) -> CallRequest:
    """A cancel while the response is awaited."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await call.cancel(by="ann", reason="ordered twice")
    return await _run(stage, request)


async def forced(stage: Stage) -> CallRequest:
    """An operator's word for the answer, after a signal that did not validate."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.handle(request).signal("force_ack", {"by": "bo"})
    await call.force_ack(by="bo", reason="seen in their console", response={"id": 9})
    return await _run(stage, request)


async def awaited(stage: Stage) -> CallRequest:
    """A synchronous caller whose patience ends, and one who gets the outcome."""
    request = stage.request(delay_ms=800)
    await stage.calls.start_and_wait(request, timedelta(milliseconds=100))
    await stage.calls.start_and_wait(request, PATIENCE)
    return await _run(stage, request)


SCENARIOS: list[Scenario] = [
    completed,
    completed_sync,
    completed_duplicate,
    completed_after_retries,
    completed_by_asking,
    failed_silent,
    failed_by_provider,
    failed_invalid,
    cancelled,
    forced,
    awaited,
]


async def _run(stage: Stage, request: CallRequest) -> CallRequest:
    with contextlib.suppress(CallError):
        await (await stage.calls.start(request)).outcome(PATIENCE)
    return request


def _without_traces_of_the_machine(history: str) -> str:
    """Leave out stack traces and worker identities, which replay does not look at."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k not in ("stackTrace", "identity")}
        if isinstance(value, str):
            return WORKER.sub("1@worker", value)
        return [clean(one) for one in value] if isinstance(value, list) else value

    return json.dumps(clean(json.loads(history)), indent=1)


async def main() -> None:
    """Play every scenario that has no history yet, and keep its history."""
    HISTORIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "engine.db"
        with EmbeddedEngine(state, headless=True, time_skipping=True) as engine:
            async with set_up(engine.address, Path(folder)) as stage:
                for scenario in SCENARIOS:
                    path = HISTORIES / f"{scenario.__name__}.json"
                    if path.exists():
                        continue
                    request = await scenario(stage)
                    history = await stage.handle(request).fetch_history()
                    path.write_text(_without_traces_of_the_machine(history.to_json()))
                    print(f"{path.name}: {len(history.events)} events")


if __name__ == "__main__":
    asyncio.run(main())
