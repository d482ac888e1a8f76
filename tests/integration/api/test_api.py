"""Calls, their steering and the control of providers, over HTTP, on a real engine."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import WorkflowFailureError

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.identity import Role
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.api import ServedApi
from tests.support.stage import Stage, set_up
from tests.unit.api.test_requests import problem_of

from .conftest import api_of

WHY = {"reason": "a drill"}


async def start(
    api: ServedApi, request: CallRequest, wait: int | None = None, **changes: Any
) -> httpx.Response:
    body = request.model_dump(mode="json", exclude={"key"}, exclude_defaults=True)
    headers = {"Idempotency-Key": request.key}
    if wait is not None:
        headers["Prefer"] = f"wait={wait}"
    return await api.request(
        "POST", "/calls", Role.START, json={**body, **changes}, headers=headers
    )


async def test_a_call_from_start_to_outcome(api: ServedApi, stage: Stage) -> None:
    """Waiting or not, the same key is the same call; another payload is refused."""
    request = stage.request()
    done = await start(api, request, wait=30)
    assert (done.status_code, done.json()["answer"]) == (200, "completed")
    again = await start(api, request)
    # Its timings go on until the acknowledgement is accepted.
    first, second = (dict(one.json()["outcome"], timings=None) for one in (done, again))
    assert (again.status_code, second) == (200, first)
    assert await stage.effects(request.call_id) == 1
    reused = await start(api, request, payload={"amount": 6, "currency": "EUR"})
    assert (reused.status_code, problem_of(reused)) == (422, "key-reused")

    other = stage.request()
    begun = await start(api, other)
    assert (begun.status_code, begun.json()["answer"]) == (202, "accepted")
    location = begun.headers["location"]
    ended = await api.request("GET", location, Role.START, headers={"Prefer": "wait=30"})
    assert (ended.status_code, ended.json()["answer"]) == (200, "completed")


async def test_unknown_names_start_nothing(api: ServedApi, stage: Stage) -> None:
    """As with the typed client, whose message names the similar name."""
    refused = await start(api, stage.request(), operation="create_ordr")
    assert (refused.status_code, problem_of(refused)) == (422, "invalid-request")
    assert "Did you mean 'create_order'?" in refused.json()["detail"]
    missing = await api.request("GET", "/calls/sandbox.create_order.never", Role.READ)
    assert (missing.status_code, problem_of(missing)) == (404, "not-found")


async def test_steering_says_who_did_it(api: ServedApi, stage: Stage) -> None:
    """The name is that of the key, whatever the body; what comes too late is a conflict."""
    request = stage.request(stuck=True)
    begun = await start(api, request, wait=0)
    assert begun.status_code == 202
    path = f"/calls/{request.call_id}"
    forged = await api.request("POST", f"{path}/cancel", Role.STEER, json={**WHY, "by": "bo"})
    assert forged.status_code == 422
    cancelled = await api.request("POST", f"{path}/cancel", Role.STEER, json=WHY)
    assert cancelled.status_code == 202
    headers = {"Prefer": "wait=30"}
    ended = (await api.request("GET", path, Role.READ, headers=headers)).json()
    assert (ended["answer"], ended["outcome"]["cancelled"]) == (
        "cancelled",
        {"by": "who may steer (api_key)", **WHY},
    )
    late = await api.request("POST", f"{path}/force-ack", Role.SETTLE, json=WHY)
    assert (late.status_code, problem_of(late)) == (409, "call-ended")


async def test_an_unknown_effect_is_resolved_open_or_ended(api: ServedApi, stage: Stage) -> None:
    """An open call by signal, one that has ended by a workflow; the ledger has the new outcome."""
    request = stage.request(stuck=True)
    await start(api, request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    path = f"/calls/{request.call_id}/resolve"
    body = {"as": "none", **WHY}
    resolved = await api.request("POST", path, Role.SETTLE, json=body)
    assert resolved.status_code == 200, resolved.text
    # Its stage is final a moment before it is closed.
    with pytest.raises(WorkflowFailureError):
        await stage.handle(request).result()
    settled = await api.request("POST", path, Role.SETTLE, json={"as": "done", **WHY})
    assert (settled.status_code, settled.json()["answer"]) == (200, "completed")
    read = await api.request("GET", f"/calls/{request.call_id}", Role.READ)
    assert read.json()["outcome"]["settled"] == {"by": "who may settle (api_key)", **WHY}


async def test_a_setting_is_changed_by_whoever_has_read_it(api: ServedApi, stage: Stage) -> None:
    """`If-Match` with an older tag changes nothing."""
    environment = f"e-{uuid.uuid4().hex[:8]}"
    path = f"/providers/sandbox/flag?environment={environment}&operation=quote"
    read = await api.request("GET", path, Role.READ)
    assert (read.json()["value"]["state"], read.json()["override"]) == ("on", None)
    seen = {"If-Match": read.headers["etag"]}
    off = {"state": "off", **WHY}
    changed = await api.request("PUT", path, json=off, headers=seen)
    assert changed.status_code == 200, changed.text
    assert changed.json()["value"]["state"] == "off"
    assert changed.json()["override"]["by"] == "who may configure (api_key)"
    refused = await api.request("PUT", path, json={"state": "on", **WHY}, headers=seen)
    assert (refused.status_code, problem_of(refused)) == (412, "changed")
    seen = {"If-Match": changed.headers["etag"]}
    back = await api.request("PUT", path, json={"state": "default", **WHY}, headers=seen)
    assert (back.status_code, back.json()["override"]) == (200, None)

    limit = await api.request("PUT", "/providers/sandbox/limit", json={"per_second": 500, **WHY})
    assert (limit.status_code, limit.json()["limit"]["per_second"]) == (200, 500)
    body = {"per_second": None, **WHY}
    headers = {"If-Match": limit.headers["etag"]}
    limit = await api.request("PUT", "/providers/sandbox/limit", json=body, headers=headers)
    assert (limit.status_code, limit.json()["limit"]) == (200, None)

    breaker = "/providers/sandbox/breaker?operation=quote"
    body = {"state": "half_open", **WHY}
    held = await api.request("PUT", breaker, json=body)
    assert (held.status_code, held.json()["status"]["state"]) == (200, "half_open")
    await api.request("PUT", breaker, json={"state": "closed", **WHY})
    # As other tests expect it: one that was half open would stay so until a quote succeeds.
    body = {"state": "auto", **WHY}
    released = await api.request("PUT", breaker, json=body, headers={"If-Match": "*"})
    status = released.json()["status"]
    assert (status["forced_by"], status["state"]) == (None, "closed")


async def test_a_batch_is_started_once(api: ServedApi, stage: Stage) -> None:
    """The same key finds it, also after its end."""
    body = {"selection": {"provider": "sandbox", "keys": ["none"]}, **WHY}
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = await api.request("POST", "/batches", Role.STEER, json=body, headers=headers)
    location = first.headers["location"]
    async with asyncio.timeout(60):
        while True:
            progress = (await api.request("GET", location, Role.READ)).json()
            if progress["state"] == "completed":
                break
            await asyncio.sleep(0.1)
    assert progress["by"] == "who may steer (api_key)"
    again = await api.request("POST", "/batches", Role.STEER, json=body, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    runs = [
        one async for one in stage.client.list_workflows(f"WorkflowId = '{first.json()['batch']}'")
    ]
    assert len(runs) <= 1
    late = await api.request("POST", f"{location}/stop", Role.STEER, json=WHY)
    assert (late.status_code, problem_of(late)) == (404, "not-found")


@pytest.mark.extended
async def test_without_a_worker_the_wait_is_as_long_as_asked_for(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """The call is started, and its status says what it waits for."""
    async with set_up(engine, tmp_path, has_worker=False) as idle, api_of(idle, tmp_path) as api:
        request = idle.request()
        begun = time.monotonic()
        answered = await start(api, request, wait=2)
        assert time.monotonic() - begun < 6
        assert (answered.status_code, answered.json()["waiting"]["what"]) == (202, "worker")
        again = await start(api, request)
        assert (again.status_code, again.json()["call_id"]) == (202, request.call_id)
