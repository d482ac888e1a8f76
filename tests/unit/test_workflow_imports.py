"""Workflow modules stay light and deterministic: nothing with I/O is reachable from them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_type_hints

import pytest

import workflows.steps
from ackbridge.contracts import AcknowledgePlan, Wire
from activities import main_activities
from tests.unit.simulated_host import plan
from workflows.host import Step

HEAVY = {"httpx", "sqlalchemy", "fastapi", "jmespath", "yaml", "authlib", "uvicorn", "activities"}


def test_workflows_import_nothing_with_io() -> None:
    """Importing every workflow loads no HTTP client, no database, no activity."""
    code = "import sys, workflows; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert HEAVY & {name.split(".")[0] for name in done.stdout.split()} == set()


def all_steps() -> list[Step[Any]]:
    """Every step a workflow can ask for."""
    planned = plan()
    assert isinstance(planned.acknowledge, AcknowledgePlan)
    return [
        workflows.steps.PREPARE,
        workflows.steps.RECORD,
        workflows.steps.CONCLUDE,
        workflows.steps.send(planned, 1),
        workflows.steps.ask_status(planned),
        workflows.steps.acknowledge_once(planned, planned.acknowledge, "success"),
        workflows.steps.acknowledge_owed(planned.acknowledge, "success"),
    ]


@pytest.mark.parametrize("step", all_steps(), ids=lambda step: f"{step.name}")
def test_steps_and_activities_agree(step: Step[Any]) -> None:
    """An activity of the step's name exists, takes one model and answers with the step's."""
    provisions: Any = None
    by_name = {
        activity.__temporal_activity_definition.name: activity  # type: ignore[attr-defined]  # the SDK's mark on an activity
        for activity in main_activities(provisions)
    }
    hints = get_type_hints(by_name[step.name])
    answer = hints.pop("return")
    (argument,) = hints.values()
    assert issubclass(argument, Wire)
    if step.result is not workflows.steps.Nothing:
        assert answer is step.result
