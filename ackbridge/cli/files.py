"""check, schema: integration files and subscriber files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ackbridge.catalog.examples import Example
from ackbridge.catalog.json_schema import json_schema_of
from ackbridge.catalog.loading import (
    SUBSCRIBERS_FOLDER,
    integration_warnings,
    load_examples,
    load_integration,
    load_subscriber,
)
from ackbridge.catalog.model import Integration
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.conformance.cases import PayloadRequiredError, make_case
from ackbridge.conformance.readings import (
    CheckedExample,
    ExampleSecrets,
    check_example,
    missing_examples,
)
from ackbridge.conformance.runner import Report, Result, Verdict, run_conformance
from ackbridge.conformance.scenarios import SCENARIOS
from ackbridge.conformance.scenarios.scenario import Scenario
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import IntegrationFileError, Problem, unknown_name
from ackbridge.local.foreground import interrupted_by_sigterm
from ackbridge.settings import environment
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

from .examples import example_rows, print_examples
from .options import Json

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}


def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Integration and subscriber files.")
    ],
    conformance: Annotated[
        bool, typer.Option(help="Also run every scenario that applies; see docs/conformance.md.")
    ] = False,
    payload: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPERATION=JSON",
            help="With --conformance: the payload of an operation; otherwise an example's.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SCENARIO", help="With --conformance: only these scenarios."),
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --conformance: only these operations."),
    ] = None,
    json_output: Json = False,
) -> int | None:
    """Validate integration files; every mistake is reported with file, line and field.

    The examples that a file names are read by the file, and what it makes of them is printed; one
    that means something else is a mistake.

    Warnings, about what is valid and still risky, are printed on stderr.

    With `--conformance`, calls are made by one file against a simulated provider that speaks as
    the examples do, stays silent, repeats and contradicts itself; whatever does not hold is
    reported. Nothing is sent anywhere else. Exit 1 when a scenario fails, or cannot be played
    because an example is missing.
    """
    problems = [problem for path in paths for problem in _problems(path)]
    checked = [] if problems else [(path, *_examples(path)) for path in paths]
    problems += [problem for _, _, found in checked for problem in found]
    if not problems:
        _print_warnings(paths)
    if conformance and not problems:
        if len(paths) > 1:
            raise InvalidInputError("--conformance: give one file only")
        integration = load_integration(paths[0], environment())
        recorded = [one.recorded.example for one in checked[0][1]]
        payloads = _payloads(integration, recorded, payload or (), operation or ())
        return _check_conformance(paths[0], payloads, _scenarios(only or ()), json_output)
    if json_output:
        rows = [row for _, examples, _ in checked for one in examples for row in example_rows(one)]
        output.print_json({"problems": [asdict(one) for one in problems], "examples": rows})
        return ExitCode.BAD_INPUT if problems else None
    for path, examples, _ in checked:
        if examples:
            print_examples(f"Examples of {path}", examples)
    if problems:
        print(*problems, sep="\n")
    else:
        print("1 file is valid" if len(paths) == 1 else f"{len(paths)} files are valid")
    return ExitCode.BAD_INPUT if problems else None


def schema(
    subscriber: Annotated[
        bool, typer.Option("--subscriber", help="The schema of subscriber files instead.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="The schema of examples instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of integration files, for completion in editors."""
    if subscriber and example:
        raise InvalidInputError("--subscriber and --example: give one of them")
    kind = Subscriber if subscriber else Example if example else Integration
    output.print_json(json_schema_of(kind))


def _problems(path: Path) -> Sequence[Problem]:
    load = load_subscriber if _is_subscriber(path) else load_integration
    try:
        load(path, environment())
    except IntegrationFileError as error:
        return error.problems
    return ()


def _examples(path: Path) -> tuple[list[CheckedExample], Sequence[Problem]]:
    """The examples of a valid file, and what is wrong with them."""
    if _is_subscriber(path):
        return [], ()
    try:
        integration = load_integration(path, environment())
        recorded = load_examples(path, integration)
    except IntegrationFileError as error:
        return [], error.problems
    checked = [check_example(integration, one) for one in recorded]
    return checked, [problem for one in checked for problem in one.problems]


def _print_warnings(paths: Sequence[Path]) -> None:
    for path in paths:
        if not _is_subscriber(path):
            for warning in (*integration_warnings(path, environment()), *_missing_examples(path)):
                print(f"warning: {warning}", file=sys.stderr)


def _missing_examples(path: Path) -> Iterator[Problem]:
    integration = load_integration(path, environment())
    if not integration.example_patterns:
        message = "none: nothing shows that the file reads what the provider really sends"
        yield Problem(str(path), 0, 0, "examples", message)
        return
    readings = [reading for one in _examples(path)[0] for reading in one.readings]
    for missing in missing_examples(integration, readings):
        yield Problem(str(path), 0, 0, "examples", missing)


def _is_subscriber(path: Path) -> bool:
    return path.absolute().parent.name == SUBSCRIBERS_FOLDER


def _check_conformance(
    file: Path, payloads: Mapping[str, Any], scenarios: Sequence[Scenario], json_output: bool
) -> int | None:
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


def _payloads(
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


def _scenarios(names: Sequence[str]) -> list[Scenario]:
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
