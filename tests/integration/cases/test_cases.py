"""Every case, played against one deployment, all at the same time."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from itertools import islice, starmap
from pathlib import Path

import pytest
import pytest_asyncio

from ackbridge.catalog.loading import load_integration
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.errors import (
    CallCancelledError,
    CallFailedError,
    EngineUnavailableError,
    IntegrationFileError,
)
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.processes import run_command
from tests.support.scripted_provider import ScriptedProvider
from tests.support.stage import Stage, set_up

from .callback import SECRETS, Callback
from .case import Case, Observed, ObservedCall, StartedCall, load_cases

pytestmark = pytest.mark.slow

CASES = load_cases(Path(__file__).parent / "files")
STARTS_EVERY = 0.15
"""Seconds between the starts of two cases: their own times are short."""
CALM = 8
"""Cases that may still be played when those begin that measure time."""
SETTLES_WITHIN = 20.0
"""Seconds in which the rest shows after the outcome; the inbox is looked through every five."""
CALLBACKS_WITHIN = 10.0

Problems = dict[str, list[str]]


class Player:
    """Plays one case."""

    def __init__(self, case: Case, stage: Stage, provider: ScriptedProvider) -> None:
        self._case = case
        self._stage = stage
        self._provider = provider
        self._replies: dict[int, tuple[int, str]] = {}
        self._started: dict[str, str] = {}
        self._ended_at: dict[str, float] = {}

    async def play(self) -> list[str]:
        """Call, and send the callbacks; what is wrong in the end."""
        async with asyncio.TaskGroup() as tasks:
            sending = [
                tasks.create_task(self._send(number, callback))
                for number, callback in enumerate(self._case.callbacks)
            ]
            await asyncio.gather(*starmap(self._call, self._case.all_calls.items()))
            if sending:
                await asyncio.wait(sending, timeout=CALLBACKS_WITHIN)
            for task in sending:
                task.cancel()
        return await self._judge()

    async def _call(self, name: str, call: StartedCall) -> None:
        """Start a call with plain JSON, and wait for its outcome."""
        await asyncio.sleep(call.wait)
        fields = call.model_dump(exclude_none=True, exclude={"wait"})
        request = {"provider": self._case.name, **fields}
        if call.expires_at is not None:
            request["expires_at"] = (utc_now() + timedelta(seconds=call.expires_at)).isoformat()
        call_id = self._started[name] = f"{self._case.name}.{call.operation}.{call.key}"
        await self._stage.client.start_workflow(
            names.INTEGRATION_CALL, request, id=call_id, task_queue=names.TASK_QUEUE
        )
        try:
            await self._stage.calls.call(call_id).outcome(timedelta(seconds=self._case.limit))
        except TimeoutError:
            return
        except (CallFailedError, CallCancelledError):
            pass
        self._ended_at[name] = asyncio.get_running_loop().time()

    async def _send(self, number: int, callback: Callback) -> None:
        await self._provider.wait_for(
            self._case.name, callback.after or {self._case.first_route: 1}
        )
        await asyncio.sleep(callback.wait)
        reply = await self._stage.http.request(
            callback.method,
            f"{self._stage.gateway_url}/callbacks/{self._case.name}",
            content=callback.content(),
            # The gateway closes idle connections, and may do so just when one is used again.
            headers={**callback.all_headers(), "Connection": "close"},
        )
        self._replies[number] = (reply.status_code, reply.text)

    async def _judge(self) -> list[str]:
        """Look until it is right, or it will not be any more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLES_WITHIN
        while problems := await self._problems():
            if loop.time() > until:
                break
            await asyncio.sleep(0.5)
        return problems

    async def _problems(self) -> list[str]:
        """What is wrong now; a query that nobody answers is a problem of this case alone."""
        try:
            return self._case.problems(await self._observe())
        except EngineUnavailableError as error:
            return [str(error)]

    async def _observe(self) -> Observed:
        requests = self._provider.requests(self._case.name)
        calls = {}
        for name, call_id in self._started.items():
            ended_at = self._ended_at.get(name)
            calls[name] = ObservedCall(
                status=await self._stage.calls.call(call_id).status(),
                seconds=ended_at - requests[0].at if requests and ended_at is not None else None,
            )
        return Observed(
            calls=calls,
            requests=requests,
            replies=self._replies,
            held=len(await self._stage.ledger.inbox.held(self._case.name)),
        )


def check(case: Case, folder: Path) -> list[str]:
    """Let `ackbridge check` read the file of a case; what is wrong with what it says."""
    path = folder / case.name / "file.yaml"
    path.parent.mkdir()
    path.write_text(case.file)
    done = run_command({**os.environ, **SECRETS, "COLUMNS": "240"}, "check", str(path))
    output = (done.stdout + done.stderr).replace(str(path), path.name)
    return case.problems_of_check(done.returncode, output)


def write_files(folder: Path, environ: dict[str, str], names: set[str]) -> Problems:
    """Write the integration files of cases; returns the problems of those that are refused."""
    refused: Problems = {}
    for name in names:
        case = CASES[name]
        if case.kind == "check":
            continue
        path = folder / f"{name}.yaml"
        path.write_text(case.file)
        try:
            load_integration(path, environ)
        except IntegrationFileError as error:
            refused[name] = case.problems_of_refusal(str(error))
            path.unlink()
    return refused


async def play_cases(engine: EmbeddedEngine, folder: Path, names: set[str]) -> Problems:
    """Play these cases side by side against a deployment of their own; what is wrong, by case."""
    folder.mkdir()
    found: Problems = {}
    provider = ScriptedProvider({name: case.provider for name, case in CASES.items()})
    async with provider.serve() as url:
        environ = {"CASE_PROVIDER": url, **SECRETS}
        integrations = folder / "integrations"
        integrations.mkdir()
        found |= write_files(integrations, environ, names)
        async with set_up(engine, folder, integrations, environ=environ) as stage:

            async def play(case: Case, wait: float) -> None:
                if case.kind == "check":
                    found[case.name] = await asyncio.to_thread(check, case, folder)
                else:
                    await asyncio.sleep(wait)
                    found[case.name] = await Player(case, stage, provider).play()

            left = [CASES[name] for name in names - found.keys()]
            left.sort(key=lambda case: -case.limit)
            playing = [
                asyncio.create_task(play(case, number * STARTS_EVERY))
                for number, case in enumerate(case for case in left if not case.is_timed)
            ]
            for ended in islice(asyncio.as_completed(playing), max(0, len(playing) - CALM)):
                await ended
            await asyncio.gather(*playing, *(play(one, 0) for one in left if one.is_timed))
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def problems(
    request: pytest.FixtureRequest,
    engine: EmbeddedEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Problems:
    """What is wrong, by case, after all selected ones have been played.

    All of them at once are a rush on a busy machine, and cases have times: what failed is played
    again, without the others.
    """
    selected = {item.name for item in request.session.items}
    folder = tmp_path_factory.mktemp("cases")
    names = {name for name in CASES if f"test_case[{name}]" in selected}
    found = await play_cases(engine, folder / "first", names)
    if failed := {name for name in names if found[name]}:
        found |= await play_cases(engine, folder / "again", failed)
    return found


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, problems: Problems) -> None:
    """The call ends as the case says, and the provider gets what it says."""
    assert problems[name] == []
