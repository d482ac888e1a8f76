"""A service that makes calls with `call_many`, as a process that may be killed at any time.

It reads requests from a file that grows, and adds what it learns to another one. After a kill it
asks again for all calls without an answer, with the same requests.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ackbridge.cli.call_files import ResultFile
from ackbridge.client.bulk import BulkOutcome
from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import EngineUnavailableError, InvalidRequestError, KeyReusedError
from ackbridge.workarounds.temporal_sdk import exit_process

READY = "ready to make calls"
REQUESTS = "requests.ndjson"
ANSWERS = "answers.ndjson"

LOOK_EVERY = 0.05
"""Seconds between two looks for new requests."""

AGAIN_AFTER = 0.5
"""Seconds after which a call is asked for again whose outcome is not known."""


def main() -> int:
    """Make the calls of the folder that is the only argument; ends only with its process."""
    asyncio.run(_serve(Path(sys.argv[1])))
    return 0


async def _serve(folder: Path) -> None:
    with ResultFile(folder / ANSWERS) as answers:
        calls = await AckbridgeClient.connect()
        print(READY, flush=True)
        requests: asyncio.Queue[CallRequest] = asyncio.Queue()
        reading = asyncio.create_task(_read(folder / REQUESTS, answers, requests))
        async for one in calls.call_many(_queued(requests)):
            if isinstance(one.error, EngineUnavailableError):
                asyncio.get_running_loop().call_later(AGAIN_AFTER, requests.put_nowait, one.request)
            else:
                status, answer = _answer(one)
                answers.add(one.request, status, answer)
        await reading


async def _read(path: Path, answers: ResultFile, requests: asyncio.Queue[CallRequest]) -> None:
    """Queue the requests of a file that have no answer yet, and those that are added to it."""
    async for line in lines_of(path):
        request = CallRequest.model_validate_json(line)
        if not answers.is_finished(request):
            requests.put_nowait(request)


async def _queued(requests: asyncio.Queue[CallRequest]) -> AsyncIterator[CallRequest]:
    while True:
        yield await requests.get()


def _answer(one: BulkOutcome) -> tuple[str, dict[str, Any]]:
    if one.outcome is not None:
        return str(one.outcome.status), {"outcome": one.outcome.model_dump(mode="json")}
    is_refused = isinstance(one.error, InvalidRequestError | KeyReusedError)
    reason = str(one.error) if is_refused else f"{type(one.error).__name__}: {one.error}"
    return "refused" if is_refused else "error", {"reason": reason}


async def lines_of(path: Path) -> AsyncIterator[str]:
    """The complete lines of a file, and those that are added to it, without end."""
    position = 0
    while True:
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                added = file.read()
            complete = added[: added.rfind(b"\n") + 1]
            position += len(complete)
            for line in complete.splitlines():
                yield line.decode()
        await asyncio.sleep(LOOK_EVERY)


if __name__ == "__main__":
    exit_process(main())
