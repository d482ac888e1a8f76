"""Options and arguments that several commands take, and how their values are read."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from ackbridge.contracts.identity import Identity, IdentitySource
from ackbridge.contracts.wire import Duration, InvalidInputError, describe_validation_error
from ackbridge.errors import AckbridgeError
from ackbridge.settings import environment
from ackbridge.temporal.connect import engine_identity

Provider = Annotated[str, typer.Argument(help="The integration, such as `stripe`.")]
Operation = Annotated[str, typer.Argument(help="The operation, such as `create_payment`.")]
Payload = Annotated[str, typer.Option(help="JSON, or `@file`, or `-` for standard input.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def operator() -> Identity:
    """Who runs this command: whom the engine knows, or else the operating system's user.

    Raises:
        ConfigurationError: the settings of the connection are not valid.
    """
    known = engine_identity(environment())
    return known or Identity(name=getpass.getuser(), source=IdentitySource.STATED)


def _by(given: str | None) -> str:
    try:
        who = operator()
    except AckbridgeError as error:
        raise typer.BadParameter(str(error)) from None
    if given is None or given in (who.name, who.label):
        return who.label
    if who.source is not IdentitySource.STATED:
        raise typer.BadParameter(
            f"the engine knows you as {who.label}; --by is for engines that authenticate nobody"
        )
    return given


By = Annotated[
    str,
    typer.Option(
        help="Who does this, where the engine does not authenticate its clients.",
        default_factory=lambda: None,
        callback=_by,
        show_default="you",
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="Show at most this many.")]
OnlyProvider = Annotated[str | None, typer.Argument(help="Only this provider.")]
Watch = Annotated[bool, typer.Option("--watch", help="Refresh until it has ended.")]


def parse_duration(option: str, text: str) -> timedelta:
    """Parse a duration such as `5s`.

    Raises:
        InvalidInputError: names the option.
    """
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise InvalidInputError(f"--{option}: {describe_validation_error(error)}") from None


def read_json(option: str, text: str) -> Any:
    """Parse JSON, given as it is, as `@file`, or as `-` for standard input.

    Raises:
        InvalidInputError: names the option.
    """
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except OSError as error:
            raise InvalidInputError(f"--{option}: {text[1:]}: {error.strerror}") from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"--{option}: not JSON: {error}") from None
