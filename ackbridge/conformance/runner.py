"""Playing scenarios: several at once, each against its own call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from ackbridge.conformance.scenarios.scenario import Scenario
from ackbridge.errors import AckbridgeError

from .cases import Case
from .checks import Finding, judge
from .scenario_run import PATIENCE, Harness, ScenarioFailedError, ScenarioRun


class Verdict(StrEnum):
    """How a scenario ended.

    Attributes:
        SKIPPED: it could not be played, or not be told; the details say why.
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    operation: str
    scenario: Scenario
    verdict: Verdict
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What came of a run.

    Attributes:
        complaints: what the provider was sent and could not make sense of.
    """

    results: Sequence[Result]
    complaints: Sequence[str] = ()

    def of(self, verdict: Verdict) -> list[Result]:
        """Those that ended so."""
        return [result for result in self.results if result.verdict is verdict]


async def run_scenarios(
    theatre: Harness,
    plan: Sequence[tuple[Case, Scenario]],
    *,
    at_once: int,
    done: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Play every scenario of a plan; the results are in its order.

    Args:
        at_once: how many calls are in flight.
        done: told of each result as it comes.
    """
    places = asyncio.Semaphore(at_once)
    # Whose requests say nothing of their call has the provider to itself.
    alone = {case.name: asyncio.Lock() for case, _ in plan if not case.names_its_call}

    async def one(number: int, case: Case, scenario: Scenario) -> Result:
        mine: AbstractAsyncContextManager[object] = alone.get(case.name) or nullcontext()
        async with mine, places:
            result = await _play(theatre, case, scenario, f"{scenario.name}-{number:04}")
        done(result)
        return result

    playing = [one(number, *pair) for number, pair in enumerate(plan)]
    results = await asyncio.gather(*playing)
    return Report(results, list(dict.fromkeys(theatre.mimic.complaints)))


async def _play(theatre: Harness, case: Case, scenario: Scenario, key: str) -> Result:
    obstacle = scenario.obstacle(case)
    if obstacle is not None:
        return Result(case.name, scenario, Verdict.SKIPPED, [obstacle])
    scene = ScenarioRun(theatre, case, case.request(key))
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await _observed(scene, scenario)
    except TimeoutError:
        scene.findings.append(await _hanging(scene))
    except AckbridgeError as error:
        scene.blame("the call to be made", f"{type(error).__name__}: {error}", "request")
    except (RPCError, WorkflowQueryFailedError) as error:
        scene.findings.append(Finding("a call that answers", str(error), "the protocol itself"))
    finally:
        await _cleared(scene)
    verdict = Verdict.FAILED if scene.findings else Verdict.PASSED
    return Result(case.name, scenario, verdict, list(dict.fromkeys(map(str, scene.findings))))


async def _observed(scene: ScenarioRun, scenario: Scenario) -> None:
    try:
        await scenario.play(scene)
    except ScenarioFailedError:
        return
    outcome = await scene.outcome()
    scene.findings += judge(scene.case, await scene.records(), outcome)


async def _hanging(scene: ScenarioRun) -> Finding:
    try:
        async with asyncio.timeout(5):
            status = await scene.call.status()
    except (AckbridgeError, RPCError, WorkflowQueryFailedError, TimeoutError):
        return Finding("an end", "the call does not answer", "the protocol itself")
    seen = f"{status.stage.value} in cycle {status.cycle}: {status.last_error or 'no trouble'}"
    return Finding(f"an end within {PATIENCE} of real time", seen, scene.at("response"))


async def _cleared(scene: ScenarioRun) -> None:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await scene.clear()
    except (RPCError, WorkflowQueryFailedError, TimeoutError):
        scene.findings.append(Finding("a cancel to end it", "it hangs", "the protocol itself"))
