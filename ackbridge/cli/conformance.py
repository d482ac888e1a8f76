"""check --conformance: play an integration file, and print how it did."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.text import Text

from ackbridge.catalog.examples import Example
from ackbridge.catalog.model import Integration
from ackbridge.conformance.cases import PayloadRequiredError, make_case
from ackbridge.conformance.readings import ExampleSecrets
from ackbridge.conformance.runner import Report, Result, Verdict, run_conformance
from ackbridge.conformance.scenarios import SCENARIOS
from ackbridge.conformance.scenarios.scenario import Scenario
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import unknown_name
from ackbridge.local.foreground import interrupted_by_sigterm
from ackbridge.settings import environment
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}


def check_conformance(
    file: Path, payloads: Mapping[str, Any], scenarios: Sequence[Scenario], json_output: bool
) -> int | None:
    # The scenarios provoke what the gateway warns of; the report says what is wrong.
    logging.getLogger("ackbridge").addHandler(logging.NullHandler())
    with interrupted_by_sigterm(), _progress(hidden=json_output) as (on_plan, on_result):
        report = asyncio.run(
            run_conformance(
                file, environment(), payloads, scenarios, on_plan=on_plan, on_result=on_result
            )
        )
    if json_output:
        results = [_result_row(result) for result in report.results]
        output.print_json({"results": results, "complaints": list(report.complaints)})
    else:
        _print_report(file, report)
    is_failed = report.of(Verdict.FAILED) or report.complaints
    return ExitCode.FAILED if is_failed else None


def payloads_of(
    integration: Integration,
    examples: Sequence[Example],
    payloads: Sequence[str],
    operations: Sequence[str],
) -> dict[str, Any]:
    """Payloads by operation, checked before anything is started; None where none is given."""
    given = dict(_given_payloads(integration, payloads))
    for name in operations:
        _check_name("--operation", name, integration.operations)
    found = {name: given.get(name) for name in operations or integration.operations}
    ExampleSecrets().use_in_task()
    for name, payload in found.items():
        try:
            make_case(integration, name, examples, payload)
        except PayloadRequiredError as error:
            raise InvalidInputError(
                f"operation {name}: {error}; give one: --payload {name}=JSON,"
                " or an example with a call"
            ) from None
        except InvalidInputError as error:
            raise InvalidInputError(f"--payload {name}: {error}") from None
    return found


def _given_payloads(integration: Integration, payloads: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for option in payloads:
        name, equals, text = option.partition("=")
        if not equals:
            raise InvalidInputError(f"--payload: expected OPERATION=JSON, got {option!r}")
        _check_name("--payload", name, integration.operations)
        try:
            yield name, json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"--payload {name}: not JSON: {error}") from None


def scenarios_named(names: Sequence[str]) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in SCENARIOS}
    for name in names:
        _check_name("--only", name, known)
    return [known[name] for name in names or known]


def _check_name(option: str, name: str, known: Mapping[str, object]) -> None:
    kind = "scenario" if option == "--only" else "operation"
    if name not in known:
        raise InvalidInputError(f"{option}: {unknown_name(kind, name, known)}")


@contextmanager
def _progress(*, hidden: bool) -> Iterator[tuple[Callable[[int], None], Callable[[Result], None]]]:
    is_shown = output.console.is_terminal and not hidden
    with output.call_progress(disable=not is_shown, transient=True) as progress:
        bar = progress.add_task("starting", total=None)

        def on_plan(count: int) -> None:
            progress.update(bar, total=count, description="scenarios")

        yield on_plan, lambda _result: progress.advance(bar)


def _print_report(file: Path, report: Report) -> None:
    rows = [(r.operation, r.scenario.name, r.verdict, r.scenario.meaning) for r in report.results]
    title = f"Conformance of {file}"
    if output.console.is_terminal:
        columns = ("operation", "scenario", "", "what happens")
        styled = [(*row[:2], Text(row[2], style=_STYLES[row[2]]), row[3]) for row in rows]
        output.console.print(output.table(title, columns, styled))
    else:
        print(title, *("\t".join(row) for row in rows), sep="\n")
    for verdict in (Verdict.FAILED, Verdict.SKIPPED):
        _print_details(verdict, report)
    if not report.has_examples:
        print(
            "\nThe file has no examples: messages were made up from its own expressions, which"
            "\nshows nothing about what the provider really sends (docs/examples.md)."
        )
    if report.complaints:
        print("\nRequests that the provider could not understand:")
        print(*(f"  {complaint}" for complaint in report.complaints), sep="\n")
    counts = ", ".join(f"{len(report.of(verdict))} {verdict.value}" for verdict in Verdict)
    print(f"\n{counts}")


def _print_details(verdict: Verdict, report: Report) -> None:
    """Results with the same details are printed together."""
    names_by_details: dict[str, list[str]] = {}
    for result in report.of(verdict):
        details = "\n".join(f"  {detail}" for detail in result.details)
        names = names_by_details.setdefault(details, [])
        names.append(f"{result.operation} {result.scenario.name}")
    for details, names in names_by_details.items():
        print(f"\n{verdict.value}: {', '.join(names)}\n{details}")


def _result_row(result: Result) -> dict[str, Any]:
    return {
        "operation": result.operation,
        "scenario": result.scenario.name,
        "meaning": result.scenario.meaning,
        "verdict": result.verdict.value,
        "details": list(result.details),
    }
