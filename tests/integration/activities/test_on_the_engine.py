"""What the workflow learns of one attempt to send from the real engine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio import exceptions, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.steps import FailureDetails, SendStep, Sent
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER, BoundedShutdown
from activities.send import Send

from .world import Script, World
from .world import world as made

SECOND = timedelta(seconds=1)


@workflow.defn
class Sending:
    """One send through a queue, as a call does it."""

    @workflow.run
    async def run(self, step: SendStep) -> Sent:
        """Send once."""
        sent: Sent = await workflow.execute_activity(
            names.SEND,
            step,
            result_type=Sent,
            task_queue=f"{workflow.info().task_queue}.send",
            start_to_close_timeout=SECOND,
            schedule_to_start_timeout=SECOND,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return sent


@dataclass
class Engine:
    """A client, and a queue of its own for each test."""

    client: Client
    queue: str

    async def start(self, of: World) -> WorkflowHandle[Any, Sent]:
        """Begin to send an order."""
        step = SendStep(request=of.request(), cycle=1)
        return await self.client.start_workflow(
            Sending.run, step, id=self.queue, task_queue=self.queue
        )

    @asynccontextmanager
    async def sender(self, of: World) -> AsyncIterator[None]:
        """A worker of the provider's queue."""
        send = Send(of.deps).send
        worker = Worker(self.client, task_queue=f"{self.queue}.send", activities=[send])
        async with BoundedShutdown(worker):
            yield


@pytest_asyncio.fixture
async def queue(engine: EmbeddedEngine) -> AsyncIterator[Engine]:
    """The engine, and a worker for the workflow."""
    client = await Client.connect(engine.address, data_converter=DATA_CONVERTER)
    name = f"sending-{uuid.uuid4().hex}"
    worker = Worker(
        client,
        task_queue=name,
        workflows=[Sending],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with BoundedShutdown(worker):
        yield Engine(client, name)


@pytest_asyncio.fixture
async def live(served: tuple[Script, str], tmp_path: Any) -> AsyncIterator[World]:
    """What activities are given, in real time."""
    script, url = served
    script.replies.clear()
    script.asked.clear()
    async with made(tmp_path, script, url, utc_now) as everything:
        yield everything


async def ending(handle: WorkflowHandle[Any, Sent]) -> BaseException:
    """Why a send has failed, as the workflow gets to see it."""
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    activity = caught.value.cause
    assert isinstance(activity, ActivityError)
    assert activity.cause is not None
    return activity.cause


def trouble(error: BaseException | None) -> FailureDetails:
    """The details of an activity's failure."""
    assert isinstance(error, ApplicationError)
    return FailureDetails.model_validate(error.details[0])


async def test_failure_of_the_only_attempt_has_its_details(queue: Engine, live: World) -> None:
    """Whether it may have arrived, and how long to wait before another one."""
    live.script.says({}, 503, retry_after="7")
    async with queue.sender(live):
        error = await ending(await queue.start(live))

    assert isinstance(error, ApplicationError)
    assert (error.type, error.non_retryable, len(live.script.asked)) == ("NoReceipt", False, 1)
    assert trouble(error) == FailureDetails(attempt=1, reached=True)
    assert error.next_retry_delay is not None
    assert 7 <= error.next_retry_delay.total_seconds() <= 7.7


# The SDK says so when the engine's word that an attempt is over comes after its end.
@pytest.mark.filterwarnings("ignore:Cannot find activity to cancel:UserWarning")
async def test_attempt_that_times_out_is_not_repeated(queue: Engine, live: World) -> None:
    """The engine ends it without a cause: it may have arrived."""
    live.script.replies.append(1.5)
    async with queue.sender(live):
        error = await ending(await queue.start(live))

    assert isinstance(error, exceptions.TimeoutError)
    assert (error.type, error.cause) == (TimeoutType.START_TO_CLOSE, None)
    assert len(live.script.asked) == 1


async def test_timeout_of_a_queued_send_has_no_cause(queue: Engine, live: World) -> None:
    """Nothing was sent."""
    error = await ending(await queue.start(live))

    assert isinstance(error, exceptions.TimeoutError)
    assert error.type is TimeoutType.SCHEDULE_TO_START
    assert error.cause is None
