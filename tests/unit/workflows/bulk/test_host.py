"""Steps of calls that share a workflow."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_core import to_json
from temporalio import workflow

from ackbridge.contracts.bulk import BatchedResult, CallEnd, Rejection
from ackbridge.contracts.steps import ReconsiderStep
from tests.support.simulated_host import REQUEST, START
from workflows.bulk.host import LOOKS, QueuedStep, Turns
from workflows.bulk.workflow import _size
from workflows.hosting.steps import RECONSIDER


async def test_a_step_is_asked_for_as_often_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of its host asks, so that it can be hundreds of times within seconds."""
    monkeypatch.setattr(workflow, "now", lambda: START)
    turns = Turns(lambda: None)
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    step = QueuedStep(1, RECONSIDER, ReconsiderStep(request=REQUEST), ended)
    for _ in range(500):
        turns._settle(step, BatchedResult(is_pending=True))
        turns._look_again()
    assert step.looks == 500
    assert turns._timers[-1][0] - START == LOOKS[-1]


def test_the_size_of_an_end_is_in_bytes() -> None:
    """The engine counts those; a character may have four."""
    end = CallEnd(index=0, call_id="c", rejected=Rejection(type="InvalidRequest", reason="漢" * 9))
    assert _size(end) == len(to_json(end))
