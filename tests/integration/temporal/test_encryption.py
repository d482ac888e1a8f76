"""Encryption on the engine: nothing planted is in it in plain, and plain histories go on."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker

from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.contracts.identity import AuthSettings, Role
from ackbridge.errors import CallFailedError
from ackbridge.gateway.codec import build_codec_app
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.security.http_auth import HttpAuth, new_api_key, write_api_keys
from ackbridge.temporal.connect import client_options
from ackbridge.temporal.data_converter import load_data_converter
from ackbridge.workarounds.temporal_sdk import BoundedShutdown, workflow_runner
from activities import main_activities
from tests.replay.test_replay import PATHS, read
from tests.support.engine import temporal_command
from tests.support.serving import serve
from tests.support.stage import Stage, set_up
from workflows import WORKFLOWS

KEYS = {
    "ACKBRIDGE_ENCRYPTION_KEYS": "2026=env:KEY",
    "KEY": base64.b64encode(b"k" * 32).decode(),
}
STRICT = {**KEYS, "ACKBRIDGE_REQUIRE_ENCRYPTED": "true"}
PLANTED = f"planted-{uuid.uuid4().hex}"
PATIENCE = timedelta(seconds=30)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def encrypted(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """A deployment with a key."""
    async with set_up(engine, tmp_path_factory.mktemp("encrypted"), environ=KEYS) as everything:
        yield everything


async def test_the_engine_stores_nothing_in_plain(encrypted: Stage, engine: EmbeddedEngine) -> None:
    """A call that completes, one that fails, and one that an operator cancels."""
    calls, planted = encrypted.calls, {"customer": PLANTED}
    order = encrypted.request("create_shipment")
    order = order.model_copy(update={"payload": {"destination": PLANTED}, "metadata": planted})
    status = await calls.start_and_wait(order, PATIENCE)
    assert status.outcome is not None
    assert status.outcome.status is OutcomeStatus.COMPLETED
    failing = encrypted.request(refuse=422, reason=PLANTED)
    with pytest.raises(CallFailedError, match=PLANTED):
        await (await calls.start(failing)).outcome()
    waiting = encrypted.request(stuck=True).model_copy(update={"metadata": planted})
    call = await calls.start(waiting)
    await encrypted.until(waiting, "awaiting_response")
    await call.cancel(by=PLANTED, reason=PLANTED)
    await asyncio.gather(call.outcome(), return_exceptions=True)

    for request in (order, failing, waiting):
        history = await encrypted.handle(request).fetch_history()
        assert not any(PLANTED.encode() in e.SerializeToString() for e in history.events)
        await _replayer(KEYS).replay_workflow(history)
    files = [path for path in engine.state.parent.glob(f"{engine.state.name}*") if path.is_file()]
    assert any(order.call_id.encode() in path.read_bytes() for path in files)
    assert not any(PLANTED.encode() in path.read_bytes() for path in files)


async def test_plain_starts_are_accepted(encrypted: Stage) -> None:
    """Of a client in another language, say; the answer is encrypted."""
    plain = await _client(encrypted, {})
    request = encrypted.request("quote")
    await AckbridgeClient(plain).start(request)
    outcome = await encrypted.calls.call(request.call_id).outcome()
    assert outcome.status is OutcomeStatus.COMPLETED


async def test_plain_starts_are_refused_where_encryption_is_required(encrypted: Stage) -> None:
    """The call fails and says why, also when it is replayed; encrypted ones are accepted."""
    strict, queue = await _client(encrypted, STRICT), uuid.uuid4().hex
    runner = workflow_runner(strict.data_converter)
    worker = Worker(
        strict,
        task_queue=queue,
        workflows=WORKFLOWS,
        activities=main_activities(encrypted.deps),
        workflow_runner=runner,
    )
    async with BoundedShutdown(worker):
        request = encrypted.request("quote")
        handle = await (await _client(encrypted, {})).start_workflow(
            names.INTEGRATION_CALL, request, id=request.call_id, task_queue=queue
        )
        with pytest.raises(WorkflowFailureError) as refused:
            await strict.get_workflow_handle(handle.id).result()
        cause = refused.value.cause
        assert isinstance(cause, ApplicationError)
        assert cause.type == names.INVALID_REQUEST
        assert "accepts no plain starts" in cause.message
        await _replayer(STRICT).replay_workflow(await handle.fetch_history())
        sealed = encrypted.request("quote")
        outcome = await strict.execute_workflow(
            names.INTEGRATION_CALL, sealed, id=sealed.call_id, task_queue=queue
        )
        assert outcome["status"] == "completed"


async def test_clients_in_other_languages_use_the_codec_endpoint(
    encrypted: Stage, tmp_path: Path
) -> None:
    """Temporal's own command, in Go, starts a call and reads its result through it."""
    roles, expires = frozenset({Role.STEER}), datetime.now(UTC) + timedelta(days=1)
    key, entry = new_api_key("cli", "the command", roles, expires)
    write_api_keys(tmp_path / "keys.json", (entry,))
    auth = HttpAuth(AuthSettings(api_keys=tmp_path / "keys.json"), utc_now)
    codec = encrypted.client.data_converter.payload_codec
    assert codec is not None
    request = encrypted.request("quote")
    with serve(build_codec_app(codec, auth, [])) as url:
        options = (
            *("--address", encrypted.namespace.address, "--namespace", encrypted.namespace.name),
            *("--codec-endpoint", url, "--codec-auth", f"Bearer {key}", "--output", "json"),
        )
        await temporal_command(
            *("workflow", "start", "--type", names.INTEGRATION_CALL, "--workflow-id"),
            *(request.call_id, "--task-queue", names.TASK_QUEUE),
            *("--input", request.model_dump_json(exclude_none=True), *options),
        )
        result = await temporal_command(
            "workflow", "result", "--workflow-id", request.call_id, *options
        )
    assert json.loads(result)["result"]["status"] == "completed"
    started = (await encrypted.handle(request).fetch_history()).events[0]
    (argument,) = started.workflow_execution_started_event_attributes.input.payloads
    assert argument.metadata["encoding"] == b"binary/encrypted"


async def test_plain_histories_replay() -> None:
    """Calls that were started before there were keys go on, also where they are required."""
    for path in PATHS:
        await _replayer(STRICT).replay_workflow(read(path.read_text()))


def _replayer(environ: dict[str, str]) -> Replayer:
    converter = load_data_converter(environ)
    return Replayer(
        workflows=WORKFLOWS, workflow_runner=workflow_runner(converter), **client_options(converter)
    )


async def _client(stage: Stage, environ: dict[str, str]) -> Client:
    return await Client.connect(
        stage.namespace.address,
        namespace=stage.namespace.name,
        **client_options(load_data_converter(environ)),
    )
