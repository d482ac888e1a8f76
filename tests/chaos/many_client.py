"""Callers that leave their calls to the process of `many_caller`, which is killed now and then."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ackbridge.contracts.calls import CallOutcome, CallRequest
from ackbridge.local.processes import ProcessPlan, StackProcess
from ackbridge.settings import app_folder

from . import many_caller

CALLER = "caller"
"""The name of the process."""

START_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True)
class ManyAnswer:
    """What `call_many` said about one call; one of the three is set."""

    outcome: CallOutcome | None = None
    refusal: str | None = None
    error: str | None = None


class ManyClient:
    """Passes requests on to the process, and waits for its answers.

    Attributes:
        process: not started yet.
    """

    def __init__(self, folder: Path, log: Path, environ: Mapping[str, str]) -> None:
        """Exchange requests and answers by files in `folder`, which exists."""
        self._folder = folder
        self._waiting: dict[str, asyncio.Future[ManyAnswer]] = {}
        self.process = StackProcess(
            CALLER,
            ProcessPlan(
                command=(sys.executable, "-m", many_caller.__name__, str(folder)),
                is_ready=lambda output: many_caller.READY in output,
            ),
            environ={**environ, "PYTHONPATH": str(app_folder())},
            log=log,
            folder=folder,
            start_timeout=START_TIMEOUT,
        )

    def ask(self, request: CallRequest) -> asyncio.Future[ManyAnswer]:
        """Have a call made, each key once; the request is in the file when this returns."""
        answered = asyncio.get_running_loop().create_future()
        self._waiting[request.key] = answered
        with (self._folder / many_caller.REQUESTS).open("a") as file:
            file.write(request.model_dump_json() + "\n")
        return answered

    async def take_answers(self) -> None:
        """Pass on the answers as they come; ends only with its task."""
        async for line in many_caller.lines_of(self._folder / many_caller.ANSWERS):
            told = json.loads(line)
            self._waiting[told["key"]].set_result(_answer(told))


def _answer(told: Mapping[str, Any]) -> ManyAnswer:
    match told["status"]:
        case "refused":
            return ManyAnswer(refusal=told["reason"])
        case "error":
            return ManyAnswer(error=told["reason"])
        case _:
            return ManyAnswer(CallOutcome.model_validate(told["outcome"]))
