"""Golden histories: what was started by an older worker must replay with this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.workflow import NondeterminismError

from tests.support.replays import has_run, replay

from .capture import HISTORIES, SCENARIOS

PATHS = sorted(HISTORIES.glob("*.json"))


def read(text: str) -> WorkflowHistory:
    """A history under the id it was started with, which a call compares with its request."""
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], text)


def test_every_scenario_has_its_history() -> None:
    """Nothing that can be captured is left out."""
    assert {path.stem for path in PATHS} >= {scenario.__name__ for scenario in SCENARIOS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.stem))
async def test_history_replays(path: Path) -> None:
    """The same commands come out of the same history."""
    history = read(path.read_text())
    assert has_run(history.events)
    await replay(history)


async def test_changed_history_does_not_replay() -> None:
    """Commands that differ from the history are detected."""
    text = (HISTORIES / "completed_after_retries.json").read_text()
    changed = text.replace('"name": "send"', '"name": "conclude"')
    assert changed != text
    with pytest.raises(NondeterminismError):
        await replay(read(changed))


async def test_run_without_a_task_has_nothing_to_replay() -> None:
    """The history of a run may be read before its first workflow task."""
    history = read((HISTORIES / "completed_after_retries.json").read_text())
    await replay(WorkflowHistory(history.workflow_id, history.events[:1]))
