"""Checking a call's payload against its operation's JSON Schema, without repeating any value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError

from ackbridge.contracts import Invalid

MOST_SHOWN = 5
"""How many mistakes of one payload are told at once."""


def compile_schema(schema: dict[str, Any]) -> Draft202012Validator:
    """Compile a JSON Schema (draft 2020-12).

    Raises:
        ValueError: it is none; the message says where.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "(whole)"
        raise ValueError(f"not a JSON Schema: {where}: {error.message[:200]}") from None
    return Draft202012Validator(schema, format_checker=FormatChecker())


def check(validator: Draft202012Validator, payload: Any) -> None:
    """Check a payload.

    Raises:
        Invalid: `payload.<field>: <problem>` for the first mistakes.
    """
    mistakes = sorted(validator.iter_errors(payload), key=lambda error: list(map(str, error.path)))
    if mistakes:
        raise Invalid("; ".join(_describe(mistake) for mistake in mistakes[:MOST_SHOWN]))


def _describe(mistake: ValidationError) -> str:
    field = "payload" + "".join(f".{part}" for part in mistake.absolute_path)
    keyword = str(mistake.validator)
    tell = _DESCRIPTIONS.get(keyword)
    problem = tell(mistake) if tell else f"does not satisfy {keyword}: {mistake.validator_value}"
    return f"{field}: {problem}"


def _missing(mistake: ValidationError) -> str:
    present = mistake.instance if isinstance(mistake.instance, dict) else {}
    wanted = mistake.validator_value if isinstance(mistake.validator_value, list) else []
    missing = [str(name) for name in wanted if name not in present]
    return f"{', '.join(missing)} is missing"


def _unknown(mistake: ValidationError) -> str:
    schema = mistake.schema if isinstance(mistake.schema, dict) else {}
    known = schema.get("properties", {})
    present = mistake.instance if isinstance(mistake.instance, dict) else {}
    unknown = sorted(str(name)[:64] for name in present if name not in known)
    return f"{', '.join(unknown)} is not a known field"


_DESCRIPTIONS: dict[str, Callable[[ValidationError], str]] = {
    "type": lambda mistake: f"is not of type {mistake.validator_value}",
    "required": _missing,
    "additionalProperties": _unknown,
    "enum": lambda mistake: f"is not one of {mistake.validator_value}",
    "const": lambda mistake: f"is not {mistake.validator_value!r}",
    "minimum": lambda mistake: f"is less than {mistake.validator_value}",
    "maximum": lambda mistake: f"is more than {mistake.validator_value}",
    "exclusiveMinimum": lambda mistake: f"is not more than {mistake.validator_value}",
    "exclusiveMaximum": lambda mistake: f"is not less than {mistake.validator_value}",
    "minLength": lambda mistake: f"is shorter than {mistake.validator_value} characters",
    "maxLength": lambda mistake: f"is longer than {mistake.validator_value} characters",
    "pattern": lambda mistake: f"does not match {mistake.validator_value}",
    "format": lambda mistake: f"is not a {mistake.validator_value}",
}
