"""Many calls in one workflow, through the typed client, on the real engine."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import PayloadCodec

from ackbridge.client.bulk import BulkLane, BulkOutcome
from ackbridge.client.calls import AckbridgeClient, Call
from ackbridge.client.hosted import HostFinder
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, Intervention, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import (
    CallCancelledError,
    CallNotFoundError,
    InvalidRequestError,
    KeyReusedError,
    KeyServiceError,
)
from ackbridge.ledger.inbox import InboxState
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.workarounds.temporal_sdk import SHUTDOWN_TIMEOUT
from tests.support.stage import Stage, set_up
from workflows.bulk import host as bulk_host

ALONE = 13
"""History events of a call that has a workflow of its own."""


async def test_many_calls_share_a_workflow(stage: Stage) -> None:
    """Forty calls complete, each acknowledged once, for a fraction of the history events."""
    requests = [stage.request() for _ in range(40)]
    ended = await _call_many(stage, requests)

    assert {one.request.call_id for one in ended} == {one.call_id for one in requests}
    assert all(one.outcome and one.outcome.status is OutcomeStatus.COMPLETED for one in ended)
    for request in requests:
        assert await stage.acknowledged(request.call_id) == ["success"]
        assert len(await stage.ledger.calls.responses(request.call_id)) == 1
    hosts = set((await stage.ledger.calls.hosts([one.call_id for one in requests])).values())
    events = 0
    for host in hosts:
        history = await stage.client.get_workflow_handle(host).fetch_history()
        events += len(history.events)
    assert events < ALONE * len(requests) / 3


def _outcomes(ended: list[BulkOutcome]) -> dict[str, CallOutcome]:
    """Of those that have one."""
    return {one.request.call_id: one.outcome for one in ended if one.outcome is not None}


async def _call_many(stage: Stage, requests: list[CallRequest]) -> list[BulkOutcome]:
    return [one async for one in stage.calls.call_many(requests)]


async def test_asking_for_the_ends_costs_no_workflow_task(stage: Stage) -> None:
    """The one that sends takes the question, too."""
    request = stage.request(delay_ms=300)
    await _call_many(stage, [request])
    (host,) = (await stage.ledger.calls.hosts([request.call_id])).values()
    history = await stage.client.get_workflow_handle(host).fetch_history()
    kinds = [event.event_type for event in history.events]
    before = kinds[: kinds.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED)]
    assert before.count(EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED) == 1
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED) == 1


async def test_a_call_is_started_when_the_engine_has_its_host(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """No worker has to take it first, or the one before."""
    async with set_up(engine, tmp_path, has_worker=False) as idle:
        hosts = HostFinder(idle.client)
        lane = BulkLane(idle.client, hosts)
        for _ in range(2):
            queued = lane.submit(idle.request())
            async with asyncio.timeout(10):
                await queued.started
            host = idle.client.get_workflow_handle(hosts.known[queued.request.call_id])
            described = await host.describe()
            assert described.status is WorkflowExecutionStatus.RUNNING
            assert not queued.ended.done()


async def test_a_worker_lets_go_of_a_running_host(engine: EmbeddedEngine, tmp_path: Path) -> None:
    """The SDK cancels every task of a workflow that it drops from its cache."""
    async with set_up(engine, tmp_path) as leaving:
        request = leaving.request(stuck=True)
        hosted = asyncio.create_task(_call_many(leaving, [request]))
        await _until_awaiting(leaving.calls.call(request.call_id))
        began = time.monotonic()
    # A worker whose workflow does not end would be waited for until `BoundedShutdown` gives up.
    assert time.monotonic() - began < SHUTDOWN_TIMEOUT.total_seconds()
    hosted.cancel()


async def test_a_request_that_cannot_be_encoded_says_why(stage: Stage) -> None:
    """Not after a while, that the engine did not answer."""

    class Broken(PayloadCodec):
        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            raise KeyServiceError("the key service is away")

        async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return list(payloads)

    config = stage.client.config()
    config["data_converter"] = replace(stage.client.data_converter, payload_codec=Broken())
    client = Client(**config)
    queued = BulkLane(client, HostFinder(client)).submit(stage.request())
    async with asyncio.timeout(5):
        with pytest.raises(KeyServiceError, match="the key service is away"):
            await queued.ended


async def test_many_who_wait_for_one_call_do_not_hold_up_the_others(stage: Stage) -> None:
    """The engine takes ten updates of a workflow at once, and one tells how calls have ended."""
    slow, quick = stage.request(delay_ms=2500), stage.request(delay_ms=1200)
    ended = stage.calls.call_many([slow, quick])
    first = asyncio.ensure_future(anext(ended))
    await _until_awaiting(stage.calls.call(slow.call_id))
    waiting = [
        asyncio.create_task(stage.calls.call(slow.call_id).outcome(timedelta(seconds=60)))
        for _ in range(12)
    ]
    assert (await first).request == quick
    assert not any(one.done() for one in waiting)
    outcomes = await asyncio.gather(*waiting)
    assert {one.call_id for one in outcomes} == {slow.call_id}
    assert (await anext(ended)).request == slow


async def test_who_waits_hears_of_a_call_that_could_not_leave(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another workflow has its id: it goes on in its host, with another protocol."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", timedelta(seconds=1.5))
    request = stage.request(delay_ms=3000)
    hosted = asyncio.create_task(_call_many(stage, [request]))
    await _until_awaiting(stage.calls.call(request.call_id))
    follower = await stage.client.start_workflow(
        names.INTEGRATION_CALL, request, id=request.call_id, task_queue=names.TASK_QUEUE
    )
    (host,) = (await stage.ledger.calls.hosts([request.call_id])).values()
    handle = stage.client.get_workflow_handle(host)
    argument = {"call_id": request.call_id, "timeout": "1m"}
    async with asyncio.timeout(30):
        status = await handle.execute_update("await_outcome", argument)
    assert status["outcome"]["status"] == "completed"
    assert (await hosted)[0].outcome is not None
    await follower.result()


async def test_a_call_whose_host_is_gone_is_found(stage: Stage) -> None:
    """The engine deletes what has ended some days ago; a client may remember it for longer."""
    request = stage.request()
    call = await stage.calls.start(request)
    await call.outcome()
    stage.calls._hosts.remember([request.call_id], "bulk:deleted")
    assert (await call.status()).stage is CallStage.COMPLETED


async def test_neighbours_end_as_they_would_alone(stage: Stage) -> None:
    """A failure, a refusal, retries and an invalid request: each has the end of its own."""
    failing = stage.request(fail=9)
    retried = stage.request(receipt_failures=2, acknowledgement_failures=2)
    invalid = stage.request().model_copy(update={"payload": {}})
    sync = stage.request("quote")
    ended = await _call_many(stage, [failing, retried, invalid, sync])

    (rejected,) = [one for one in ended if one.error is not None]
    assert rejected.request == invalid
    assert isinstance(rejected.error, InvalidRequestError)
    outcomes = _outcomes(ended)
    assert outcomes[failing.call_id].status is OutcomeStatus.FAILED
    assert outcomes[sync.call_id].status is OutcomeStatus.COMPLETED
    assert outcomes[retried.call_id].status is OutcomeStatus.COMPLETED
    # Nobody waits for the acknowledgement, which goes on.
    assert outcomes[retried.call_id].acknowledgement_owed


async def test_a_hosted_call_is_steered_by_its_id(stage: Stage) -> None:
    """Status, cancel and a forced response work as for a call with a workflow of its own."""
    cancelled, forced = stage.request(stuck=True), stage.request(stuck=True)
    ending = asyncio.create_task(_call_many(stage, [cancelled, forced]))
    for request in (cancelled, forced):
        await _until_awaiting(stage.calls.call(request.call_id))
    # Another process finds the host by its search attribute.
    other = AckbridgeClient(stage.client).call(cancelled.call_id)
    await _until_awaiting(other)
    await other.cancel(by="ann", reason="ordered twice")
    await stage.calls.call(forced.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    outcomes = _outcomes(await ending)

    assert outcomes[cancelled.call_id].cancelled == Intervention(by="ann", reason="ordered twice")
    assert outcomes[forced.call_id].response == {"id": 9}
    assert await stage.acknowledged(cancelled.call_id) == ["failed"]
    with pytest.raises(CallCancelledError):
        await other.outcome(timedelta(seconds=10))


async def _until_awaiting(call: Call) -> None:
    """Wait until a call that is about to be started awaits its response."""
    while True:
        with contextlib.suppress(CallNotFoundError):
            if (await call.status()).stage is CallStage.AWAITING_RESPONSE:
                return
        await asyncio.sleep(0.1)


async def test_a_call_that_waits_for_long_leaves_its_host(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in a workflow of its own, which takes the message that the host gets for it."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", timedelta(seconds=1))
    silent = stage.request(stuck=True)
    ending = asyncio.create_task(_call_many(stage, [silent, stage.request()]))
    await _until_awaiting(stage.calls.call(silent.call_id))
    (host,) = (await stage.ledger.calls.hosts([silent.call_id])).values()
    handle = stage.client.get_workflow_handle(host)
    ends = await handle.result()
    assert silent.call_id in {end["moved_to"] for end in ends["ends"]}

    message = {"kind": "response", "event_key": uuid.uuid4().hex, "data": {"ok": True}}
    await stage.handle(silent).signal("provider_message", message)
    outcomes = _outcomes(await ending)
    assert outcomes[silent.call_id].response == {"ok": True}
    assert await stage.effects(silent.call_id) == 1


async def test_a_message_that_its_host_gets_after_the_end_is_held(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has ended, in its host or after it left: only an operator can take the message."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", timedelta(seconds=1))
    moved, neighbour = stage.request(stuck=True), stage.request(receipt_delay_ms=5000)
    done = stage.request("quote")
    ending = asyncio.create_task(_call_many(stage, [moved, neighbour, done]))
    await _until_awaiting(stage.calls.call(moved.call_id))
    (host,) = (await stage.ledger.calls.hosts([moved.call_id])).values()
    handle = stage.client.get_workflow_handle(host)
    while not (await handle.query("status", {"call_id": moved.call_id}))["moved_to"]:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    await stage.calls.call(moved.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    await stage.handle(moved).result()
    await stage.calls.call(done.call_id).outcome()

    messages = {one.call_id: uuid.uuid4().hex for one in (moved, done)}
    for call_id, event_key in messages.items():
        message = {"kind": "failure", "event_key": event_key, "reason": "sold out"}
        await handle.signal("provider_message", {**message, "call_id": call_id})
    await ending
    await handle.result()
    entries = await stage.ledger.inbox.entries(moved.provider, limit=10_000)
    states = {one.entry.event_key: one.state for one in entries}
    assert {key: states.get(key) for key in messages.values()} == dict.fromkeys(
        messages.values(), InboxState.HELD
    )


async def test_the_same_key_is_the_same_call_in_either_lane(stage: Stage) -> None:
    """Whoever claims it first conducts it; the other one follows, and gets its outcome."""
    first, second = stage.request(delay_ms=700), stage.request(delay_ms=700)
    single = await stage.calls.start(first)
    await stage.until(first, "awaiting_response")
    hosted = asyncio.create_task(_call_many(stage, [first, second]))
    await _until_awaiting(stage.calls.call(second.call_id))
    other = await stage.calls.start(second)

    outcomes = _outcomes(await hosted)
    assert outcomes[first.call_id].model_dump() == (await single.outcome()).model_dump()
    assert outcomes[second.call_id].response == (await other.outcome()).response
    for request in (first, second):
        assert await stage.effects(request.call_id) == 1
        assert len(await stage.seen(request.call_id, "request")) == 1
    changed = first.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
    (reused,) = await _call_many(stage, [changed])
    assert isinstance(reused.error, KeyReusedError)
