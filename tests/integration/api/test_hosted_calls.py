"""Calls that share a workflow: from the command line, the API, and any Temporal client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from ackbridge.client import listing
from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.listing import ListedCall
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, WaitingFor
from ackbridge.contracts.identity import Role
from ackbridge.errors import CallCancelledError, CallEndedError, CallError
from tests.support.api import ServedApi
from tests.support.commands import Ran, run_all
from tests.support.replays import replay
from tests.support.stage import Stage
from workflows.bulk import host as bulk_host

PATIENCE = timedelta(seconds=30)
WHY = ("--reason", "a drill", "--by", "ann")
FOR_LONG = timedelta(minutes=10)


@pytest.fixture
def _settings(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's own, as the commands read them."""
    for name in os.environ:
        if name.startswith(("ACKBRIDGE_", "TEMPORAL_")):
            monkeypatch.delenv(name)
    known = {**stage.environ, **stage.namespace.environment}
    for name, value in (known | {"ACKBRIDGE_LEDGER_URL": stage.settings.ledger_url}).items():
        monkeypatch.setenv(name, value)
    # Typer sets and deletes it; here several commands run at once in one process.
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "1")
    monkeypatch.chdir(stage.folder)


async def _until(
    host: WorkflowHandle[Any, Any], requests: Sequence[CallRequest], *stages: str
) -> None:
    """Wait until all these calls are in one of these stages."""
    call_ids = {request.call_id for request in requests}
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            states = (await host.query(names.STATUS))["states"]
            if call_ids <= {one["call_id"] for one in states if one["stage"] in stages}:
                return
            await asyncio.sleep(0.05)


async def _until_retried(stage: Stage, request: CallRequest) -> None:
    """Wait until the engine says of this call, among those of its host, that it is retried."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            waiting = (await stage.calls.call(request.call_id).status()).waiting
            if waiting is not None and waiting.what is WaitingFor.RETRY:
                assert waiting.detail == "the provider answered 503"
                return
            await asyncio.sleep(0.05)


async def _found(stage: Stage, request: CallRequest) -> None:
    """Wait until the host of a call is in the visibility store."""
    query = f"AckbridgeCalls = '{names.search_token(request.call_id)}'"
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not [one async for one in stage.client.list_workflows(query)]:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.05)


async def _run(*lines: Sequence[str]) -> list[Ran]:
    return await run_all([[*line, "--json"] for line in lines])


async def _post(api: ServedApi, role: Role, call_id: str, what: str, **body: Any) -> httpx.Response:
    return await api.request("POST", f"/calls/{call_id}/{what}", role, json=body or None)


async def _audited(stage: Stage, request: CallRequest) -> list[tuple[str, str, str]]:
    rows = await stage.ledger.audit.page()
    mine = [row.entry for row in rows if row.entry.subject == request.call_id]
    return [(one.action, one.by, one.reason) for one in mine]


@pytest.mark.usefixtures("_settings")
async def test_open_calls_of_a_host_are_steered(
    stage: Stage, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request reaches its call, is in the audit log, and leaves the neighbours alone."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", FOR_LONG)
    waiting = [stage.request(stuck=True) for _ in range(7)]
    owing = [stage.request(acknowledgement_failures=1000) for _ in range(2)]
    host = await stage.start_host([*waiting, *owing])
    await _until(host, waiting, "awaiting_response")
    await _until(host, owing, "acknowledging")
    await _found(stage, waiting[0])
    ids = [request.call_id for request in waiting]

    rows = [row async for row in stage.calls.list(owed=True, limit=1000)]
    assert {one.call_id for one in owing} <= {row.call_id for row in rows}
    assert not set(ids) & {row.call_id for row in rows}
    await _until_retried(stage, owing[0])
    waiting_for = (await stage.calls.call(ids[0]).status()).waiting
    assert waiting_for is not None
    assert waiting_for.what is WaitingFor.RESPONSE
    metadata = await host.query("__temporal_workflow_metadata")
    details = metadata["currentDetails"] if isinstance(metadata, dict) else str(metadata)
    assert "9 of 9 calls open" in details
    assert f"`{ids[0]}`: awaiting response since" in details
    assert "under way: acknowledge: success" in details
    shown = (await api.request("GET", f"/calls/{ids[0]}")).json()
    assert (shown["call_id"], shown["stage"]) == (ids[0], "awaiting_response")
    done = await _run(
        ("status", ids[0]),
        ("reprocess", ids[0], "--by", "ann"),
        ("cancel", ids[1], *WHY),
        ("force-ack", ids[2], "--response", '{"id": 9}', *WHY),
        ("resolve", ids[3], "--as", "done", *WHY),
        ("owed", "write-off", owing[0].call_id, "--cycle", "1", *WHY),
    )
    assert [one.status for one in done] == [3, 2, 0, 0, 0, 0], [one.err for one in done]
    assert "the call is not parked but awaiting_response" in done[1].err
    replies = [
        await _post(api, Role.STEER, ids[0], "reprocess"),
        await _post(api, Role.STEER, ids[4], "cancel", reason="a drill"),
        await _post(api, Role.SETTLE, ids[5], "resolve", reason="a drill", **{"as": "none"}),
        await _post(api, Role.SETTLE, owing[1].call_id, "write-off", reason="a drill", cycle=1),
    ]
    assert [reply.status_code for reply in replies] == [409, 202, 200, 200]
    # It has ended, and its host has not.
    await _until(host, waiting[1:3], "cancelled", "completed")
    late = await _run(("cancel", ids[2], "--reason", "a second thought", "--by", "ann"))
    assert late[0].status == 2, late[0].out
    assert "too late" in late[0].err

    rows = [row async for row in stage.calls.list(stage="in_flight", limit=1000)]
    assert [(row.stage, row.host) for row in rows if row.call_id in ids] == [
        ("awaiting_response", host.id)
    ] * 2
    monkeypatch.setattr(listing, "QUERY_TIMEOUT", timedelta(milliseconds=1))
    rows = [row async for row in stage.calls.list(stage="in_flight", limit=1000)]
    known = {row.call_id: (row.state, row.answered) for row in rows}
    assert [known[one] for one in (ids[0], ids[6])] == [("RUNNING", False)] * 2
    await host.signal(names.CANCEL, {"call_id": ids[0], "by": "ann", "reason": "over"})
    await host.signal(names.FORCE_ACK, {"call_id": ids[6], "by": "ann", "reason": "over"})
    ends = {one["call_id"]: one["outcome"] for one in (await host.result())["ends"]}
    assert [ends[one]["status"] for one in ids] == [
        *("cancelled", "cancelled", "completed", "completed", "cancelled", "failed", "completed")
    ]
    assert ends[ids[2]]["response"] == {"id": 9}
    for request, action in zip(
        waiting[1:6], ("cancel", "force_ack", "resolve", "cancel", "resolve"), strict=True
    ):
        (acted, _, reason), *_ = await _audited(stage, request)
        assert (acted, reason) == (action, "a drill")
    for request in owing:
        ((acted, _, reason),) = await _audited(stage, request)
        assert (acted, reason) == ("write_off", "a drill")
        assert ends[request.call_id]["status"] == "completed"
    await replay(await host.fetch_history())


@pytest.mark.usefixtures("_settings")
async def test_calls_that_have_left_their_host_are_steered(
    stage: Stage, api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same ids; what comes too late, or for no call, is said, whoever asks."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", timedelta(seconds=1))
    ended, *moved = [stage.request(), *(stage.request(stuck=True) for _ in range(3))]
    host = await stage.start_host([ended, *moved])
    assert {end["moved_to"] for end in (await host.result())["ends"]} == {
        None,
        *(request.call_id for request in moved),
    }
    done = await _run(("cancel", moved[0].call_id, *WHY), ("status", moved[1].call_id))
    assert [one.status for one in done] == [0, 3]
    assert json.loads(done[1].out)["stage"] == "awaiting_response"
    forced = await _post(api, Role.SETTLE, moved[1].call_id, "force-ack", reason="a drill")
    assert forced.status_code == 202
    # This client remembers the host.
    client = AckbridgeClient(stage.client)
    client._hosts.remember([moved[2].call_id], host.id)  # as if it had started it
    assert (await client.call(moved[2].call_id).status()).stage == "awaiting_response"
    await client.call(moved[2].call_id).cancel(by="ann", reason="a drill")
    for request in moved:
        with contextlib.suppress(CallCancelledError):
            await stage.calls.call(request.call_id).outcome(PATIENCE)
        ((_, _, reason),) = await _audited(stage, request)
        assert reason == "a drill"

    nobody = stage.request()
    late = await _run(
        ("cancel", ended.call_id, *WHY),
        ("cancel", moved[0].call_id, *WHY),
        ("cancel", nobody.call_id, *WHY),
        ("status", nobody.call_id),
    )
    assert [one.status for one in late] == [2] * 4
    assert ["too late" in one.err for one in late] == [True, True, False, False]
    for request, status in ((ended, 409), (moved[0], 409), (nobody, 404)):
        reply = await _post(api, Role.STEER, request.call_id, "cancel", reason="a drill")
        assert reply.status_code == status
    with pytest.raises(CallEndedError, match="too late"):
        await stage.calls.call(ended.call_id).cancel(by="ann", reason="a drill")
    resolved = await _run(("resolve", ended.call_id, "--as", "none", *WHY))
    assert resolved[0].status == 2
    assert (await stage.calls.call(ended.call_id).status()).stage == "completed"

    listed = await _listed(stage, [ended, *moved])
    # The engine does not know whether a workflow of its own has failed or was cancelled.
    states = ("COMPLETED", "FAILED", "COMPLETED", "FAILED")
    assert tuple(listed[one.call_id].state for one in [ended, *moved]) == states
    assert {listed[ended.call_id].host} == {host.id}
    assert {listed[one.call_id].host for one in moved} == {None}
    (shown,) = await _run(("list", "--limit", "1000"))
    rows = {row["call_id"]: row["stage"] for row in json.loads(shown.out)}
    stages = ("completed", "cancelled", "completed", "cancelled")
    assert tuple(rows[one.call_id] for one in [ended, *moved]) == stages
    await replay(await host.fetch_history())

    with monkeypatch.context() as without_engine:
        without_engine.setenv("TEMPORAL_ADDRESS", "127.0.0.1:9")
        (shown,) = await _run(("list", "--limit", "1000"))
    assert shown.status == 4
    assert "the calls that the ledger has recorded" in shown.err
    recorded = {row["call_id"]: row["stage"] for row in json.loads(shown.out)}
    assert recorded.items() >= {one.call_id: rows[one.call_id] for one in [ended, *moved]}.items()
    monkeypatch.setenv("ACKBRIDGE_LEDGER_URL", f"sqlite:///{stage.folder}/nowhere/ledger.db")
    (shown,) = await _run(("list", "--limit", "1000"))
    assert shown.status == 0
    assert "effect and code are missing" in shown.err
    assert rows.keys() <= {row["call_id"] for row in json.loads(shown.out)}


async def _listed(stage: Stage, requests: Sequence[CallRequest]) -> dict[str, ListedCall]:
    """Wait until these calls are listed as ended; each is listed once."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            rows = [row async for row in stage.calls.list(provider="sandbox", limit=1000)]
            found = {row.call_id: row for row in rows}
            assert len(found) == len(rows)
            states = {found[one.call_id].state for one in requests if one.call_id in found}
            if len(states & {"RUNNING"}) == 0 and all(one.call_id in found for one in requests):
                return found
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("_settings")
async def test_a_host_that_was_terminated(stage: Stage, api: ServedApi) -> None:
    """Its calls are listed as what they are, and take no requests."""
    request = stage.request(stuck=True)
    host = await stage.start_host([request])
    await _until(host, [request], "awaiting_response")
    await _found(stage, request)
    await host.terminate("a drill")
    listed = await _listed(stage, [request])
    assert (listed[request.call_id].state, listed[request.call_id].stage) == ("TERMINATED", None)
    call = stage.calls.call(request.call_id)
    with pytest.raises(CallError, match="its host has failed"):
        await call.cancel(by="ann", reason="a drill")
    (done,) = await _run(("cancel", request.call_id, *WHY))
    assert done.status == 1
    reply = await _post(api, Role.STEER, request.call_id, "cancel", reason="a drill")
    assert reply.status_code == 409, reply.text
    # Started again, it goes on under the same idempotency key.
    again = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await again.force_ack(by="ann", reason="over")
    assert (await again.outcome(PATIENCE)).forced is not None
    assert await stage.effects(request.call_id) == 1
    keys = {one["idempotency_key"] for one in await stage.seen(request.call_id, "request")}
    assert len(keys) == 1


async def test_the_documented_names_do_for_any_client(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start, find, ask, wait, steer and collect with the names of the page alone."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", FOR_LONG)
    asked, cancelled = stage.request(stuck=True), stage.request(stuck=True)
    started = await stage.start_host([asked, cancelled])
    await _until(started, [asked, cancelled], "awaiting_response")
    digest = hashlib.sha256(cancelled.call_id.encode()).digest()
    token = base64.b32encode(digest).decode().lower()[:12]
    query = f"AckbridgeCalls = '{token}'"
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not (found := [one async for one in stage.client.list_workflows(query)]):  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.05)
    assert [one.id for one in found] == [started.id]
    host = stage.client.get_workflow_handle(found[0].id)

    one = {"call_id": cancelled.call_id}
    status = await host.query("status", one)
    assert (status["call_id"], status["stage"]) == (cancelled.call_id, "awaiting_response")
    every = await host.query("status")
    assert every["calls"] == 2
    assert every["stages"] == {"awaiting_response": 2}
    assert set(every["open"]) == {asked.call_id, cancelled.call_id}
    waited = await host.execute_update("await_outcome", {**one, "timeout": "PT0.1S"})
    assert waited["outcome"] is None
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await host.execute_update("await_outcome", {"call_id": "sandbox.create_order.x"})
    assert "is not in this host" in str(refused.value.cause)
    await host.signal("cancel", {**one, "by": "ann", "reason": "a drill"})
    taken = await host.execute_update("take_ends", {"after": 0})
    assert [end["call_id"] for end in taken["ends"]] == [cancelled.call_id]
    assert taken["remaining"] == 1
    message = {"kind": "response", "event_key": uuid.uuid4().hex, "data": {"ok": True}}
    await host.signal("provider_message", {**message, "call_id": asked.call_id})
    every = (await host.result())["ends"]
    assert every[0] == taken["ends"][0]
    assert every[1]["outcome"]["response"] == {"ok": True}
