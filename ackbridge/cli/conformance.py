"""check --conformance: every scenario that applies to a file, against a simulated provider."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.model import Integration
from ackbridge.conformance.cases import Case, PayloadRequiredError, make_case
from ackbridge.conformance.harness import rehearse
from ackbridge.conformance.runner import Report, Result, Verdict, run_scenarios
from ackbridge.conformance.scenario_run import Harness
from ackbridge.conformance.scenarios import SCENARIOS
from ackbridge.conformance.scenarios.scenario import Scenario
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import unknown_name
from ackbridge.settings import environment
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit

from .up import told_to_stop

AT_ONCE = 10 * (os.cpu_count() or 2)
"""Calls in flight: most of them wait."""

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for.

    Attributes:
        payloads: `OPERATION=JSON` each.
        scenarios, operations: only these; empty for all.
    """

    payloads: Sequence[str] = ()
    scenarios: Sequence[str] = ()
    operations: Sequence[str] = ()


def check_conformance(file: Path, wishes: Wishes, *, json_output: bool) -> int:
    """Play, and report. Exit 1 when a scenario failed.

    Raises:
        InvalidInputError: the wishes name what is not there, or a payload is missing or not valid.
        Unavailable: engine or worker do not start.
    """
    integration = load_integration(file, environment())
    cases = _cases(integration, wishes)
    scenarios = _scenarios(wishes)
    with told_to_stop(), _progress(hidden=json_output) as (expect, done):
        report = asyncio.run(play(file, environment(), cases, scenarios, expect=expect, done=done))
    _show(file, report, json_output=json_output)
    return Exit.FAILED if report.of(Verdict.FAILED) else Exit.COMPLETED


async def play(
    file: Path,
    environ: Mapping[str, str],
    cases: Mapping[str, Any],
    scenarios: Sequence[Scenario],
    *,
    expect: Callable[[int], None] = lambda _count: None,
    done: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Play scenarios with every operation they apply to.

    Args:
        cases: payloads by operation; None where they are to be made up.
        expect: told how many there will be.
        done: told of each result as it comes.
    """
    async with (
        rehearse(file, environ) as rehearsal,
        httpx.AsyncClient(base_url=rehearsal.provider_url, trust_env=False) as provider,
    ):
        theatre = Harness(
            rehearsal.mimic,
            rehearsal.client,
            provider,
            rehearsal.ledger,
            rehearsal.ledger_path,
        )
        plan = _plan(rehearsal.integration, cases, scenarios)
        expect(len(plan))
        return await run_scenarios(theatre, plan, at_once=AT_ONCE, done=done)


def _plan(
    integration: Integration, payloads: Mapping[str, Any], scenarios: Sequence[Scenario]
) -> list[tuple[Case, Scenario]]:
    cases = [make_case(integration, name, payload) for name, payload in payloads.items()]
    return [(case, one) for case in cases for one in scenarios if one.applies(case)]


def _cases(integration: Integration, wishes: Wishes) -> dict[str, Any]:
    """Payloads by operation, checked before anything is started."""
    given = dict(_given(integration, wishes.payloads))
    for name in wishes.operations:
        _known(name, integration.operations, "--operation")
    names = wishes.operations or list(integration.operations)
    cases = {name: given.get(name) for name in names}
    for name, payload in cases.items():
        try:
            make_case(integration, name, payload)
        except PayloadRequiredError as error:
            raise InvalidInputError(
                f"operation {name}: {error}; give one: --payload {name}=JSON"
            ) from None
        except InvalidInputError as error:
            raise InvalidInputError(f"--payload {name}: {error}") from None
    return cases


def _given(integration: Integration, payloads: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for written in payloads:
        name, equals, text = written.partition("=")
        if not equals:
            raise InvalidInputError(f"--payload: expected OPERATION=JSON, got {written!r}")
        _known(name, integration.operations, "--payload")
        try:
            yield name, json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"--payload {name}: not JSON: {error}") from None


def _scenarios(wishes: Wishes) -> list[Scenario]:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    for name in wishes.scenarios:
        _known(name, by_name, "--only")
    return [by_name[name] for name in wishes.scenarios or by_name]


def _known(name: str, known: Mapping[str, object], option: str) -> None:
    if name not in known:
        raise InvalidInputError(f"{option}: {unknown_name('name', name, known)}")


@contextmanager
def _progress(*, hidden: bool) -> Iterator[tuple[Callable[[int], None], Callable[[Result], None]]]:
    """How far it is, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    is_shown = output.console.is_terminal and not hidden
    with Progress(
        *columns, console=output.console, transient=True, disable=not is_shown
    ) as progress:
        bar = progress.add_task("starting", total=None)

        def expect(count: int) -> None:
            progress.update(bar, total=count, description="scenarios")

        yield expect, lambda _result: progress.advance(bar)


def _show(file: Path, report: Report, *, json_output: bool) -> None:
    if json_output:
        results = [_plain(result) for result in report.results]
        output.as_json({"results": results, "complaints": list(report.complaints)})
        return
    rows = [(r.operation, r.scenario.name, r.verdict, r.scenario.meaning) for r in report.results]
    title = f"{file}: what holds, whatever its provider does"
    if output.console.is_terminal:
        columns = ("operation", "scenario", "", "what happens")
        output.console.print(output.table(title, columns, _coloured(rows)))
    else:
        print(title, *("\t".join(row) for row in rows), sep="\n")
    for verdict in (Verdict.FAILED, Verdict.SKIPPED):
        _tell(verdict, report)
    if report.complaints:
        print("\nThe provider could not make sense of this:")
        print(*(f"  {complaint}" for complaint in report.complaints), sep="\n")
    counts = ", ".join(f"{len(report.of(verdict))} {verdict.value}" for verdict in Verdict)
    print(f"\n{counts}")


def _tell(verdict: Verdict, report: Report) -> None:
    """Why these ended so; what has one reason in common is told once."""
    together: dict[str, list[str]] = {}
    for result in report.of(verdict):
        reason = "\n".join(f"  {detail}" for detail in result.details)
        together.setdefault(reason, []).append(f"{result.operation} {result.scenario.name}")
    for reason, names in together.items():
        print(f"\n{verdict.value}: {', '.join(names)}\n{reason}")


def _coloured(rows: Sequence[tuple[str, ...]]) -> list[tuple[Text | str, ...]]:
    return [
        (operation, name, Text(verdict, style=_STYLES[Verdict(verdict)]), meaning)
        for operation, name, verdict, meaning in rows
    ]


def _plain(result: Result) -> dict[str, Any]:
    return {
        "operation": result.operation,
        "scenario": result.scenario.name,
        "meaning": result.scenario.meaning,
        "verdict": result.verdict.value,
        "details": list(result.details),
    }
