"""check and schema: integration files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ackbridge.catalog.json_schema import integration_json_schema, subscriber_json_schema
from ackbridge.catalog.loading import SUBSCRIBERS_FOLDER, load_integration, load_subscriber
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import IntegrationFileError, Problem
from ackbridge.settings import environment
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import Json
from .conformance import Wishes, check_conformance


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(check))
    app.command()(exits_with_its_answer(schema))


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Integration files, and those of subscribers."),
    ],
    conformance: Annotated[
        bool,
        typer.Option(help="Besides, play every scenario that applies; see docs/conformance.md."),
    ] = False,
    payload: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPERATION=JSON",
            help="With --conformance: what to call an operation with; made up where left out.",
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
) -> int:
    """Validate integration files; every mistake is shown with file, line and field.

    With `--conformance`, make calls by one file against a simulated provider that speaks its
    shapes, stays silent, repeats and contradicts itself, and report what does not hold. Nothing is
    sent anywhere else. Exit 1 when a scenario fails.
    """
    problems: list[Problem] = []
    for path in paths:
        try:
            load = load_subscriber if _is_subscriber(path) else load_integration
            load(path, environment())
        except IntegrationFileError as error:
            problems += error.problems
    if conformance and not problems:
        if len(paths) > 1:
            raise InvalidInputError("--conformance: one file at a time")
        wishes = Wishes(payload or (), only or (), operation or ())
        return check_conformance(paths[0], wishes, json_output=json_output)
    if json_output:
        output.as_json([asdict(problem) for problem in problems])
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print(f"{len(paths)} integration file{'s are' if len(paths) > 1 else ' is'} fine")
    return Exit.BAD_INPUT if problems else Exit.COMPLETED


def _is_subscriber(path: Path) -> bool:
    return path.absolute().parent.name == SUBSCRIBERS_FOLDER


def schema(
    subscriber: Annotated[
        bool, typer.Option("--subscriber", help="That of subscriber files instead.")
    ] = False,
) -> int:
    """Print the JSON Schema of integration files, for completion in editors."""
    output.as_json(subscriber_json_schema() if subscriber else integration_json_schema())
    return Exit.COMPLETED
