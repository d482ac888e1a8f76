"""Purges on the real engine, by schedule and on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import (
    UpdateNamespaceRequest,
)
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleOverlapPolicy,
    WorkflowFailureError,
)
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from ackbridge.client.purge import check_retention, start_purge, sync_purge_schedule
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, OutcomeStatus, Timings
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.purge import (
    PurgeCursor,
    PurgePageResult,
    PurgeProgress,
    PurgeRequest,
    PurgeStep,
    Retention,
)
from ackbridge.errors import ConfigurationError, InvalidRequestError
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.temporal.connect import client_options
from activities import purge as purge_activity
from activities.purge import PurgePages
from tests.support.engine import running_engine
from tests.support.replays import replay
from tests.support.stage import Stage, set_up

DAY = timedelta(days=1)
TIMEOUT = timedelta(minutes=1)


SUGGESTED_AT = 25
"""The number of events after which this engine suggests to continue as new."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngine]:
    """An engine of its own: the purges of this module would find rows of other tests."""
    with running_engine(
        tmp_path_factory.mktemp("purge"), suggest_renewal_after=SUGGESTED_AT
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    engine: EmbeddedEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """A stage on that engine."""
    async with set_up(engine, tmp_path_factory.mktemp("stage")) as everything:
        yield everything


@pytest.fixture
def in_a_hundred_days(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the clock of the purge by a hundred days."""
    later = Ledger.open(stage.settings.ledger_url, lambda: utc_now() + 100 * DAY)
    monkeypatch.setattr(stage.ledger, "purge", later.purge)


async def plain_client(stage: Stage) -> Client:
    """A client without time skipping."""
    return await Client.connect(
        stage.namespace.address, namespace=stage.namespace.name, **client_options()
    )


@pytest.mark.usefixtures("in_a_hundred_days")
async def test_schedule_purges(stage: Stage) -> None:
    """Several workers share one schedule; it deletes an old call, and no open one."""
    over = stage.request("quote")
    await (await stage.calls.start(over)).outcome(TIMEOUT, settled=True)
    stuck = stage.request(stuck=True)
    await stage.calls.start(stuck)
    await stage.until(stuck, "awaiting_response")
    client = await plain_client(stage)
    await asyncio.gather(*(sync_purge_schedule(client, Retention(), DAY) for _ in range(3)))
    handle = client.get_schedule_handle(names.PURGE_ID)
    schedule = (await handle.describe()).schedule
    assert [one.every for one in schedule.spec.intervals] == [DAY]
    assert schedule.policy.overlap is ScheduleOverlapPolicy.SKIP

    await handle.trigger()
    while not (ran := (await handle.describe()).info.recent_actions):  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    action = ran[0].action
    assert isinstance(action, ScheduleActionExecutionStartWorkflow)
    purge = client.get_workflow_handle(action.workflow_id)
    done = PurgeProgress.model_validate(await purge.result())
    assert (done.is_done, done.by) == (True, "schedule")
    assert done.gone["calls"] >= 1
    assert await stage.ledger.calls.get(over.call_id) is None
    assert await stage.ledger.calls.responses(over.call_id) == []
    assert await stage.ledger.calls.get(stuck.call_id) is not None
    asked = await purge.query(names.PROGRESS, result_type=PurgeProgress)
    assert asked == done

    await sync_purge_schedule(client, Retention(), timedelta(0))
    with pytest.raises(RPCError, match="not found"):
        await handle.describe()
    await sync_purge_schedule(client, Retention(), timedelta(0))


@pytest.mark.usefixtures("in_a_hundred_days")
async def test_long_purge_continues_as_new(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It continues at the same place, as of the same time, with its counts; and it replays."""
    monkeypatch.setattr(purge_activity, "PAGE_SECONDS", 0.0)
    for number in range(2):
        request = stage.request("quote")
        await (await stage.calls.start(request)).outcome(TIMEOUT, settled=True)
        await stage.ledger.inbox.log_suppressed("sandbox", f"evt-{number}", None, "duplicate")
    client = await plain_client(stage)
    purge = await start_purge(client, PurgeRequest(by="ops"))

    done = await purge.result()

    assert (done.is_done, done.by, done.gone["log"], done.gone["calls"]) == (True, "ops", 2, 2)
    last = await client.get_workflow_handle(purge.id).fetch_history()
    began = last.events[0].workflow_execution_started_event_attributes
    assert began.continued_execution_run_id
    run_id = began.first_execution_run_id
    first = await client.get_workflow_handle(purge.id, run_id=run_id).fetch_history()
    for history in (first, last):
        assert len(history.events) < SUGGESTED_AT + 10
        await replay(history)


async def completed_long_ago(ledger: Ledger, request: CallRequest, event_key: str) -> None:
    """Record a call that only the ledger still has."""
    message = ProviderMessage(
        kind=MessageKind.RESPONSE, event_key=event_key, source=MessageSource.CALLBACK
    )
    outcome = CallOutcome(
        call_id=request.call_id,
        status=OutcomeStatus.COMPLETED,
        timings=Timings(started_at=utc_now()),
    )
    await ledger.calls.claim(request, "run-of-long-ago")
    await ledger.calls.record_response(request.call_id, 1, message, outcome)


@pytest.mark.usefixtures("in_a_hundred_days")
async def test_late_duplicate_does_not_answer_a_new_call(stage: Stage) -> None:
    """Event keys that an old call with the same id has applied stay suppressed."""
    request = stage.request(stuck=True)
    old = request.model_copy(update={"payload": {"amount": 1, "currency": "EUR"}})
    await completed_long_ago(stage.ledger, old, f"evt-{request.key}")
    client = await plain_client(stage)
    await (await start_purge(client, PurgeRequest(by="ops"))).result()

    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    for event_key, is_stale in ((f"evt-{request.key}", True), (f"new-{request.key}", False)):
        message = {"kind": "response", "event_key": event_key, "data": {"stale": is_stale}}
        await stage.handle(request).signal(names.PROVIDER_MESSAGE, message)

    outcome = await stage.calls.call(request.call_id).outcome(TIMEOUT, settled=True)
    assert outcome.response == {"stale": False}
    (answered,) = await stage.ledger.calls.responses(request.call_id)
    assert answered.event_key == f"new-{request.key}"


@asynccontextmanager
async def engine_retention(client: Client, span: timedelta) -> AsyncIterator[None]:
    """Set the namespace's retention while inside."""

    async def set_retention(span: timedelta) -> None:
        ttl = Duration()
        ttl.FromTimedelta(span)
        config = NamespaceConfig(workflow_execution_retention_ttl=ttl)
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=client.namespace, config=config)
        )

    await set_retention(span)
    yield
    await set_retention(DAY)


async def test_retention_shorter_than_the_engines_is_refused(stage: Stage) -> None:
    """Neither a worker nor a purge starts with it, and both say why."""
    client = await plain_client(stage)
    await check_retention(client, Retention(calls=DAY))
    complaint = "ACKBRIDGE_RETENTION_CALLS is 90 days, but the engine keeps .* for 91 days"
    async with engine_retention(client, 91 * DAY):
        with pytest.raises(ConfigurationError, match=complaint):
            await check_retention(client, Retention())
        await check_retention(client, Retention(calls=timedelta(0)))
        purge = await start_purge(client, PurgeRequest(by="ops"))
        with pytest.raises(InvalidRequestError, match=complaint):
            await purge.result()


async def test_invalid_start_fails(stage: Stage) -> None:
    """The error names the field."""
    handle = await stage.client.start_workflow(
        names.PURGE_LEDGER,
        {"by": "ops", "retention": {"calls": "3h"}},
        id="purge:bad",
        task_queue=names.TASK_QUEUE,
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert "retention.calls: must be at least 1d, or 0" in str(failed.value.cause)


async def test_page_continues_after_a_dead_worker(stage: Stage) -> None:
    """With the counts of that worker."""
    environment = ActivityEnvironment()
    before = PurgePageResult(as_of=utc_now(), place=PurgeCursor(kind="calls"), gone={"log": 3})
    environment.info = replace(environment.info, heartbeat_details=[before.model_dump(mode="json")])
    told: list[PurgePageResult] = []
    environment.on_heartbeat = told.append
    step = PurgeStep(retention=Retention(), place=PurgeCursor(kind="inbox"))

    page = await environment.run(PurgePages(stage.deps).purge_page, step)

    assert (page.place, page.as_of, page.gone) == (None, before.as_of, {"log": 3})
    assert [one.place.kind for one in told if one.place] == ["bodies", "events"]
