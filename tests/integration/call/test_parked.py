"""Parked calls on the real engine: they wait for weeks, and continue as new when they have to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.errors import CallCancelledError, CallFailedError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.engine import EARLY
from tests.support.replays import replay
from tests.support.stage import Stage, edited_integrations, set_up

PATIENCE = timedelta(seconds=30)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    short_history_engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The sandbox's integration, whose orders are parked for a month."""
    folder = tmp_path_factory.mktemp("stage")

    def parking(operations: dict[str, Any]) -> None:
        operations["create_order"] |= {"on_failure": "park", "parked_for": "30d"}
        operations["create_order"]["response"] |= {"cycles": 1}

    integrations = edited_integrations(folder, parking)
    async with set_up(short_history_engine, folder, integrations) as everything:
        yield everything


async def park(stage: Stage, request: CallRequest) -> None:
    """Start a call and let its deadline pass."""
    await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
    await stage.until(request, CallStage.PARKED)


async def wear_out(stage: Stage, request: CallRequest) -> None:
    """Send messages that change nothing until the parked call has continued as new."""
    first = (await stage.handle(request).describe()).run_id
    for number in range(EARLY):
        extension = {"kind": "extension", "event_key": f"more-{number}", "extend_by": "1m"}
        await stage.handle(request).signal(names.PROVIDER_MESSAGE, extension)
        if (await stage.handle(request).describe()).run_id != first:
            return
    # A busy worker takes many of them in one task, and the last ones are still to be taken.
    while (await stage.handle(request).describe()).run_id == first:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


async def histories(stage: Stage, request: CallRequest) -> list[Any]:
    """The histories of every run of a call, replayed on the way; the first run first."""
    found = []
    async for execution in stage.client.list_workflows(f"WorkflowId = '{request.call_id}'"):
        handle = stage.client.get_workflow_handle(request.call_id, run_id=execution.run_id)
        history = await handle.fetch_history()
        await replay(history)
        found.append(history)
    return list(reversed(found))


def failed_tasks(runs: list[Any]) -> list[str]:
    """Why workflow tasks failed; a message that came while one ended is no failure."""
    failed = [
        event.workflow_task_failed_event_attributes
        for run in runs
        for event in run.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    harmless = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    return [task.failure.message for task in failed if task.cause != harmless]


async def test_parked_call_continues_as_new_and_takes_its_late_response(stage: Stage) -> None:
    """What was heard, owed and waited for goes along; the late response completes the call."""
    request = stage.request(stuck=True)
    await park(stage, request)
    before = await stage.calls.call(request.call_id).status()
    await wear_out(stage, request)
    after = await stage.calls.call(request.call_id).status()
    assert after.model_copy(update={"last_error": before.last_error}) == before
    late = {"kind": "response", "event_key": "late-1", "data": {"ok": True}, "source": "status"}
    await stage.handle(request).signal(names.PROVIDER_MESSAGE, late)
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert (outcome.status, outcome.late) == (OutcomeStatus.COMPLETED, True)
    assert await stage.acknowledged(request.call_id) == ["failed", "success"]
    runs = await histories(stage, request)
    assert len(runs) > 1
    assert failed_tasks(runs) == []


async def test_message_of_the_run_before_is_still_a_duplicate(stage: Stage) -> None:
    """Event keys that were heard before the call continued as new are known after it."""
    request = stage.request(stuck=True)
    await park(stage, request)
    await wear_out(stage, request)
    again = {"kind": "extension", "event_key": "more-0", "extend_by": "1m"}
    await stage.handle(request).signal(names.PROVIDER_MESSAGE, again)
    assert (await stage.calls.call(request.call_id).status()).duplicates == 1
    await stage.calls.call(request.call_id).cancel(by="ann", reason="no longer wanted")
    with pytest.raises(CallCancelledError, match="cancelled by ann"):
        await stage.calls.call(request.call_id).outcome(PATIENCE)


async def test_reprocessed_after_continuing_as_new(stage: Stage) -> None:
    """A continued call is sent again in a new cycle, because the old one was given up."""
    request = stage.request(stuck=True)
    await park(stage, request)
    await wear_out(stage, request)
    await stage.calls.call(request.call_id).reprocess(by="ops")
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    keys = [event["idempotency_key"] for event in await stage.seen(request.call_id, "request")]
    assert keys == [f"{request.call_id}:1", f"{request.call_id}:2"]
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 1})
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert outcome.cycles == 2
    assert failed_tasks(await histories(stage, request)) == []


async def test_parked_call_ends_at_its_time_to_live(stage: Stage) -> None:
    """After a month the call fails with a notice, and its waiters had been answered long before."""
    request = stage.request(stuck=True)
    await park(stage, request)
    waited = await stage.calls.start_and_wait(request, PATIENCE)
    assert waited.stage is CallStage.PARKED
    assert waited.notice is not None
    assert waited.notice.kind == "delayed"
    await stage.skipper.fast_forward(stage.handle(request), timedelta(days=31))
    with pytest.raises(CallFailedError) as failed:
        await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert failed.value.outcome.notice is not None
    assert failed.value.outcome.notice.kind == "failed"


async def test_suppressed_while_parked_is_logged_at_once(stage: Stage) -> None:
    """Nobody has to wait for the end of a parked call to read what it did not take."""
    request = stage.request(stuck=True)
    await park(stage, request)
    before = (await stage.ledger.counts())["suppressed"]
    message = ProviderMessage(
        kind="extension", event_key=f"late-{request.key}", extend_by=timedelta(minutes=1)
    )
    await stage.handle(request).signal(names.PROVIDER_MESSAGE, message)
    while (await stage.ledger.counts())["suppressed"] == before:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    await stage.calls.call(request.call_id).cancel(by="test", reason="done")
