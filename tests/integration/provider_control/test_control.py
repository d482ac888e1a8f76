"""Provider control on the real engine: commands, errors, flags in calls, continue-as-new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from ackbridge.client.control import ControlHandle
from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState, ForceBreaker
from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.control import ControlChange, FlagState, IntegrationFlags, SetFlag
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.errors import CallFailedError, InvalidRequestError, UnknownNameError
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.replays import replay
from tests.support.stage import Stage, edited_integrations, set_up

PATIENCE = timedelta(seconds=30)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    short_history_engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The sandbox's integration; quotes are parked while they are off, orders refused."""
    folder = tmp_path_factory.mktemp("stage")

    def edit(operations: dict[str, Any]) -> None:
        operations["quote"] |= {"when_off": "park"}
        operations["create_booking"] |= {"when_off": "refuse", "flag": {"prod": "off"}}

    async with set_up(
        short_history_engine, folder, edited_integrations(folder, edit)
    ) as everything:
        yield everything


@pytest_asyncio.fixture(loop_scope="session")
async def control(stage: Stage) -> AsyncIterator[ControlHandle]:
    """The sandbox's control; overrides are removed after each test."""
    control = stage.calls.control("sandbox")
    yield control
    snapshot = await control.snapshot()
    assert snapshot is not None
    for environment, words in snapshot.flags.items():
        for operation in words:
            await control.set_flag(set_flag("default", operation or None, environment=environment))
    await control.force_breaker(ForceBreaker(state=None, by="ann", reason="the test is over"))


def set_flag(state: str, operation: str | None = None, **more: Any) -> SetFlag:
    """A command that sets a flag."""
    return SetFlag.model_validate(
        {"environment": "dev", "by": "ann", "reason": "a trial", **more}
        | {"state": state, "operation": operation}
    )


async def outcome_of(stage: Stage, request: CallRequest) -> OutcomeStatus:
    """The status in which a call ends."""
    try:
        outcome = await (await stage.calls.start(request)).outcome(PATIENCE)
    except CallFailedError as error:
        return error.outcome.status
    return outcome.status


async def kept_back(stage: Stage, operation: str = "quote") -> CallRequest:
    """A call that is parked or refused; workers see a change of the control within seconds."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            request = stage.request(operation)
            status = await stage.calls.start_and_wait(request, PATIENCE)
            if status.stage is not CallStage.COMPLETED:
                return request


async def test_change_is_logged(stage: Stage, control: ControlHandle) -> None:
    """The reply, the log and the Temporal UI have it; `default` returns to the file."""
    set_off = await control.set_flag(set_flag("off", "create_booking", environment="prod"))
    removed = await control.set_flag(set_flag("default", "create_booking", environment="prod"))
    assert set_off is not None
    assert removed is not None
    assert (set_off.before, set_off.after) == ("off (integration file)", "off")
    assert (removed.before, removed.after) == ("off", "off (integration file)")
    status = await control.status()
    assert list(status.changes[:2]) == [removed, set_off]
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    details = (await handle.query("__temporal_workflow_metadata")).current_details
    told = "flag of create_booking in prod: off (integration file) → **off**, by ann: a trial"
    assert told in details


async def test_change_is_in_the_ledger_when_it_is_confirmed(
    stage: Stage, control: ControlHandle
) -> None:
    """A worker whose engine does not answer reads it there."""
    for state in (FlagState.INTERNAL, FlagState.OFF):
        await control.set_flag(set_flag(state, environment="trial"))
        stored = await stage.ledger.controls.latest("sandbox")
        assert stored is not None
        assert stored.flags["trial"][""].state is state

    async def hang(_provider: str) -> None:
        await asyncio.Event().wait()

    fresh = Snapshots(hang, stage.ledger.controls.latest)
    state_now = await Admission(fresh, "trial").evaluate(stage.request(), IntegrationFlags())
    assert state_now.is_known
    assert "sandbox is switched off in trial (ann: a trial)" in (state_now.not_now or "")
    await fresh.close()


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({"state": "sometimes"}, "state"),
        ({"state": "percentage"}, "percentage"),
        ({"state": "percentage", "percentage": 101}, "percentage"),
        ({"state": "off", "reason": ""}, "reason"),
        ({"state": "off", "operation": "create_ordr"}, "Did you mean 'create_order'?"),
        ({"state": "off", "enviroment": "dev"}, "enviroment"),
        ("off", "expected a JSON object"),
    ],
)
async def test_invalid_command_is_rejected(
    stage: Stage, control: ControlHandle, command: Any, field: str
) -> None:
    """The update fails with the problem; for the signal the status has it."""
    before = await control.snapshot()
    if isinstance(command, dict):
        command = {"environment": "dev", "by": "ann", "reason": "a trial", **command}
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(names.SET_FLAG, command)
    assert isinstance(refused.value.cause, ApplicationError)
    assert field in refused.value.cause.message
    await handle.signal(names.SET_FLAG, command)
    assert field in ((await control.status()).last_error or "")
    after = await control.snapshot()
    assert before is not None
    assert after is not None
    assert after.flags == before.flags


async def test_invalid_start_is_rejected(stage: Stage) -> None:
    """The workflow fails and says why; an unknown control is named."""
    handle = await stage.client.start_workflow(
        names.PROVIDER_CONTROL, {"provider": 5}, id="control.odd", task_queue=names.TASK_QUEUE
    )
    with pytest.raises(Exception, match="failed"):
        await handle.result()
    with pytest.raises(UnknownNameError, match="nobody: no control is running"):
        await stage.calls.control("nobody").set_flag(set_flag("off"))


async def test_parked_calls_evaluate_their_flag_again(stage: Stage, control: ControlHandle) -> None:
    """Off: the call is parked with a notice, and again when reprocessed. On: it is sent."""
    await control.set_flag(set_flag("off", "quote"))
    request = await kept_back(stage)
    call = stage.calls.call(request.call_id)
    parked = await call.status()
    assert parked.stage is CallStage.PARKED
    assert parked.notice is not None
    assert "sandbox.quote off (ann: a trial)" in (parked.standing or "")

    await call.reprocess(by="ops")
    reason = "not reprocessed: sandbox.quote is switched off in dev (ann: a trial)"
    while (seen := await call.status()).last_error != reason:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    assert (seen.stage, seen.deadline) == (CallStage.PARKED, parked.deadline)
    assert await stage.effects(request.call_id) == 0

    await control.set_flag(set_flag("on", "quote"))
    while (await call.status()).stage is CallStage.PARKED:
        await call.reprocess(by="ops")
        await asyncio.sleep(0.2)
    assert (await call.outcome(PATIENCE)).status is OutcomeStatus.COMPLETED
    await replay(await stage.handle(request).fetch_history())


async def test_open_breaker_refuses_calls_of_operations_that_fail(
    stage: Stage, control: ControlHandle
) -> None:
    """They end with a notice, and nothing is sent."""
    command = ForceBreaker(state=BreakerState.OPEN, by="ann", reason="they asked us to")
    change = await control.force_breaker(command)
    assert change is not None
    assert (change.before, change.after) == ("closed", "open, held by ann")
    request = stage.request("create_booking").model_copy(
        update={"payload": {"room": "attic", "nights": 2}}
    )
    await kept_back(stage)
    assert await outcome_of(stage, request) is OutcomeStatus.FAILED
    status = await stage.calls.call(request.call_id).status()
    assert status.outcome is not None
    assert status.outcome.reason == (
        "the breaker of sandbox is open: they asked us to, held by ann"
    )
    assert status.notice is not None
    assert status.notice.kind == "unavailable"
    assert (status.outcome.code, status.outcome.effect) == ("breaker_open", "none")
    assert await stage.effects(request.call_id) == 0


async def test_continue_as_new_loses_no_command(stage: Stage, control: ControlHandle) -> None:
    """Concurrent commands over many runs are applied once each, and every run replays."""
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    first = (await handle.describe()).run_id
    seen_at = []
    for share in range(40):
        command = set_flag("percentage", "quote", percentage=share, environment="trial")
        assert isinstance(await control.set_flag(command), ControlChange)
        snapshot = await control.snapshot()
        assert snapshot is not None
        assert snapshot.flags["trial"]["quote"].percentage == share
        seen_at.append(snapshot.version)
    await asyncio.gather(
        *(
            control.set_flag(set_flag("internal", by=f"operator {n}", environment=f"e{n}"))
            for n in range(8)
        )
    )
    assert seen_at == sorted(set(seen_at))
    status = await control.status()
    assert {change.by for change in status.changes} >= {f"operator {n}" for n in range(8)}
    moved = [c.after for c in reversed(status.changes) if c.subject == "flag of quote in trial"]
    assert moved == [f"{share} %" for share in range(40)]
    assert (await handle.describe()).run_id != first
    query = f"WorkflowId = '{names.control_id('sandbox')}'"
    runs = [one.run_id async for one in stage.client.list_workflows(query)]
    for run_id in runs:
        run = stage.client.get_workflow_handle(names.control_id("sandbox"), run_id=run_id)
        await replay(await run.fetch_history())


async def test_control_survives_cancellation_and_termination(
    stage: Stage, control: ControlHandle
) -> None:
    """A worker restarts a terminated control with its last state, and so does one whose engine has
    lost the control altogether."""
    await control.set_flag(set_flag("internal", environment="prod"))
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    first = (await handle.describe()).run_id
    await handle.cancel()
    while (await handle.describe()).run_id == first:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    assert (await control.status()).snapshot.flags["prod"][""].state is FlagState.INTERNAL
    await handle.terminate("by mistake")
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            # A call asks for the snapshot, and so has a worker look.
            await stage.calls.start_and_wait(stage.request("quote"), PATIENCE)
            try:
                snapshot = await control.snapshot()
            except UnknownNameError:
                continue
            break
    assert snapshot is not None
    assert snapshot.flags["prod"][""].state is FlagState.INTERNAL

    stored = await stage.ledger.controls.latest("sandbox")
    lost = stage.calls.control("lost")
    assert stored is not None
    await lost.ensure(stored.configured, stored.model_copy(update={"provider": "lost"}))
    restored = await lost.snapshot()
    assert restored is not None
    assert restored.flags == stored.flags
    assert restored.rate is None


async def test_command_without_workers_is_sent_as_a_signal(stage: Stage) -> None:
    """The engine keeps it until a worker runs."""
    await stage.client.start_workflow(
        names.PROVIDER_CONTROL,
        {"provider": "asleep"},
        id=names.control_id("asleep"),
        task_queue="nobody-works-here",
    )
    control = stage.calls.control("asleep")
    assert await control.set_flag(set_flag("off")) is None
    history = await stage.client.get_workflow_handle("control.asleep").fetch_history()
    signals = [e.workflow_execution_signaled_event_attributes for e in history.events]
    assert names.SET_FLAG in [signal.signal_name for signal in signals]
    with pytest.raises(InvalidRequestError):
        await stage.calls.control("sandbox").set_flag(set_flag("off", "nothing_we_know"))
