"""Results of local activities wait while a query of the same workflow is answered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.bridge.proto import ActivityTaskCompletion
from temporalio.bridge.proto.activity_task import ActivityTask
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import Worker

from ackbridge.workarounds import temporal_sdk
from ackbridge.workarounds.temporal_sdk import hold_results_during_queries


def asked(run_id: str, query_id: str) -> WorkflowActivation:
    """An activation with a query."""
    activation = WorkflowActivation(run_id=run_id)
    activation.jobs.add().query_workflow.query_id = query_id
    return activation


class Core:
    """What the SDK's core hands out and gets."""

    def __init__(self) -> None:
        self.activations = asyncio.Queue[WorkflowActivation]()
        self.tasks = asyncio.Queue[ActivityTask]()
        self.got: list[str] = []

    async def poll_workflow_activation(self) -> WorkflowActivation:
        return await self.activations.get()

    async def poll_activity_task(self) -> ActivityTask:
        return await self.tasks.get()

    async def complete_workflow_activation(self, completion: WorkflowActivationCompletion) -> None:
        status = completion.WhichOneof("status") or "activation"
        self.got.append(f"{status} of {completion.run_id}")
        await asyncio.sleep(0)

    async def complete_activity_task(self, completion: ActivityTaskCompletion) -> None:
        self.got.append(f"result {completion.task_token.decode()}")


class Polling:
    """A worker, reduced to its connection to the core."""

    def __init__(self) -> None:
        self.core = Core()
        self._bridge_worker: Any = self.core
        hold_results_during_queries(cast("Worker", self))

    async def takes_query(self, run_id: str, query_id: str = "1") -> None:
        await self.core.activations.put(asked(run_id, query_id))
        await self._bridge_worker.poll_workflow_activation()

    async def takes_result(self, run_id: str) -> None:
        activation = WorkflowActivation(run_id=run_id)
        activation.jobs.add().resolve_activity.seq = 1
        await self.core.activations.put(activation)
        await self._bridge_worker.poll_workflow_activation()

    async def takes_local_activity(self, run_id: str) -> None:
        task = ActivityTask(task_token=run_id.encode())
        task.start.is_local = True
        task.start.activity_id = "1"
        task.start.workflow_execution.run_id = run_id
        await self.core.tasks.put(task)
        await self._bridge_worker.poll_activity_task()

    async def completes_activation(self, run_id: str) -> None:
        completion = WorkflowActivationCompletion(run_id=run_id)
        await self._bridge_worker.complete_workflow_activation(completion)

    async def completes_activity(self, token: str) -> None:
        completion = ActivityTaskCompletion(task_token=token.encode())
        await self._bridge_worker.complete_activity_task(completion)


async def test_result_waits_for_the_answer() -> None:
    """Its own run's, and no other's."""
    worker = Polling()
    for run_id in ("a", "b"):
        await worker.takes_local_activity(run_id)
    await worker.takes_query("a")
    waiting = asyncio.create_task(worker.completes_activity("a"))
    await worker.completes_activity("b")
    assert worker.core.got == ["result b"]
    await worker.completes_activation("a")
    await waiting
    assert worker.core.got == ["result b", "activation of a", "result a"]


async def test_query_that_comes_while_the_activation_before_is_completed_counts() -> None:
    """The core may hand out the next activation before it has confirmed the last one."""
    worker = Polling()
    await worker.takes_local_activity("a")
    completing = asyncio.create_task(worker.completes_activation("a"))
    await asyncio.sleep(0)
    await worker.takes_query("a")
    await completing
    waiting = asyncio.create_task(worker.completes_activity("a"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await worker.completes_activation("a")
    await waiting


async def test_query_that_has_been_handed_out_counts() -> None:
    """Even if the poll for it has not returned yet."""
    worker = Polling()
    await worker.takes_local_activity("a")
    query = asyncio.create_task(worker.takes_query("a"))
    waiting = asyncio.create_task(worker.completes_activity("a"))
    await query
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await worker.completes_activation("a")
    await waiting


async def test_scheduled_activities_do_not_wait() -> None:
    """They are no part of a workflow task."""
    worker = Polling()
    await worker.takes_query("a")
    await worker.completes_activity("scheduled")
    assert worker.core.got == ["result scheduled"]


async def test_task_whose_result_was_faster_than_its_query_is_failed() -> None:
    """And not answered: it would be split. The engine hands it out again."""
    worker = Polling()
    await worker.takes_local_activity("a")
    await worker.completes_activity("a")
    await worker.core.activations.put(asked("a", "1"))
    await worker.takes_query("b")
    assert worker.core.got == ["result a", "failed of a"]


async def test_query_after_the_result_is_answered() -> None:
    """And one that belongs to no workflow task."""
    worker = Polling()
    await worker.takes_local_activity("a")
    await worker.completes_activity("a")
    await worker.takes_query("a", "legacy_query")
    await worker.completes_activation("a")
    await worker.takes_result("a")
    await worker.completes_activation("a")
    await worker.takes_query("a")
    assert worker.core.got == ["result a", "activation of a", "activation of a"]


async def test_results_of_a_task_that_is_done_again_wait_for_its_query() -> None:
    """A second failure of the task would cost the call ten seconds."""
    worker = Polling()
    await worker.takes_local_activity("a")
    await worker.completes_activity("a")
    await worker.core.activations.put(asked("a", "1"))
    await worker.core.activations.put(WorkflowActivation(run_id="a"))
    await worker._bridge_worker.poll_workflow_activation()
    await worker.completes_activation("a")
    await worker.takes_local_activity("a")
    waiting = asyncio.create_task(worker.completes_activity("a"))
    await asyncio.sleep(0.01)
    await worker.takes_query("a")
    await asyncio.sleep(0.01)
    assert worker.core.got == ["result a", "failed of a", "activation of a"]
    await worker.completes_activation("a")
    await waiting
    assert worker.core.got[-2:] == ["activation of a", "result a"]


async def test_a_query_that_does_not_come_again_is_not_awaited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody asks any more."""
    monkeypatch.setattr(temporal_sdk, "_ANSWERED_WITHIN", timedelta(milliseconds=50))
    worker = Polling()
    await worker.takes_local_activity("a")
    await worker.completes_activity("a")
    await worker.core.activations.put(asked("a", "1"))
    await worker.takes_query("b")
    for _ in range(2):
        await worker.takes_local_activity("a")
        await worker.completes_activity("a")
    assert worker.core.got == ["result a", "failed of a", "result a", "result a"]
