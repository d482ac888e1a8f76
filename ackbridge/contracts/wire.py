"""The base of wire models, durations, and reading JSON from outside."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal, DecimalException
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import to_json

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """Parse `"1h30m"`, `"250ms"` or `"0"`; other values are left to pydantic, numbers are seconds.

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
        try:
            return timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in _PART.findall(text)))
        except OverflowError:
            raise ValueError("the duration is too long") from None
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "examples": ["30s", "1h30m"]}, {"type": "number"}]},
        mode="validation",
    ),
]
"""In files and requests `"30s"` or seconds; on the wire seconds."""


class Wire(BaseModel):
    """A frozen model on the wire. Fields are only ever added, with defaults."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, ser_json_timedelta="float")


class StrictModel(Wire):
    """A model that callers write by hand: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class InvalidInputError(ValueError):
    """Input does not validate. The text names the field and contains no value."""


class UnreadablePayload(Wire):
    """Replaces a payload that no data converter understands, so that its handler can report it."""

    problem: str


ENVELOPE: Final = b"\xffACK"
"""The first bytes of all data that is encrypted by us; no UTF-8 text begins with them."""


class NotEncrypted(dict[str, Any]):
    """A JSON object that arrived plain in a deployment that requires encryption."""


Model = TypeVar("Model", bound=Wire)


def parse_argument(model: type[Model], arguments: tuple[Any, ...]) -> Model:
    """Validate the one argument of a workflow, a signal or an update.

    Args:
        arguments: what arrived, as plain JSON values.

    Raises:
        InvalidInputError: naming the field.
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
        raise InvalidInputError(f"{name}: {describe_validation_error(error)}") from None


def describe_validation_error(error: ValidationError) -> str:
    """One line, `field: problem; field: problem`, without input values."""
    problems = (
        (
            ".".join(str(part) for part in e["loc"]) or "(whole)",
            e["msg"].removeprefix("Value error, "),
        )
        for e in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(f"{field}: {problem}" for field, problem in problems)


_LONG_UNITS: Final = (("days", 86_400), ("h", 3600), ("min", 60))


def duration_text(span: timedelta) -> str:
    """A duration in its two largest units, as people write it.

    >>> duration_text(timedelta(days=7)), duration_text(timedelta(hours=1, minutes=30))
    ('7 days', '1 h 30 min')
    >>> duration_text(timedelta(seconds=4.25)), duration_text(timedelta(days=1, seconds=9))
    ('4.25 s', '1 day')
    """
    left, parts = span.total_seconds(), []
    for number, (unit, length) in enumerate(_LONG_UNITS):
        whole, rest = divmod(left, length)
        if whole:
            name = "day" if unit == "days" and whole == 1 else unit
            next_unit, next_length = (*_LONG_UNITS, ("s", 1))[number + 1]
            parts = [f"{whole:.0f} {name}"]
            if second := int(rest // next_length):
                parts.append(f"{second} {next_unit}")
            return " ".join(parts)
    return f"{left:g} s"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and without white space; NaN is refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def not_finite(value: Any) -> str | None:
    """Where in a value the first NaN or Infinity is, which JSON does not have.

    >>> not_finite({"order": {"amounts": [1.5, float("nan")]}})
    'order.amounts.1'
    """
    try:
        # This is fast, and says of nearly every value that there is none.
        text = to_json(value, inf_nan_mode="constants")
        if b"NaN" not in text and b"Infinity" not in text:
            return None
        return next(_not_finite(value, ()), None)
    except (ValueError, RecursionError):
        # It is no JSON at all, which other checks say.
        return None


def _not_finite(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        yield ".".join(path)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _not_finite(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _not_finite(inner, (*path, str(number)))


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


_SMALL: Final = 1e-290

MAX_JSON_DEPTH: Final = 100
"""Levels of nesting in a body; serialisers fail at a few hundred."""


def read_json(body: bytes, *, is_lenient: bool = False) -> Any:
    """Parse the JSON body of a message. A number that a double cannot hold becomes its text.

    Args:
        is_lenient: NaN and Infinity, which JSON does not have, become texts, too.

    Raises:
        InvalidInputError: it is not JSON; or has unpaired surrogates or too many levels, which
            serialisers and databases would refuse later.
    """
    decoder = _LENIENT_DECODER if is_lenient else _DECODER
    try:
        text = body.decode(json.detect_encoding(body))
        value = decoder.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidInputError("body: nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"body: {_explain(error)}") from None
    # The number of brackets bounds the depth, so most bodies need not be walked.
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and is_deeper(value, MAX_JSON_DEPTH):
        raise InvalidInputError("body: nested too deeply")
    return value


def read_json_unchecked(body: bytes) -> Any:
    """Parse JSON of which parts may be refused by `read_json`: `check_json` says which.

    Raises:
        InvalidInputError: it is not JSON, or nested deeper than the parser can follow.
    """
    try:
        return json.loads(body, parse_float=_number)
    except (ValueError, RecursionError):
        raise InvalidInputError("body: not JSON") from None


def check_json(value: Any) -> None:
    """Raise `InvalidInputError` for what `read_json` refuses: NaN, half characters, too deep."""
    if is_deeper(value, MAX_JSON_DEPTH):
        raise InvalidInputError("body: nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InvalidInputError(f"body: {_explain(error)}") from None


def _explain(error: ValueError) -> str:
    """What is wrong, without any of the body."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeEncodeError):
        return "a text with half of a surrogate pair"
    return "not JSON in UTF-8 with finite numbers"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _number(text: str) -> float | str:
    number = float(text)
    if math.isinf(number):
        return text
    # With up to 15 digits a double is exact, but for the smallest ones.
    if len(text) <= sys.float_info.dig and abs(number) > _SMALL:
        return number
    try:
        is_exact = Decimal(text) == Decimal(repr(number))
    except DecimalException:
        is_exact = False
    return number if is_exact else text


def is_deeper(value: Any, levels: int) -> bool:
    """Whether JSON is nested more than `levels` deep; the outermost has its members at depth 1."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


# With such options `json.loads` would make a decoder for every text.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_number)
_LENIENT_DECODER = json.JSONDecoder(parse_constant=str, parse_float=_number)
