"""What the typed client adds to the wire: checks before a start, what a call waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

import worker
from ackbridge.catalog.loading import load_catalog
from ackbridge.client import calls as client_calls
from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.control_startup import start_controls
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState, ForceBreaker, SetLimit
from ackbridge.contracts.calls import CallRequest, CallStatus, Effect, WaitingFor
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.errors import (
    CallEndedError,
    CallNotFoundError,
    InvalidRequestError,
    KeyReusedError,
)
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.outbox import enqueue
from ackbridge.outbox.relay import Relay
from ackbridge.outbox.rows import open_outbox
from ackbridge.workarounds.temporal_sdk import BoundedShutdown
from tests.integration.outbox.shop import create_shop
from tests.support.engine import EARLY
from tests.support.stage import Stage, edited_integrations, reached, set_up

PATIENCE = timedelta(seconds=60)


async def _until_controls_are_visible(stage: Stage) -> None:
    query = f"WorkflowType = '{names.PROVIDER_CONTROL}' AND ExecutionStatus = 'Running'"
    async with asyncio.timeout(60):
        while not [one async for one in stage.client.list_workflows(query)]:  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
    await reached(stage.calls.control("sandbox"), lambda snapshot: snapshot.configured.operations)


async def _until_waiting(stage: Stage, request: CallRequest, what: WaitingFor) -> CallStatus:
    call = stage.calls.call(request.call_id)
    status = await call.status()
    async with asyncio.timeout(60):
        while status.waiting is None or status.waiting.what is not what:
            await asyncio.sleep(0.1)
            status = await call.status()
    return status


@pytest.mark.parametrize(
    ("provider", "operation", "complaint"),
    [
        ("sandbx", "create_order", r"unknown provider 'sandbx'; .*Did you mean 'sandbox'\?"),
        ("sandbox", "create_ordr", r"unknown operation 'create_ordr'; .*'create_order'\?"),
    ],
)
async def test_unknown_names_are_refused_before_anything_starts(
    stage: Stage, provider: str, operation: str, complaint: str
) -> None:
    """No workflow exists afterwards; the message names the similar name."""
    await _until_controls_are_visible(stage)
    key = uuid.uuid4().hex
    request = CallRequest(provider=provider, operation=operation, key=key, payload={})
    with pytest.raises(InvalidRequestError, match=complaint):
        await stage.calls.start(request)
    with pytest.raises(InvalidRequestError, match=complaint):
        await stage.calls.start_and_wait(request, PATIENCE)
    with pytest.raises(CallNotFoundError):
        await stage.calls.call(request.call_id).status()


async def test_call_whose_provider_is_gone_is_found(stage: Stage) -> None:
    """An existing call can be read although nothing serves its provider any more."""
    await _until_controls_are_visible(stage)
    key = uuid.uuid4().hex
    request = CallRequest(provider="gone", operation="create_order", key=key, payload={})
    handle = await stage.client.start_workflow(
        names.INTEGRATION_CALL,
        args=[{**request.model_dump(mode="json"), "surplus": 1}],
        id=request.call_id,
        task_queue=names.TASK_QUEUE,
    )
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    with pytest.raises(InvalidRequestError, match="surplus"):
        await stage.calls.start(request)


async def test_large_request_is_refused_by_name(stage: Stage) -> None:
    """The whole request is bounded, in bytes; the message names what is large."""
    request = stage.request().model_copy(update={"metadata": {"note": "ä" * 300_000}})
    with pytest.raises(InvalidRequestError, match=r"metadata: 600\d+ bytes"):
        await stage.calls.start_and_wait(request, PATIENCE)
    with pytest.raises(CallNotFoundError):
        await stage.calls.call(request.call_id).status()


async def test_large_operator_response_is_refused_by_name(stage: Stage) -> None:
    """A signal that the engine would refuse, or the call could not answer, is not sent."""
    call = stage.calls.call("sandbox.create_order.any")
    with pytest.raises(InvalidRequestError, match="response: the signal has"):
        await call.resolve(Effect.DONE, by="ann", reason="seen", response="x" * 1_100_000)


async def test_ended_call_takes_no_requests(stage: Stage) -> None:
    """Too late is an error of its own, which a caller can handle."""
    request = stage.request()
    call = await stage.calls.start(request)
    await call.outcome(PATIENCE)
    with pytest.raises(CallEndedError, match="the call has ended"):
        await call.resolve(Effect.NONE, by="ann", reason="a mistake")
    with pytest.raises(CallEndedError, match="the call has ended"):
        await call.write_off(1, by="ann", reason="their API is gone")


async def test_list_shows_the_stage_only_where_it_is_known(stage: Stage) -> None:
    """The index has `in_flight` for calls that have ended, and for those anywhere on their way."""
    done, stuck = stage.request(), stage.request(stuck=True)
    await (await stage.calls.start(done)).outcome(PATIENCE)
    await stage.calls.start(stuck)

    async def stages(stage_filter: str | None = None) -> dict[str, str | None]:
        found = stage.calls.list(provider="sandbox", stage=stage_filter, limit=1000)
        return {row.call_id: row.stage async for row in found}

    async with asyncio.timeout(60):
        while not {done.call_id, stuck.call_id} <= (shown := await stages()).keys():  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
        while shown[done.call_id] is None:
            await asyncio.sleep(0.1)
            shown = await stages()
    assert shown[done.call_id] == CallStage.COMPLETED
    assert shown[stuck.call_id] is None
    in_flight = await stages("in_flight")
    assert stuck.call_id in in_flight
    assert done.call_id not in in_flight
    await stage.calls.call(stuck.call_id).cancel(by="test", reason="over")


async def test_status_tells_the_next_attempt(stage: Stage) -> None:
    """Between two attempts: with the last error, and when the next one is."""
    request = stage.request(receipt_failures=1000, retry_after=3600)
    await stage.calls.start(request)
    status = await _until_waiting(stage, request, WaitingFor.RETRY)
    assert status.waiting is not None
    assert status.waiting.next_attempt_at is not None
    assert status.waiting.next_attempt_at > status.waiting.since
    assert status.waiting.detail == "the provider answered 503"
    await stage.calls.call(request.call_id).cancel(by="test", reason="over")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def throttled(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The sandbox with a rate limit, so that its sends go through its queue; no worker runs."""
    folder = tmp_path_factory.mktemp("throttled")
    integrations = edited_integrations(folder, lambda _: None)
    file = integrations / "sandbox.yaml"
    file.write_text(f"{file.read_text()}\nlimits: {{requests_per_second: 50}}\n")
    async with set_up(engine, folder, integrations, has_worker=False) as stage:
        yield stage


async def test_without_a_worker_a_wait_ends_when_its_time_is_over(
    throttled: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either lane: the status says that the call is stored, and what it waits for."""
    monkeypatch.setattr(client_calls, "LATE_BY", timedelta(milliseconds=300))
    alone, hosted = throttled.request(), throttled.request()
    client = AckbridgeClient(throttled.client)
    for request in (alone, hosted):
        client._checked[request.provider, request.operation] = request is hosted
        started = time.monotonic()
        status = await client.start_and_wait(request, timedelta(milliseconds=100))
        # It may have to connect, and the machine be busy; a request's own timeout is 10 s.
        assert time.monotonic() - started < 6
        assert status.waiting is not None
        assert (status.call_id, status.waiting.what) == (request.call_id, WaitingFor.WORKER)
    described = await throttled.handle(alone).describe()
    assert described.status is WorkflowExecutionStatus.RUNNING


async def test_status_tells_what_a_send_waits_for(throttled: Stage) -> None:
    """A worker of the provider's queue, its rate limit, or its breaker."""
    catalog = load_catalog(throttled.folder / "integrations", throttled.environ)
    workers = {
        one.task_queue: one
        for one in worker.build_workers(throttled.client, catalog, throttled.deps)
    }
    control = throttled.calls.control("sandbox")
    first, second = throttled.request(), throttled.request()
    async with contextlib.AsyncExitStack() as running:
        for queue in (names.TASK_QUEUE, names.control_queue("sandbox")):
            await running.enter_async_context(BoundedShutdown(workers[queue]))
        await start_controls(throttled.client, catalog, throttled.ledger)
        await throttled.calls.start(first)
        status = await _until_waiting(throttled, first, WaitingFor.WORKER)
        assert status.waiting is not None
        assert status.waiting.detail == "no worker polls the queue ackbridge.sandbox"

        await control.set_limit(SetLimit(per_second=0, by="ada", reason="a drill"))
        await reached(control, lambda snapshot: snapshot.rate and snapshot.rate.per_second == 0)
        sends = workers[names.send_queue("sandbox")]
        await running.enter_async_context(BoundedShutdown(sends))
        await throttled.calls.start(second)
        status = await _until_waiting(throttled, second, WaitingFor.RATE_LIMIT)
        assert status.waiting is not None
        assert status.waiting.detail == "0/s, set by ada: a drill"

        forced = ForceBreaker(state=BreakerState.OPEN, by="ada", reason="a drill")
        await control.force_breaker(forced)
        status = await _until_waiting(throttled, second, WaitingFor.BREAKER)
        assert status.waiting is not None
        assert status.waiting.detail is not None
        assert status.waiting.detail.startswith("open since")


async def test_call_that_continued_as_new_is_found_again(
    short_history_engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """Its later runs have two arguments; the request is compared all the same."""

    def parking(operations: dict[str, Any]) -> None:
        operations["create_order"] |= {"on_failure": "park", "parked_for": "30d"}
        operations["create_order"]["response"] |= {"cycles": 1}

    integrations = edited_integrations(tmp_path, parking)
    async with set_up(short_history_engine, tmp_path, integrations) as stage:
        request = stage.request(stuck=True)
        call = await stage.calls.start(request)
        await stage.until(request, CallStage.AWAITING_RESPONSE)
        await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
        await stage.until(request, CallStage.PARKED)
        first = (await stage.handle(request).describe()).run_id
        number = 0
        while (await stage.handle(request).describe()).run_id == first:
            extension = {"kind": "extension", "event_key": f"more-{number}", "extend_by": "1m"}
            if number < EARLY:
                await stage.handle(request).signal(names.PROVIDER_MESSAGE, extension)
            number += 1
            await asyncio.sleep(0.01)
        assert await call.request() == request
        again = AckbridgeClient(stage.client)
        assert (await again.start(request)).id == call.id
        status = await again.start_and_wait(request, timedelta(seconds=1))
        assert status.stage is CallStage.PARKED
        other = request.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
        with pytest.raises(KeyReusedError):
            await again.start(other)


async def test_a_relay_starts_what_an_outbox_has(stage: Stage, tmp_path: Path) -> None:
    """Once for each key; an unknown operation and a key of another payload are set aside."""
    await _until_controls_are_visible(stage)
    request = stage.request()
    other = request.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
    unknown = stage.request("create_ordr")
    url = f"sqlite:///{tmp_path}/shop.db"
    shop = create_shop(url)
    with shop.begin() as connection:
        for one in (request, request, unknown):
            enqueue(connection, one)
    store = open_outbox(url, utc_now)
    relay = Relay(store, stage.calls.start, keep=timedelta(days=1))
    assert await relay.relay_batch() == 3
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert outcome.effect is Effect.DONE
    with shop.begin() as connection:
        enqueue(connection, request)
        enqueue(connection, other)
    await relay.relay_batch()
    assert len(await store.listed("started", 10)) == 3
    reasons = [row.reason or "" for row in await store.listed("rejected", 10)]
    assert "Did you mean 'create_order'?" in reasons[0]
    assert "another payload" in reasons[1]
    assert await stage.effects(request.call_id) == 1
    await store.database.close()
    shop.dispose()
