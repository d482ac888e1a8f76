"""`ackbridge api`, the process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import ManagedProcess
from ackbridge.security.http_auth import read_api_keys
from tests.support.api import write_keys
from tests.support.commands import run_all
from tests.support.stage import INTEGRATIONS, Stage, worker_environment


async def test_without_authentication_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is served to just anybody; the document is printed all the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("ISSUER", "API_KEYS"):
        monkeypatch.delenv(f"ACKBRIDGE_AUTH_{name}", raising=False)
    refused, printed = await run_all([["api"], ["api", "--openapi"]])
    assert (refused.status, refused.raised) == (2, None)
    assert "needs ACKBRIDGE_AUTH_*" in refused.err
    assert json.loads(printed.out)["openapi"].startswith("3.1")


async def test_keys_for_one_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role may name a provider; one that is misspelt is named, and no key is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACKBRIDGE_AUTH_API_KEYS", str(tmp_path / "keys.json"))
    new = ("api-key", "new", "shop", "--name", "the shop", "--role")
    (refused,) = await run_all([[*new, "stear:sandbox"]])
    assert (refused.status, refused.raised) == (2, None)
    assert "unknown role 'stear'; " in refused.err
    assert "Did you mean 'steer'?" in refused.err
    (made,) = await run_all([[*new, "start:sandbox", "--role", "read"]])
    assert made.status == 0, made.err
    (entry,) = read_api_keys(tmp_path / "keys.json")
    assert entry.roles == {"start:sandbox", "read"}


@pytest.mark.extended
async def test_it_starts_calls_and_stops(stage: Stage, tmp_path: Path) -> None:
    """With health for everybody, and calls for those with a key."""
    (key,) = write_keys(tmp_path / "keys.json", "start:sandbox").values()
    port = LoopbackPort()
    environ = {
        **worker_environment(stage, INTEGRATIONS),
        "ACKBRIDGE_AUTH_API_KEYS": str(tmp_path / "keys.json"),
    }
    command = [sys.executable, "-m", "ackbridge", "api", "--port", str(port.number)]
    process = ManagedProcess(command, environ=environ, log=tmp_path / "api.log", folder=tmp_path)
    process.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port.number}", timeout=60
        ) as http:
            await _wait_until_ready(http, process)
            request = stage.request()
            body = {"provider": request.provider, "operation": request.operation}
            body = {**body, "payload": request.payload}
            assert (await http.post("/calls", json=body)).status_code == 401
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": request.key}
            done = await http.post("/calls", json=body, headers={**headers, "Prefer": "wait=30"})
            assert (done.status_code, done.json()["answer"]) == (200, "completed")
            assert "server" not in done.headers
            large = {**headers, "X-Large": "x" * 40_000}
            assert (await http.post("/calls", json=body, headers=large)).status_code == 431
    finally:
        process.stop(timedelta(seconds=10))


async def _wait_until_ready(http: httpx.AsyncClient, process: ManagedProcess) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.is_running:
        try:
            if (await http.get("/readyz")).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)
    pytest.fail(f"the API is not ready: {process.tail()}")
