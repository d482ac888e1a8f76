"""The base of every model on the wire, durations, and reading what others have sent us."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

MAX_KEY_LENGTH: Final = 512
"""Characters of a caller's key, an event key or a provider's reference: what every index takes."""

MAX_REASON_LENGTH: Final = 2000
"""Characters of a reason that an operator or a provider gives."""

MAX_ERROR_LENGTH: Final = 500
"""Characters of an error that is kept in a workflow's history."""

Actor = Annotated[str, Field(min_length=1, max_length=200)]
"""Who requests a change."""

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH)]
"""Why a change is requested."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """Read `"1h30m"`, `"250ms"`, `"0"` or a number of seconds; leave anything else to pydantic.

    Raises:
        ValueError: a text that is not a duration.
    """
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as 30s, 5m, 24h, 7d")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
    if isinstance(value, str) and not value.startswith("P"):
        text = value.replace(" ", "")
        if text == "0":
            return timedelta(0)
        if not _DURATION.fullmatch(text):
            raise ValueError(f"{value!r} is not a duration such as 500ms, 30s, 5m, 24h or 7d")
        return timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in _PART.findall(text)))
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "examples": ["30s", "1h30m"]}, {"type": "number"}]},
        mode="validation",
    ),
]
"""A time span: in files and requests `"30s"` or seconds; on the wire seconds."""


class Wire(BaseModel):
    """A frozen model on the wire. Fields are only ever added, with defaults."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, ser_json_timedelta="float")


class StrictModel(Wire):
    """What other people write by hand: an unknown field is a mistake worth naming."""

    model_config = ConfigDict(extra="forbid")


class InvalidInputError(ValueError):
    """What somebody sent does not validate. The text names the field and hides the value."""


class UnreadablePayload(Wire):
    """Stands in for a payload that no converter understands, so that its reader can say so."""

    problem: str


Model = TypeVar("Model", bound=Wire)


def read(model: type[Model], arguments: tuple[Any, ...]) -> Model:
    """Validate the raw arguments of a start, a signal or an update.

    Args:
        model: what the one argument must be.
        arguments: what arrived, as plain JSON values.

    Raises:
        InvalidInputError: with a sentence that names the field.
    """
    name = model.__name__
    if len(arguments) != 1:
        raise InvalidInputError(
            f"{name}: expected one JSON object as the only argument, got {len(arguments)}"
        )
    (value,) = arguments
    if isinstance(value, UnreadablePayload):
        raise InvalidInputError(f"{name}: {value.problem}")
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name}: expected a JSON object, got {type(value).__name__}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidInputError(f"{name}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """One line for people: `field: problem; field: problem`, without any input value."""
    problems = (
        (
            ".".join(str(part) for part in e["loc"]) or "(whole)",
            e["msg"].removeprefix("Value error, "),
        )
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(f"{field}: {problem}" for field, problem in problems)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no white space, NaN refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
