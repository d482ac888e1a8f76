"""Workflow modules stay light and deterministic: nothing with I/O is reachable from them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import workflows
from ackbridge.contracts import names
from ackbridge.contracts.deliveries import DeadLetterStep, Delivered, Delivery
from ackbridge.contracts.plan import AcknowledgePlan
from ackbridge.contracts.purge import PurgePageResult, PurgeStep
from ackbridge.contracts.wire import Wire
from activities import main_activities, notices_activities
from tests.support.simulated_host import plan
from workflows.hosting import steps
from workflows.hosting.host import Step

FOLDER = Path(workflows.__file__).parent
HEAVY = {"httpx", "sqlalchemy", "fastapi", "jmespath", "yaml", "authlib", "uvicorn", "activities"}


def test_workflows_import_nothing_with_io() -> None:
    """Importing every workflow loads no HTTP client, no database, no activity."""
    code = "import sys, workflows; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert HEAVY & {name.split(".")[0] for name in done.stdout.split()} == set()


FORBIDDEN_CALLS = {
    "open",
    "input",
    "print",
    "sleep",
    "now",
    "utcnow",
    "today",
    "time",
    "monotonic",
    "perf_counter",
    "uuid4",
    "uuid1",
    "urandom",
    "getenv",
    "randint",
    "choice",
    "hash",
    "id",
}
ALLOWED_RECEIVERS = {"workflow", "self", "_host", "host"}
FORBIDDEN_MODULES = {"time", "random", "os", "uuid", "secrets", "socket", "threading", "pathlib"}


def nondeterministic(tree: ast.AST) -> Iterator[str]:
    """What could do something else on replay."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in FORBIDDEN_CALLS:
                yield node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            receiver = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
            if node.func.attr in FORBIDDEN_CALLS and receiver not in ALLOWED_RECEIVERS:
                yield f"{receiver}.{node.func.attr}"


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER))
)
def test_workflow_modules_are_deterministic(path: Path) -> None:
    """They use the host's clock and the workflow's random numbers, no environment and no files."""
    assert list(nondeterministic(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    ["import random", "from time import time", "datetime.now()", "open('x')", "uuid.uuid4()"],
)
def test_nondeterministic_code_is_found(code: str) -> None:
    """The check above finds it."""
    assert list(nondeterministic(ast.parse(code))) != []


def all_steps() -> list[Step[Any]]:
    """Every step of a call."""
    planned = plan()
    assert isinstance(planned.acknowledge, AcknowledgePlan)
    return [
        steps.PREPARE,
        steps.RECONSIDER,
        steps.RECORD,
        steps.CONCLUDE,
        steps.send(planned, 1, timedelta(hours=1)),
        steps.CORRELATE,
        steps.LOOK_INBOX,
        steps.ask_status(planned),
        steps.acknowledge_once(planned, planned.acknowledge, "success", local=True),
        steps.acknowledge_pending(planned.acknowledge, "success", timedelta(hours=1)),
    ]


@pytest.mark.parametrize("step", all_steps(), ids=lambda step: f"{step.name}")
def test_steps_and_activities_agree(step: Step[Any]) -> None:
    """The step's activity exists, takes one model and returns the step's result."""
    deps: Any = None
    by_name = {
        activity.__temporal_activity_definition.name: activity  # type: ignore[attr-defined]  # the SDK's mark on an activity
        for activity in main_activities(deps)
    }
    hints = get_type_hints(by_name[step.name])
    answer = hints.pop("return")
    (argument,) = hints.values()
    assert issubclass(argument, Wire)
    assert answer is step.result


@pytest.mark.parametrize(
    ("name", "argument", "answer"),
    [
        (names.DELIVER, Delivery, Delivered),
        (names.BURY, DeadLetterStep, None),
        (names.PURGE_PAGE, PurgeStep, PurgePageResult),
    ],
)
def test_activities_of_other_workflows_agree(
    name: str, argument: type[Wire], answer: type[Wire] | None
) -> None:
    """The activities exist, with the arguments and results that the workflows use."""
    deps: Any = None
    by_name = {
        activity.__temporal_activity_definition.name: activity  # type: ignore[attr-defined]  # the SDK's mark on an activity
        for activity in (*main_activities(deps), *notices_activities(deps))
    }
    hints = get_type_hints(by_name[name])
    given = hints.pop("return")
    assert list(hints.values()) == [argument]
    assert answer in (None, given)
