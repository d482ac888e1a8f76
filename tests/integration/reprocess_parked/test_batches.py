"""Batches on the real engine: parked calls are reprocessed once each, at a limited rate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.testing import ActivityEnvironment

from ackbridge.cli.queue import QueueView, read_queue
from ackbridge.client.control import ControlHandle
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.batches import (
    BatchCounts,
    BatchProgress,
    BatchRequest,
    BatchState,
    ParkedSelection,
    Ramp,
)
from ackbridge.contracts.breaker import BreakerState, ForceBreaker, SetLimit
from ackbridge.contracts.calls import CallRequest, OutcomeStatus
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.control import DrainStep
from ackbridge.contracts.signals import Reprocess
from ackbridge.errors import CallFailedError
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.stats.counters import Count
from ackbridge.temporal.connect import as_plain, signal_once
from activities.resume_parked import ResumeParked
from tests.support.engine import EARLY
from tests.support.replays import replay
from tests.support.stage import Stage, edited_integrations, reached, set_up

pytestmark = pytest.mark.slow

PATIENCE = timedelta(minutes=1)
OUTAGE = timedelta(hours=3)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    short_history_engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The sandbox's integration; its orders are parked, and fail for good the third time."""
    folder = tmp_path_factory.mktemp("stage")

    def parking(operations: dict[str, Any]) -> None:
        order = operations["create_order"]
        order |= {"on_failure": "park", "reprocess": {"attempts": 2}}
        order["receipt"] |= {"attempts": 2, "within": "10s"}
        order["response"] |= {"cycles": 1}
        operations["other_order"] = order
        receipt = order["receipt"] | {"attempts": 1}
        operations["third_order"] = order | {"receipt": receipt, "reprocess": {"attempts": 24}}

    integrations = edited_integrations(folder, parking)
    async with set_up(short_history_engine, folder, integrations) as everything:
        yield everything


async def park(stage: Stage, count: int, **behaviour: Any) -> list[CallRequest]:
    """Calls whose first two sends fail."""
    behaviour = behaviour or {"receipt_failures": 2}
    requests = [stage.request(**behaviour) for _ in range(count)]
    for request in requests:
        await stage.calls.start(request)
    # Not by queries: a workflow task that is done again because of one has an attempt more.
    for request in requests:
        await in_ledger(stage, request)
    return requests


async def in_ledger(stage: Stage, request: CallRequest, times: int = 1) -> None:
    """Wait until the ledger has a call as parked."""
    mine = selection(request)
    while not any(one.times >= times for one in await stage.ledger.batches.parked(mine)):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


def selection(*requests: CallRequest, **more: Any) -> ParkedSelection:
    """These calls and no others."""
    keys = tuple(request.key for request in requests)
    return ParkedSelection(provider="sandbox", keys=keys, **more)


async def until(
    stage: Stage, batch_id: str, holds: Callable[[BatchProgress], bool]
) -> BatchProgress:
    """Wait until a batch has reached a state."""
    while not holds(seen := await stage.calls.batch(batch_id).progress()):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.1)
    return seen


async def recoveries(stage: Stage) -> set[str]:
    """The ids of the batches that were started when the breaker closed."""
    listed = [one.id async for one in stage.calls.batches("sandbox", limit=50)]
    return {one for one in listed if ":recovery-" in one}


async def ended_or_parked(stage: Stage, request: CallRequest) -> None:
    """Wait until a call has ended or is parked."""
    while (await stage.calls.call(request.call_id).status()).stage not in (  # noqa: ASYNC110 -- it changes in another process
        CallStage.COMPLETED,
        CallStage.PARKED,
    ):
        await asyncio.sleep(0.05)


async def resumed_by(stage: Stage, request: CallRequest) -> list[str]:
    """Who resumed a call, from the histories of all its runs."""
    events = await whole_history(stage, request)
    signals = [
        event.workflow_execution_signaled_event_attributes
        for event in events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    return [
        str(json.loads(signal.input.payloads[0].data).get("batch"))
        for signal in signals
        if signal.signal_name == names.REPROCESS
    ]


async def whole_history(stage: Stage, request: CallRequest) -> list[HistoryEvent]:
    """The events of all runs of a call, which may have continued as new while it was parked."""
    run_id, events = None, list[HistoryEvent]()
    while run_id != "":
        handle = stage.client.get_workflow_handle(request.call_id, run_id=run_id)
        run = (await handle.fetch_history()).events
        events = [*run, *events]
        run_id = run[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return events


async def replays(stage: Stage, batch_id: str) -> None:
    """The history of a batch replays."""
    handle = stage.client.get_workflow_handle(batch_id)
    await replay(await handle.fetch_history())


async def test_batch_after_an_outage_of_hours(stage: Stage) -> None:
    """Calls parked for hours complete, each sent once by the batch, as late."""
    requests = await park(stage, 30)
    for request in requests:
        await stage.skipper.fast_forward(stage.handle(request), OUTAGE)
    wanted = BatchRequest(selection=selection(*requests), rate=100, concurrency=10, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    done = await batch.result()
    assert done.state is BatchState.COMPLETED
    assert done.counts == BatchCounts(selected=30, signalled=30, completed=30)
    assert done.total == 30
    outcomes = [await stage.calls.call(one.call_id).outcome(PATIENCE) for one in requests]
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.COMPLETED}
    for timings in (outcome.timings for outcome in outcomes):
        assert timings.answered_at is not None
        assert timings.answered_at - timings.started_at > OUTAGE
    sends = [len(await stage.seen(one.call_id, "request")) for one in requests]
    assert sends == [3] * 30
    status = await stage.calls.call(requests[0].call_id).status()
    assert (status.parked_times, status.reprocessed) == (1, 1)
    assert status.reprocessed_by is not None
    assert status.reprocessed_by.startswith(batch.id)
    assert await stage.ledger.batches.parked(selection(*requests)) == []
    await replays(stage, batch.id)


async def test_failing_call_is_parked_again_up_to_its_limit(stage: Stage) -> None:
    """Each batch resumes it once; the second time it fails with a notice."""
    (request,) = await park(stage, 1, receipt_failures=1000)
    wanted = BatchRequest(selection=selection(request), rate=100, by="ops")
    first = await (await stage.calls.reprocess_parked(wanted)).result()
    assert first.counts == BatchCounts(selected=1, signalled=1, parked_again=1)
    assert (await stage.calls.call(request.call_id).status()).parked_times == 2
    second = await (await stage.calls.reprocess_parked(wanted)).result()
    assert second.counts == BatchCounts(selected=1, signalled=1, failed=1)
    with pytest.raises(CallFailedError) as failed:
        await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert failed.value.outcome.notice is not None
    assert len(set(await resumed_by(stage, request))) == 2
    await replay(await stage.handle(request).fetch_history())


async def test_paused_resumed_and_stopped(stage: Stage) -> None:
    """A paused batch resumes no calls, and a stopped one releases selected calls."""
    requests = await park(stage, 10)
    wanted = BatchRequest(selection=selection(*requests), rate=0.5, concurrency=1, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    await until(stage, batch.id, lambda seen: seen.state is BatchState.RUNNING)
    await batch.pause(by="ann", reason="the provider is slow")
    paused = await until(stage, batch.id, lambda seen: seen.state is BatchState.PAUSED)
    assert paused.why == "by ann: the provider is slow"
    await stage.client.get_workflow_handle(batch.id).signal(names.RESUME, {"by": "ann"})
    rejected = await until(stage, batch.id, lambda seen: seen.last_error is not None)
    assert "BatchCommand: reason" in str(rejected.last_error)
    assert rejected.state is BatchState.PAUSED
    await batch.resume(by="ann", reason="better now")
    await until(stage, batch.id, lambda seen: seen.counts.signalled > paused.counts.signalled)
    await batch.stop(by="bo", reason="enough")
    done = await batch.result()
    assert (done.state, done.why) == (BatchState.STOPPED, "by bo: enough")
    left = await stage.ledger.batches.parked(selection(*requests))
    assert done.counts.signalled + len(left) == len(requests)
    assert done.counts.left == len(left) > 0
    await replays(stage, batch.id)


async def test_at_most_selects_the_oldest_calls(stage: Stage) -> None:
    """The others stay parked, as do calls of other operations."""
    requests = []
    for _ in range(3):
        requests += await park(stage, 1)
    wanted = BatchRequest(
        selection=selection(*requests, at_most=2, operation="create_order"), rate=100, by="ops"
    )
    done = await (await stage.calls.reprocess_parked(wanted)).result()
    assert (done.total, done.counts.completed) == (2, 2)
    (left,) = await stage.ledger.batches.parked(selection(*requests))
    assert left.call_id == requests[-1].call_id


async def test_batch_waits_while_the_breaker_is_open(stage: Stage) -> None:
    """It says why, and continues by itself."""
    requests = await park(stage, 3)
    control = ControlHandle(stage.client, "sandbox")
    hold = ForceBreaker(state=BreakerState.OPEN, by="ann", reason="they are down")
    await control.force_breaker(hold)
    wanted = BatchRequest(
        selection=selection(*requests),
        rate=100,
        # Workers hear of a breaker within a second or so.
        ramp=Ramp(start=0.7, over=timedelta(hours=1)),
        by="ops",
    )
    try:
        batch = await stage.calls.reprocess_parked(wanted)
        waiting = await until(stage, batch.id, lambda seen: "breaker" in str(seen.why))
    finally:
        closed = {"state": BreakerState.CLOSED, "reason": "they are back"}
        await control.force_breaker(hold.model_copy(update=closed))
        await control.force_breaker(hold.model_copy(update={"state": None}))
    assert waiting.state is BatchState.WAITING
    assert waiting.counts.signalled < 3
    assert "open: " in str(waiting.why)
    counts = (await batch.result()).counts
    # Calls resumed in that second evaluated the breaker themselves and are parked again, and the
    # batch skips those that the breaker's own recovery resumed first.
    assert counts.completed + counts.parked_again == counts.signalled
    for request in requests:
        await ended_or_parked(stage, request)
    await replays(stage, batch.id)


async def test_numbers_are_true_while_it_runs_and_at_the_end(stage: Stage) -> None:
    """They move within a second or two, and add up although another batch takes most calls."""
    requests = await park(stage, 6)
    slow = BatchRequest(selection=selection(*requests), rate=0.25, by="ops")
    batch = await stage.calls.reprocess_parked(slow)
    first = await until(stage, batch.id, lambda seen: seen.counts.signalled > 0)
    assert (first.state, first.total, first.counts.signalled) == (BatchState.RUNNING, 6, 1)
    assert utc_now() - first.started_at < timedelta(seconds=4)
    moved = await until(stage, batch.id, lambda seen: seen.counts.completed > 0)
    assert moved.counts.signalled < 3
    fast = slow.model_copy(update={"rate": 100.0})
    other = await (await stage.calls.reprocess_parked(fast, name=requests[0].key)).result()
    done = await batch.result()
    assert other.counts.completed + done.counts.completed == 6
    assert other.counts.completed >= 3
    for one in (other, done):
        assert one.state is BatchState.COMPLETED
        assert one.counts.done == one.total
    assert done.counts.skipped == 6 - done.counts.completed
    assert done.why == f"{done.counts.skipped} had ended or were resumed otherwise"


async def test_call_that_fails_again_and_again_alone_is_quarantined(stage: Stage) -> None:
    """Recoveries leave it out, it is named, and an operator who reprocesses it releases it."""
    third = {"operation": "third_order"}
    for _ in range(3):
        call = await stage.calls.start(stage.request().model_copy(update=third))
        assert (await call.outcome(PATIENCE)).status is OutcomeStatus.COMPLETED
    poisoned = stage.request(receipt_failures=1000).model_copy(update=third)
    call = await stage.calls.start(poisoned)
    while not await answers(stage, "third_order"):  # noqa: ASYNC110 -- workers report them
        await asyncio.sleep(0.1)
    wanted = BatchRequest(selection=selection(poisoned), rate=100, by="ops")
    for times in (1, 2):
        assert await stage.ledger.batches.quarantined("sandbox") == []
        await in_ledger(stage, poisoned, times)
        done = await (await stage.calls.reprocess_parked(wanted)).result()
        assert done.counts.parked_again == 1
    await in_ledger(stage, poisoned, 3)
    (found,) = await stage.ledger.batches.quarantined("sandbox")
    assert found.call_id == poisoned.call_id
    status = await call.status()
    assert "in quarantine: it failed again 2 times" in str(status.last_error)
    assert await stage.ledger.batches.parked(selection(poisoned, quarantined=False)) == []
    await call.reprocess(by="ops")
    await in_ledger(stage, poisoned, 4)
    assert await stage.ledger.batches.quarantined("sandbox") == []


async def test_next_recovery_takes_over_what_the_last_one_has_left(stage: Stage) -> None:
    """Its batch is stopped, so that two do not compete; a repeated step changes nothing."""
    before = utc_now()
    requests = await park(stage, 3)
    run, drain = ActivityEnvironment(client=stage.client).run, ResumeParked(stage.deps).drain
    first = DrainStep(provider="sandbox", version=9001, reason="well", since=before)
    started = (await run(drain, first)).recovery
    assert started is not None
    assert started.batch is not None
    second = first.model_copy(update={"version": 9002, "since": utc_now(), "previous": (started,)})
    taken_over = (await run(drain, second)).recovery
    assert taken_over is not None
    assert taken_over.batch is not None
    assert taken_over.since == before
    stopped = await stage.calls.batch(started.batch).result()
    assert (stopped.state, stopped.counts.selected) == (BatchState.STOPPED, 0)
    assert (await run(drain, second)).recovery == taken_over
    done = await stage.calls.batch(taken_over.batch).result()
    assert (done.total, done.counts.completed) == (3, 3)
    assert [len(await resumed_by(stage, request)) for request in requests] == [1] * 3


async def test_queue_shows_what_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many requests, how old, and that none goes; and by name what is held back, and why."""
    for name, value in stage.namespace.environment.items():
        monkeypatch.setenv(name, value)
    control = ControlHandle(stage.client, "sandbox")
    (kept_back,) = await park(stage, 1)
    stop = SetLimit(per_second=0, by="ann", reason="a quiet hour")
    await control.set_limit(stop)
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 0)
    await asyncio.sleep(2.5)  # a worker trusts what it has read for up to two seconds
    calls = [await stage.calls.start(stage.request()) for _ in range(3)]
    view = await queue_of(stage, lambda found: found.queues[0].waiting >= 3)
    sends = view.queues[0]
    assert (sends.queue, sends.limit, sends.empty_in) == ("ackbridge.sandbox", 0, None)
    assert sends.workers > 0
    (mine,) = [one for one in view.calls if one.call == kept_back.call_id]
    assert (mine.waits_for, mine.code) == ("batch", "no_receipt")
    assert str(view.breaker).startswith("closed: ")
    await control.set_limit(stop.model_copy(update={"per_second": None}))
    for call in calls:
        assert (await call.outcome(PATIENCE)).status is OutcomeStatus.COMPLETED
    await queue_of(stage, lambda found: not found.queues[0].waiting)


async def queue_of(stage: Stage, holds: Callable[[QueueView], bool]) -> QueueView:
    """Wait for the statistics of the engine, which are some seconds old."""
    async with asyncio.timeout(30):
        while not holds(view := await read_queue(stage.ledger, "sandbox", 100)):  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.2)
    return view


async def answers(stage: Stage, operation: str) -> int:
    """The responses of an operation in the last minute."""
    totals = await stage.ledger.stats.totals("sandbox", utc_now() - timedelta(minutes=1))
    return totals[operation][Count.ANSWERS] if operation in totals else 0


async def test_maintenance_resends_only_what_it_has_parked(stage: Stage) -> None:
    """A call that was parked before stays parked, also if somebody tried to resume it meanwhile."""
    (unrelated,) = await park(stage, 1)
    before = await recoveries(stage)
    control = ControlHandle(stage.client, "sandbox")
    hold = ForceBreaker(state=BreakerState.OPEN, by="ann", reason="maintenance")
    await control.force_breaker(hold)
    await asyncio.sleep(2.5)  # a worker trusts what it has read for up to two seconds
    kept_back = stage.request()
    await stage.calls.start(kept_back)
    await stage.until(kept_back, CallStage.PARKED)
    await stage.calls.call(unrelated.call_id).reprocess(by="ops")
    await in_ledger(stage, unrelated, times=2)
    for state in (BreakerState.CLOSED, None):
        await control.force_breaker(hold.model_copy(update={"state": state}))
    outcome = await stage.calls.call(kept_back.call_id).outcome(PATIENCE)
    assert outcome.status is OutcomeStatus.COMPLETED
    while not (new := await recoveries(stage) - before):  # noqa: ASYNC110 -- the list lags
        await asyncio.sleep(0.1)
    (recovery,) = [await stage.calls.batch(one).result() for one in new]
    assert (recovery.total, recovery.counts.completed) == (1, 1)
    status = await stage.calls.call(unrelated.call_id).status()
    assert (status.stage, status.reprocessed) == (CallStage.PARKED, 0)
    assert len(await stage.seen(unrelated.call_id, "request")) == 2


async def test_call_signalled_before_a_crash_is_resumed_once(stage: Stage) -> None:
    """The page died between the signal and its record in the ledger."""
    (request,) = await park(stage, 1, receipt_failures=1000)
    soon = utc_now() + timedelta(hours=1)
    wanted = BatchRequest(selection=selection(request), rate=100, not_before=soon, by="ops")
    batch = await stage.calls.reprocess_parked(wanted, name=request.key)
    described = await stage.client.get_workflow_handle(batch.id).describe()
    name = f"{batch.id}#{described.run_id[:8]}"
    # What a page does that dies before it can note what it has done.
    taken = await stage.ledger.batches.claim(name, wanted.selection, utc_now(), 10)
    assert taken == [request.call_id]
    order = Reprocess(by="ops", batch=name)
    signal = (stage.client, request.call_id, names.REPROCESS, as_plain(order))
    await signal_once(*signal, f"{name}:{request.call_id}", PATIENCE)
    await in_ledger(stage, request, times=2)
    assert (await batch.progress()).state is BatchState.WAITING
    await stage.skipper.fast_forward(stage.client.get_workflow_handle(batch.id), timedelta(hours=1))
    assert (await batch.result()).counts.parked_again == 1
    assert await resumed_by(stage, request) == [name]
    # And the call itself takes no batch twice, whoever says so.
    await stage.handle(request).signal(names.REPROCESS, {"by": "ops", "batch": name})
    status = await stage.calls.call(request.call_id).status()
    assert "has reprocessed the call before" in str(status.last_error)
    assert status.stage is CallStage.PARKED


async def test_invalid_start_names_the_field(stage: Stage) -> None:
    """The workflow fails at once, and no task hangs."""
    handle = await stage.client.start_workflow(
        names.REPROCESS_PARKED,
        {"selection": {"provider": "sandbox"}, "rate": 0, "by": "ops"},
        id="batch.sandbox:bad",
        task_queue=names.TASK_QUEUE,
    )
    with pytest.raises(WorkflowFailureError) as refused:
        await handle.result()
    assert "rate: Input should be greater than 0" in str(refused.value.cause)


async def test_cancelled_natively(stage: Stage) -> None:
    """Temporal's cancellation stops a batch, which releases selected calls."""
    requests = await park(stage, 3)
    wanted = BatchRequest(selection=selection(*requests), rate=0.2, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    await until(stage, batch.id, lambda seen: seen.state is BatchState.RUNNING)
    handle = stage.client.get_workflow_handle(batch.id)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as cancelled:
        await handle.result()
    assert isinstance(cancelled.value.cause, CancelledError)
    assert len(await stage.ledger.batches.parked(selection(*requests))) >= 1
    listed = [one.id async for one in stage.calls.batches("sandbox", limit=50)]
    assert batch.id in listed
    await replays(stage, batch.id)


async def test_terminated(stage: Stage) -> None:
    """The client reports a terminated batch, and stops waiting for it."""
    requests = await park(stage, 2)
    wanted = BatchRequest(selection=selection(*requests), rate=0.2, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    await until(stage, batch.id, lambda seen: seen.state is BatchState.RUNNING)
    await stage.client.get_workflow_handle(batch.id).terminate("a mistake")
    seen = await batch.progress()
    assert seen.state is BatchState.TERMINATED
    assert seen.state.is_final
    assert "ended as terminated" in str(seen.why)


async def test_continue_as_new(stage: Stage) -> None:
    """A paused batch stays paused, keeps its counts, resumes no call twice; its runs replay."""
    requests = await park(stage, 4)
    wanted = BatchRequest(selection=selection(*requests), rate=1, by="ops")
    batch = await stage.calls.reprocess_parked(wanted)
    handle = stage.client.get_workflow_handle(batch.id)
    first = (await handle.describe()).run_id
    await until(stage, batch.id, lambda seen: seen.state is BatchState.RUNNING)
    await batch.pause(by="ann", reason="a moment")
    before = await until(stage, batch.id, lambda seen: seen.state is BatchState.PAUSED)
    for _ in range(EARLY):
        await handle.signal(names.RESUME, {})
        if (await handle.describe()).run_id != first:
            break
    after = await batch.progress()
    assert (after.state, after.counts) == (BatchState.PAUSED, before.counts)
    await batch.resume(by="ann", reason="go on")
    assert (await batch.result()).counts.completed == 4
    assert [len(await resumed_by(stage, request)) for request in requests] == [1] * 4
    runs = [run async for run in stage.client.list_workflows(f"WorkflowId = '{batch.id}'")]
    assert len(runs) > 1
    for run in runs:
        one = stage.client.get_workflow_handle(batch.id, run_id=run.run_id)
        await replay(await one.fetch_history())
