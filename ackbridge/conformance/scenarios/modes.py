"""What only providers do that are asked, or that answer in the HTTP response itself."""

from __future__ import annotations

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.sandbox.behaviour import Behaviour

from .responses import completed
from .scenario import Scenario, answer
from .timeouts import EVER, without_answer

_LATER_MS = 1500
"""Milliseconds: the second question, or the third one, has the answer."""


async def _answered_later(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(delay_ms=_LATER_MS))
    await completed(scene)
    asked = len((await scene.records()).seen("status"))
    if asked < 2:
        scene.blame("more than one question", str(asked), "response.poll")


async def _status_in_trouble(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(status_failures=1))
    await completed(scene)


async def _only_garbage(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(malformed_receipts=EVER))
    await without_answer(scene)


def _polls(case: Case) -> bool:
    return case.mode == "poll"


def _is_synchronous(case: Case) -> bool:
    return case.mode == "sync"


MODES = (
    Scenario(
        "answered-when-asked-again",
        "the first question has no answer yet",
        _answered_later,
        applies=_polls,
        needs=answer,
    ),
    Scenario(
        "status-in-trouble",
        "the first question meets a 5xx",
        _status_in_trouble,
        applies=_polls,
        needs=answer,
    ),
    Scenario(
        "only-garbage",
        "no answer is ever JSON",
        _only_garbage,
        applies=_is_synchronous,
        needs=answer,
    ),
)
"""Polling, and synchronous answers."""
