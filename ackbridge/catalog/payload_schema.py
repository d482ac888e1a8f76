"""Checking a call's payload against its operation's JSON Schema, without repeating any value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ackbridge.contracts.wire import InvalidInputError

MOST_SHOWN = 5
"""How many mistakes of one payload are told at once."""

_REFERENCES = ("$ref", "$dynamicRef")


@dataclass(frozen=True)
class PayloadSchema:
    """A JSON Schema (draft 2020-12), compiled.

    Attributes:
        text: the schema as it stands in the file.
    """

    text: dict[str, Any]
    _validator: Draft202012Validator = field(repr=False, compare=False)

    @classmethod
    def read(cls, text: dict[str, Any]) -> Self:
        """Compile a schema.

        Raises:
            ValueError: it is none, or it refers to something outside of itself.
        """
        try:
            Draft202012Validator.check_schema(text)
        except SchemaError as error:
            where = ".".join(str(part) for part in error.absolute_path) or "(whole)"
            raise ValueError(f"not a JSON Schema: {where}: {error.message[:200]}") from None
        _check_references(text)
        # An empty registry: a validator that fetches what a schema refers to would be a surprise.
        registry: Registry[Any] = Registry()
        return cls(
            text,
            Draft202012Validator(
                text, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
            ),
        )

    def check(self, payload: Any) -> None:
        """Check a payload.

        Raises:
            InvalidInputError: `payload.<field>: <problem>` for the first mistakes.
        """
        mistakes = sorted(
            self._validator.iter_errors(payload), key=lambda e: list(map(str, e.path))
        )
        if mistakes:
            # One mistake for each missing field says the same: dict keeps the first, in order.
            told = dict.fromkeys(_describe(mistake) for mistake in mistakes)
            raise InvalidInputError("; ".join(list(told)[:MOST_SHOWN]))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls.read, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        )


def _check_references(text: dict[str, Any]) -> None:
    resource = DRAFT202012.create_resource(text)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references(text):
        if not reference.startswith("#"):
            raise ValueError(f"{reference}: only references within the schema (#/...) are followed")
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(f"{reference}: there is no such part of the schema") from None


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (v for k, v in schema.items() if k in _REFERENCES and isinstance(v, str))
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from _references(inner)


def _describe(mistake: ValidationError) -> str:
    path = "payload" + "".join(f".{part}" for part in mistake.absolute_path)
    tell = _DESCRIPTIONS.get(str(mistake.validator))
    problem = tell(mistake) if tell else f"does not satisfy {mistake.validator}"
    return f"{path}: {problem}"


def _missing(mistake: ValidationError) -> str:
    present: Any = mistake.instance
    wanted: Any = mistake.validator_value
    missing = [str(name) for name in wanted if name not in present]
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _unknown(mistake: ValidationError) -> str:
    schema: Any = mistake.schema
    present: Any = mistake.instance
    known = schema.get("properties", {})
    unknown = sorted(str(name)[:64] for name in present if name not in known)
    verb = "is not a known field" if len(unknown) == 1 else "are not known fields"
    return f"{', '.join(unknown)} {verb}"


def _names(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


_DESCRIPTIONS: dict[str, Callable[[ValidationError], str]] = {
    "type": lambda mistake: f"is not of type {_names(mistake.validator_value)}",
    "required": _missing,
    "additionalProperties": _unknown,
    "enum": lambda mistake: f"is not one of {mistake.validator_value}",
    "const": lambda mistake: f"is not {mistake.validator_value!r}",
    "minimum": lambda mistake: f"is less than {mistake.validator_value}",
    "maximum": lambda mistake: f"is more than {mistake.validator_value}",
    "exclusiveMinimum": lambda mistake: f"is not more than {mistake.validator_value}",
    "exclusiveMaximum": lambda mistake: f"is not less than {mistake.validator_value}",
    "multipleOf": lambda mistake: f"is not a multiple of {mistake.validator_value}",
    "minLength": lambda mistake: f"is shorter than {mistake.validator_value} characters",
    "maxLength": lambda mistake: f"is longer than {mistake.validator_value} characters",
    "minItems": lambda mistake: f"has fewer than {mistake.validator_value} items",
    "maxItems": lambda mistake: f"has more than {mistake.validator_value} items",
    "pattern": lambda mistake: f"does not match {mistake.validator_value}",
    "format": lambda mistake: f"is not a {mistake.validator_value}",
    "anyOf": lambda _mistake: "is none of the forms that are allowed",
    "oneOf": lambda _mistake: "is not exactly one of the forms that are allowed",
}
