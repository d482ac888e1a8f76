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

from ackbridge.contracts.wire import Duration, InvalidInputError, describe_validation_error

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[
    str, typer.Option(help="Who does this.", default_factory=getpass.getuser, show_default="you")
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
