"""Validate a call's payload against its operation's JSON Schema; errors contain no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ackbridge.contracts.wire import InvalidInputError

MAX_REPORTED: Final = 5
"""Problems of one payload that are reported."""

_REFERENCES = ("$ref", "$dynamicRef")


@dataclass(frozen=True)
class PayloadSchema:
    """A compiled JSON Schema (draft 2020-12).

    Attributes:
        source: the schema, as in the file.
    """

    source: dict[str, Any]
    _validator: Draft202012Validator = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: dict[str, Any]) -> Self:
        """Compile a schema.

        Raises:
            ValueError: it is not a JSON Schema, or refers to something outside of itself.
        """
        try:
            Draft202012Validator.check_schema(source)
        except SchemaError as error:
            where = ".".join(str(part) for part in error.absolute_path) or "(whole)"
            raise ValueError(f"not a JSON Schema: {where}: {error.message[:200]}") from None
        _check_references(source)
        # With an empty registry the validator never fetches what a schema refers to.
        registry: Registry[Any] = Registry()
        return cls(
            source,
            Draft202012Validator(
                source, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
            ),
        )

    def check(self, payload: Any) -> None:
        """Validate a payload.

        Raises:
            InvalidInputError: `payload.<field>: <problem>` for the first problems.
        """
        errors = sorted(self._validator.iter_errors(payload), key=lambda e: list(map(str, e.path)))
        if errors:
            # Each missing field is an error of its own with the same description.
            problems = dict.fromkeys(_describe(error) for error in errors)
            raise InvalidInputError("; ".join(list(problems)[:MAX_REPORTED]))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls.parse, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        )


def _check_references(schema: dict[str, Any]) -> None:
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(
                f"{reference}: only references within the schema (#/...) are supported"
            )
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(f"{reference}: the schema has no such part") from None


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (v for k, v in schema.items() if k in _REFERENCES and isinstance(v, str))
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from _references(inner)


def _describe(error: ValidationError) -> str:
    path = "payload" + "".join(f".{part}" for part in error.absolute_path)
    describe = _DESCRIPTIONS.get(str(error.validator))
    problem = describe(error) if describe else f"does not satisfy {error.validator}"
    return f"{path}: {problem}"


def _missing(error: ValidationError) -> str:
    present: Any = error.instance
    required: Any = error.validator_value
    missing = [str(name) for name in required if name not in present]
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _unknown(error: ValidationError) -> str:
    schema: Any = error.schema
    present: Any = error.instance
    known = schema.get("properties", {})
    unknown = sorted(str(name)[:64] for name in present if name not in known)
    return f"unknown field{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}"


def _types(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


_DESCRIPTIONS: dict[str, Callable[[ValidationError], str]] = {
    "type": lambda error: f"is not of type {_types(error.validator_value)}",
    "required": _missing,
    "additionalProperties": _unknown,
    "enum": lambda error: f"is not one of {error.validator_value}",
    "const": lambda error: f"is not {error.validator_value!r}",
    "minimum": lambda error: f"is less than {error.validator_value}",
    "maximum": lambda error: f"is more than {error.validator_value}",
    "exclusiveMinimum": lambda error: f"is not more than {error.validator_value}",
    "exclusiveMaximum": lambda error: f"is not less than {error.validator_value}",
    "multipleOf": lambda error: f"is not a multiple of {error.validator_value}",
    "minLength": lambda error: f"is shorter than {error.validator_value} characters",
    "maxLength": lambda error: f"is longer than {error.validator_value} characters",
    "minItems": lambda error: f"has fewer than {error.validator_value} items",
    "maxItems": lambda error: f"has more than {error.validator_value} items",
    "pattern": lambda error: f"does not match {error.validator_value}",
    "format": lambda error: f"is not a {error.validator_value}",
    "anyOf": lambda _error: "matches none of the allowed forms",
    "oneOf": lambda _error: "does not match exactly one of the allowed forms",
}
