"""check, schema: integration files and subscriber files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from ackbridge.catalog.examples import Example
from ackbridge.catalog.json_schema import json_schema_of
from ackbridge.catalog.loading import (
    SUBSCRIBERS_FOLDER,
    integration_files,
    integration_warnings,
    load_examples,
    load_integration,
    load_subscriber,
)
from ackbridge.catalog.model import Integration
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.conformance.readings import (
    CheckedExample,
    check_example,
    missing_examples,
)
from ackbridge.contracts.schemas import WIRE_SCHEMAS, wire_schema
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import IntegrationFileError, Problem, unknown_name
from ackbridge.settings import environment, integrations_folder, load_settings
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

from .examples import example_rows, print_examples
from .options import Json


def check(
    given: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Integration and subscriber files, or folders of them; by default the folder that"
            " `ACKBRIDGE_INTEGRATIONS` names.",
        ),
    ] = None,
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
    examples_only: Annotated[
        bool, typer.Option("--examples", help="With --json: print what the examples mean instead.")
    ] = False,
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
    paths = _files(given or [integrations_folder(load_settings().integrations)])
    problems = [problem for path in paths for problem in _problems(path)]
    checked = [] if problems else [(path, *_examples(path)) for path in paths]
    problems += [problem for _, _, found in checked for problem in found]
    examples = {path: found for path, found, _ in checked}
    if not problems:
        _print_warnings(paths)
    if conformance and not problems:
        return _play(examples, payload or (), operation or (), only or (), json_output)
    if json_output and examples_only:
        rows = [row for found in examples.values() for one in found for row in example_rows(one)]
        output.print_json(rows)
        print(*problems, sep="\n", file=sys.stderr, end="\n" if problems else "")
    elif json_output:
        output.print_json([asdict(problem) for problem in problems])
    else:
        _print_checked(examples, problems, len(paths))
    return ExitCode.BAD_INPUT if problems else None


def _files(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
        elif in_folder := [*integration_files(path), *integration_files(path / SUBSCRIBERS_FOLDER)]:
            found += in_folder
        else:
            raise InvalidInputError(f"{path}: contains no integration file (*.yaml)")
    return found


def _play(
    examples: Mapping[Path, Sequence[CheckedExample]],
    payload: Sequence[str],
    operation: Sequence[str],
    only: Sequence[str],
    json_output: bool,
) -> int | None:
    # It imports the worker, which takes a second.
    from .conformance import check_conformance, payloads_of, scenarios_named

    if len(examples) > 1:
        raise InvalidInputError("--conformance: give one file only")
    ((path, found),) = examples.items()
    integration = load_integration(path, environment())
    recorded = [one.recorded.example for one in found]
    payloads = payloads_of(integration, recorded, payload, operation)
    return check_conformance(path, payloads, scenarios_named(only), json_output)


def _print_checked(
    examples: Mapping[Path, Sequence[CheckedExample]], problems: Sequence[Problem], files: int
) -> None:
    for path, found in examples.items():
        if found:
            print_examples(f"Examples of {path}", found)
    if problems:
        print(*problems, sep="\n")
    else:
        print(f"{output.counted(files, 'file is', 'files are')} valid")


def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Of what: integration (the default), subscriber, example; or of what goes over the"
            f" wire: {', '.join(WIRE_SCHEMAS)}.",
        ),
    ] = None,
    subscriber: Annotated[
        bool, typer.Option("--subscriber", help="The schema of subscriber files instead.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="The schema of examples instead.")
    ] = False,
) -> None:
    """Print a JSON Schema: of integration files, for completion in editors, or of anything else."""
    given = [*([name] if name else []), *(["subscriber"] * subscriber), *(["example"] * example)]
    if len(given) > 1:
        raise InvalidInputError("NAME, --subscriber and --example: give one of them")
    wanted = given[0] if given else "integration"
    if wanted in WIRE_SCHEMAS:
        output.print_json(wire_schema(wanted))
    elif wanted in _FILES:
        output.print_json(json_schema_of(_FILES[wanted]))
    else:
        raise InvalidInputError(unknown_name("schema", wanted, (*_FILES, *WIRE_SCHEMAS)))


_FILES: Final = {"integration": Integration, "subscriber": Subscriber, "example": Example}


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
