"""Runs scenarios concurrently, each with its own call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from ackbridge.errors import AckbridgeError

from .cases import Case, make_case
from .checks import PROTOCOL, Finding, check_invariants
from .harness import Harness, conformance_harness
from .scenario_run import SCENARIO_TIMEOUT, ScenarioFailedError, ScenarioRun
from .scenarios.scenario import Scenario

CONCURRENCY = 10 * (os.cpu_count() or 2)
"""Calls in flight; most of them wait."""


class Verdict(StrEnum):
    """The result of a scenario.

    One that could not be played for want of a message has failed; a skipped one cannot apply to the
    operation as its file describes it.
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    operation: str
    scenario: Scenario
    verdict: Verdict
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        complaints: requests that the provider could not understand.
        has_examples: whether the provider's messages were those of examples.
    """

    results: Sequence[Result]
    complaints: Sequence[str] = ()
    has_examples: bool = True

    def of(self, verdict: Verdict) -> list[Result]:
        return [result for result in self.results if result.verdict is verdict]


async def run_conformance(
    file: Path,
    environ: Mapping[str, str],
    payloads: Mapping[str, Any],
    scenarios: Sequence[Scenario],
    *,
    on_plan: Callable[[int], None] = lambda _count: None,
    on_result: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Run every scenario with every operation that it applies to; results are in that order.

    Payloads are by operation, None where they are generated; `on_plan` gets the number of results
    to come. Raises as `conformance_harness`.
    """
    async with conformance_harness(file, environ) as harness:
        cases = [
            make_case(harness.integration, name, harness.examples, given)
            for name, given in payloads.items()
        ]
        plan = [(case, one) for case in cases for one in scenarios if one.applies(case)]
        on_plan(len(plan))
        slots = asyncio.Semaphore(CONCURRENCY)
        # Operations may share a path, so there is one request at a time that identifies no call.
        exclusive = asyncio.Lock()

        async def run(number: int, case: Case, scenario: Scenario) -> Result:
            lock = nullcontext() if case.identifies_call else exclusive
            async with lock, slots:
                result = await _run(harness, case, scenario, f"{scenario.name}-{number:04}")
            on_result(result)
            return result

        results = await asyncio.gather(*(run(number, *pair) for number, pair in enumerate(plan)))
        complaints = list(dict.fromkeys(harness.dialect.complaints))
        return Report(results, complaints, has_examples=bool(harness.examples))


async def _run(harness: Harness, case: Case, scenario: Scenario, key: str) -> Result:
    if (missing := scenario.missing(case)) is not None:
        return Result(case.name, scenario, Verdict.FAILED, [missing])
    if (reason := scenario.unless(case)) is not None:
        return Result(case.name, scenario, Verdict.SKIPPED, [reason])
    run = ScenarioRun(harness, case, case.request(key))
    try:
        async with asyncio.timeout(SCENARIO_TIMEOUT.total_seconds()):
            await scenario.play(run)
            outcome = await run.outcome()
            run.findings += check_invariants(run.case, await run.records(), outcome)
    except ScenarioFailedError:
        pass  # its findings say why
    except TimeoutError:
        run.findings.append(await _timed_out(run))
    except AckbridgeError as error:
        run.fail("the call to be made", f"{type(error).__name__}: {error}", "request")
    except (RPCError, WorkflowQueryFailedError) as error:
        run.findings.append(Finding("a call that answers", str(error), PROTOCOL))
    finally:
        await _clean_up(run)
    verdict = Verdict.FAILED if run.findings else Verdict.PASSED
    return Result(case.name, scenario, verdict, list(dict.fromkeys(map(str, run.findings))))


async def _timed_out(run: ScenarioRun) -> Finding:
    try:
        async with asyncio.timeout(5):
            status = await run.call.status()
    except (AckbridgeError, RPCError, WorkflowQueryFailedError, TimeoutError):
        return Finding("an end", "the call does not answer", PROTOCOL)
    seen = f"{status.stage.value} in cycle {status.cycle}: {status.last_error or 'no error'}"
    return Finding(f"an end within {SCENARIO_TIMEOUT} of real time", seen, run.at("response"))


async def _clean_up(run: ScenarioRun) -> None:
    try:
        async with asyncio.timeout(SCENARIO_TIMEOUT.total_seconds()):
            await run.clean_up()
    except (RPCError, WorkflowQueryFailedError, TimeoutError):
        run.findings.append(Finding("a cancel to end it", "it does not end", PROTOCOL))
