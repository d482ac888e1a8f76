"""Calls of an operation with `lane: bulk`, on the real engine: every way in, and every way out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowHandle
from temporalio.exceptions import WorkflowAlreadyStartedError

from ackbridge.catalog.catalog import configured_flags
from ackbridge.client.bulk import BulkOutcome
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.control import SetFlag, WithoutControl
from ackbridge.contracts.identity import Role
from ackbridge.errors import (
    CallCancelledError,
    CallError,
    InvalidRequestError,
    KeyReusedError,
    SecretError,
)
from ackbridge.local.dev_server import EmbeddedEngine
from activities import send
from activities.support import provider_http
from tests.integration.api.conftest import api_of
from tests.support.stage import Stage, edited_integrations, set_up
from tests.unit.api.test_requests import problem_of
from workflows.bulk import host as bulk_host
from workflows.bulk import workflow as bulk_workflow

PATIENCE = timedelta(seconds=60)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Orders share workflows, and are parked for a month; quotes have workflows of their own."""
    folder = tmp_path_factory.mktemp("stage")

    def edit(operations: dict[str, Any]) -> None:
        operations["create_order"] |= {"lane": "bulk", "on_failure": "park", "parked_for": "30d"}
        operations["create_order"] |= {"when_off": "park"}
        operations["create_order"]["response"] |= {"cycles": 1}
        once = operations["order_once"] = deepcopy(operations["create_order"])
        once["request"] |= {"idempotency": None, "repeat": "unless_reached"}

    async with set_up(engine, folder, edited_integrations(folder, edit)) as everything:
        yield everything


async def _call_many(stage: Stage, *requests: CallRequest) -> dict[str, BulkOutcome]:
    """By another client than that of the stage, as another process would."""
    calls = AckbridgeClient(stage.client).call_many(requests)
    return {one.request.call_id: one async for one in calls}


def _outcome(ended: Mapping[str, BulkOutcome], request: CallRequest) -> CallOutcome:
    outcome = ended[request.call_id].outcome
    assert outcome is not None
    return outcome


async def _host(stage: Stage, request: CallRequest) -> WorkflowHandle[Any, Any]:
    """The workflow that has claimed a call."""
    while not (found := await stage.ledger.calls.hosts([request.call_id])):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    return stage.client.get_workflow_handle(found[request.call_id])


async def _until(stage: Stage, request: CallRequest, wanted: CallStage) -> None:
    """Wait until the ledger has a stage of a call."""
    while True:
        row = await stage.ledger.calls.get(request.call_id)
        if row is not None and row.stage == wanted:
            return
        await asyncio.sleep(0.05)


async def _until_sent(stage: Stage, request: CallRequest) -> None:
    while not await stage.seen(request.call_id, "request"):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


async def _is_done_once(stage: Stage, request: CallRequest) -> bool:
    """Whether the provider has done it once and was told so, and one response is recorded."""
    while not await stage.acknowledged(request.call_id):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    return (
        await stage.effects(request.call_id) == 1
        and await stage.acknowledged(request.call_id) == ["success"]
        and len(await stage.ledger.calls.responses(request.call_id)) == 1
    )


async def _set_flag(stage: Stage, state: str) -> None:
    """Set the flag of orders, and wait until the worker knows it."""
    flag = {"environment": "dev", "operation": "create_order", "state": state}
    told = SetFlag.model_validate({**flag, "by": "ann", "reason": "a trial"})
    await stage.calls.control("sandbox").set_flag(told)
    flags = configured_flags(stage.deps.catalog.integration("sandbox"))
    while True:
        seen = await stage.deps.admission.evaluate(stage.request(), flags, WithoutControl.SEND)
        if (seen.not_now is None) is (state == "on"):
            return
        await asyncio.sleep(0.1)


async def test_every_way_in_leads_to_the_same_call(stage: Stage, tmp_path: Path) -> None:
    """`start`, `start_and_wait`, the calls API and `call_many`: one key is one call."""
    started, waited, posted = stage.request(), stage.request(), stage.request(delay_ms=500)
    async with api_of(stage, tmp_path) as api:
        body = posted.model_dump(mode="json", exclude={"key"}, exclude_defaults=True)
        headers = {"Idempotency-Key": posted.key}
        accepted = await api.request("POST", "/calls", Role.START, json=body, headers=headers)
        call = await stage.calls.start(started)
        status = await stage.calls.start_and_wait(waited, PATIENCE)
        again = await _call_many(stage, started, waited, posted)
        headers["Prefer"] = "wait=30"
        ended = await api.request("POST", "/calls", Role.START, json=body, headers=headers)
        other = {**body, "payload": {"amount": 6, "currency": "EUR"}}
        refused = await api.request("POST", "/calls", Role.START, json=other, headers=headers)

    assert (accepted.status_code, accepted.json()["answer"]) == (202, "accepted")
    assert _outcome(again, started).response == (await call.outcome(PATIENCE)).response
    assert status.outcome is not None
    assert _outcome(again, waited).response == status.outcome.response
    assert (ended.status_code, ended.json()["answer"]) == (200, "completed")
    assert (refused.status_code, problem_of(refused)) == (422, "key-reused")
    for request in (started, waited, posted):
        assert await _is_done_once(stage, request)
        assert len(await stage.seen(request.call_id, "request")) == 1

    changed = started.model_copy(update={"payload": other["payload"]})
    (reused,) = (await _call_many(stage, changed)).values()
    assert isinstance(reused.error, KeyReusedError)
    with pytest.raises(KeyReusedError):
        await (await stage.calls.start(changed)).outcome(PATIENCE)
    # The refused request has hidden nothing.
    assert (await stage.calls.call(started.call_id).status()).stage is CallStage.COMPLETED


async def test_a_refused_start_says_so_whenever_it_is_asked(stage: Stage) -> None:
    """Also when its host has ended before the caller has asked for the outcome."""
    first = stage.request()
    ended = await _call_many(stage, first)
    assert _outcome(ended, first).status is OutcomeStatus.COMPLETED
    invalid = stage.request().model_copy(update={"payload": {}})
    reused = first.model_copy(update={"payload": {"amount": 6, "currency": "EUR"}})
    for request, error in ((invalid, InvalidRequestError), (reused, KeyReusedError)):
        call = await stage.calls.start(request)
        async with asyncio.timeout(60):
            while call.id in stage.calls._hosts.known:  # noqa: ASYNC110 -- it changes in another task
                await asyncio.sleep(0.02)
        with pytest.raises(error):
            await call.outcome(PATIENCE)


async def test_a_settled_outcome_owes_nothing(stage: Stage) -> None:
    """It is waited for in the host, and after the call has left it."""
    request = stage.request(acknowledgement_failures=2)
    call = await stage.calls.start(request)
    assert (await call.outcome(PATIENCE)).acknowledgement_owed
    found = stage.calls.call(request.call_id)
    for one in (call, found, AckbridgeClient(stage.client).call(request.call_id)):
        assert not (await one.outcome(PATIENCE, settled=True)).acknowledgement_owed


async def test_a_parked_call_leaves_its_host(stage: Stage) -> None:
    """It is reprocessed, or completed by a late response, in a workflow of its own."""
    await _set_flag(stage, "off")
    first, second = stage.request(), stage.request()
    ending = asyncio.create_task(_call_many(stage, first, second))
    for request in (first, second):
        await _until(stage, request, CallStage.PARKED)
    ends = await (await _host(stage, first)).result()
    assert first.call_id in {end["moved_to"] for end in ends["ends"]}
    assert await stage.seen(first.call_id, "request") == []

    await _set_flag(stage, "on")
    await stage.calls.call(first.call_id).reprocess(by="ann")
    late = {"kind": "response", "event_key": uuid.uuid4().hex, "data": {"ok": True}}
    await stage.handle(second).signal(names.PROVIDER_MESSAGE, late)
    ended = await ending
    assert _outcome(ended, first).status is OutcomeStatus.COMPLETED
    assert await _is_done_once(stage, first)
    completed = _outcome(ended, second)
    assert (completed.status, completed.late) == (OutcomeStatus.COMPLETED, True)
    assert completed.response == {"ok": True}


async def test_contradictory_and_repeated_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of a host takes its own answers, once; what follows a call out is passed on."""
    monkeypatch.setattr(bulk_host, "MOVES_OUT_AFTER", timedelta(seconds=1))
    contradicted = stage.request(contradictory="completed")
    repeated = stage.request(duplicates=3)
    # Its answer comes when it has left, to the host, which still has the other one.
    left, slow = stage.request(delay_ms=1800, duplicates=1), stage.request(receipt_delay_ms=2800)
    ended = await _call_many(stage, contradicted, repeated, left, slow)
    for request in (contradicted, repeated, left, slow):
        assert _outcome(ended, request).status is OutcomeStatus.COMPLETED
        assert await _is_done_once(stage, request)
    assert (await stage.handle(left).describe()).parent_id == (await _host(stage, left)).id


async def test_a_terminated_host_is_replaced(stage: Stage) -> None:
    """The same keys again, in either lane, take the calls over; nothing is done twice."""
    requests = [stage.request(delay_ms=1500) for _ in range(3)]
    ending = asyncio.create_task(_call_many(stage, *requests))
    for request in requests:
        await _until_sent(stage, request)
    host = await _host(stage, requests[0])
    await host.terminate("an operator's mistake")
    # Nobody knows their outcomes, and the same requests return them.
    assert all(isinstance(one.error, CallError) for one in (await ending).values())

    hosted, single, both = requests
    own = await _start_single(stage, single)
    beside = await asyncio.gather(_call_many(stage, hosted, both), _start_single(stage, both))
    outcomes = [CallOutcome.model_validate(await one.result()) for one in (own, beside[1])]
    many = [one.outcome for one in beside[0].values()]
    assert {one.status for one in [*outcomes, *many] if one} == {OutcomeStatus.COMPLETED}
    for request in requests:
        assert await _is_done_once(stage, request)
        assert (await stage.calls.call(request.call_id).outcome(PATIENCE)).response is not None


@pytest.mark.parametrize("lane", ["single", "bulk"])
async def test_what_a_terminated_workflow_has_sent_once_is_not_sent_again(
    stage: Stage, lane: str
) -> None:
    """Its request may not be repeated: whoever takes the call over finds the response."""
    request = stage.request("order_once", delay_ms=1000)
    if lane == "single":
        first = await _start_single(stage, request)
    else:
        first = await stage.start_host([request])
    await _until_sent(stage, request)
    await first.terminate("an operator's mistake")

    outcome = CallOutcome.model_validate(await (await _start_single(stage, request)).result())
    assert outcome.status is OutcomeStatus.COMPLETED
    assert await stage.effects(request.call_id) == 1
    assert len(await stage.seen(request.call_id, "request")) == 1


@pytest.mark.parametrize("lane", ["single", "bulk"])
async def test_a_secret_that_a_worker_lacks_is_waited_for_outside_history(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    """However often it is tried, the history has two activities; the request goes out once."""
    request, tries = stage.request("order_once"), 0

    async def call_provider(deps: Any, one: CallRequest, *args: Any, **more: Any) -> Any:
        nonlocal tries
        if one.call_id == request.call_id:
            tries += 1
            if tries < 4:
                raise SecretError("env:TOKEN: is not set")
        return await provider_http.call_provider(deps, one, *args, **more)

    monkeypatch.setattr(send, "call_provider", call_provider)
    if lane == "single":
        handle = await _start_single(stage, request)
    else:
        handle = await stage.start_host([request])
    await handle.result()
    row = await stage.ledger.calls.get(request.call_id)
    assert row is not None
    assert row.outcome is not None
    assert (row.outcome.status, row.outcome.attempts) == (OutcomeStatus.COMPLETED, 1)
    scheduled = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert (scheduled.count(names.SEND), tries) == (2, 4)
    assert len(await stage.seen(request.call_id, "request")) == 1


async def _start_single(stage: Stage, request: CallRequest) -> WorkflowHandle[Any, Any]:
    """Start a call in a workflow of its own, as a service does that does not know its lane."""
    try:
        return await stage.client.start_workflow(
            names.INTEGRATION_CALL, request, id=request.call_id, task_queue=names.TASK_QUEUE
        )
    except WorkflowAlreadyStartedError:
        return stage.handle(request)


async def test_steering_reaches_the_workflow_that_conducts_the_call(stage: Stage) -> None:
    """A workflow that follows the host of its call passes on what operators ask it for."""
    cancelled, forced = stage.request(stuck=True), stage.request(stuck=True)
    ending = asyncio.create_task(_call_many(stage, cancelled, forced))
    for request in (cancelled, forced):
        await _until_sent(stage, request)
        await _start_single(stage, request)
    by = {"by": "ann", "reason": "ordered twice"}
    await stage.handle(cancelled).signal(names.CANCEL, by)
    await stage.handle(forced).signal(names.FORCE_ACK, {**by, "response": {"id": 9}})
    ended = await ending
    assert _outcome(ended, cancelled).status is OutcomeStatus.CANCELLED
    assert _outcome(ended, forced).response == {"id": 9}
    assert await stage.acknowledged(cancelled.call_id) == ["failed"]
    assert await stage.acknowledged(forced.call_id) == ["success"]
    with pytest.raises(CallCancelledError) as own:
        await stage.calls.call(cancelled.call_id).outcome(PATIENCE)
    assert own.value.outcome.cancelled == _outcome(ended, cancelled).cancelled


async def test_outcomes_that_do_not_fit_are_found_in_the_ledger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a workflow that follows the call already, too; what the ledger does not have stays."""
    monkeypatch.setattr(bulk_workflow, "MAX_RESULT_BYTES", 100)
    slow = stage.request(delay_ms=700)
    expired = stage.request().model_copy(update={"expires_at": utc_now() - timedelta(hours=1)})
    handle = await stage.start_host([slow, expired])
    await _until_sent(stage, slow)
    follower = await _start_single(stage, slow)
    ends = {end["call_id"]: end for end in (await handle.result())["ends"]}
    assert ends[slow.call_id]["moved_to"] == slow.call_id
    assert ends[expired.call_id]["outcome"]["code"] == "expired"
    assert CallOutcome.model_validate(await follower.result()).response is not None
    assert await _is_done_once(stage, slow)
    assert await stage.seen(expired.call_id, "request") == []


async def test_a_native_cancellation_that_is_late_changes_no_outcome(stage: Stage) -> None:
    """What has its response is acknowledged all the same; its neighbour is cancelled."""
    answered, silent = stage.request(acknowledgement_failures=2), stage.request(stuck=True)
    handle = await stage.start_host([answered, silent])
    call_id = answered.call_id
    argument = {"call_id": call_id, "timeout": "1m"}
    status = await handle.execute_update(names.AWAIT_OUTCOME, argument)
    assert status["outcome"]["acknowledgement_owed"]
    await _until_sent(stage, silent)
    await handle.cancel()
    ends = {end["call_id"]: end for end in (await handle.result())["ends"]}
    assert ends[call_id]["outcome"]["status"] == "completed"
    assert ends[silent.call_id]["outcome"]["status"] == "cancelled"
    assert await _is_done_once(stage, answered)
    assert await stage.acknowledged(silent.call_id) == ["failed"]
