"""Validate a call's payload against its operation's JSON Schema; errors contain no values.

The cost of a validation is bounded, whatever the schema and the payload: patterns run in linear
time, uniqueness is checked by hashing, and the number of evaluated keywords has a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Self

from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ackbridge.contracts.wire import InvalidInputError, is_deeper

from .patterns import compile_pattern, finds

MAX_REPORTED: Final = 5
"""Problems of one payload that are reported."""

MAX_SORTED: Final = 100
"""Problems of one payload that are collected, to report the first ones."""

MAX_STEPS: Final = 200_000
"""Keywords that are evaluated for one payload; that takes some seconds."""

MAX_SCHEMA_DEPTH: Final = 60

_REFERENCES = ("$ref", "$dynamicRef")
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas apply to the same value."""

_DATA = ("const", "default", "enum", "examples")
"""Keywords whose values are not schemas."""


class TooComplexError(Exception):
    """Validating a payload takes more than `MAX_STEPS`."""


_steps: ContextVar[list[int]] = ContextVar("steps")

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: Keyword) -> Keyword:
    def evaluate(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        steps = _steps.get()
        steps[0] += 1
        if steps[0] > MAX_STEPS:
            raise TooComplexError
        yield from keyword(validator, value, instance, schema) or ()

    return evaluate


def _pattern(
    _validator: Any, pattern: str, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not finds(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if finds(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for name in _additional(instance, schema):
        if allowed is False:
            yield ValidationError("has additional properties")
            return
        yield from validator.descend(instance[name], allowed, path=name)


def _additional(names: Iterable[str], schema: Any) -> Iterator[str]:
    known, patterns = schema.get("properties", ()), schema.get("patternProperties", ())
    for name in names:
        if name not in known and not any(finds(pattern, name) for pattern in patterns):
            yield name


def _unique_items(
    _validator: Any, is_unique: bool, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not is_unique or not isinstance(instance, list):
        return
    if len({_hashable(item) for item in instance}) < len(instance):
        yield ValidationError("has items that are equal")


def _hashable(value: Any) -> Any:
    """Equal for values that are equal in JSON: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(_hashable(inner) for inner in value)
    return (bool, value) if isinstance(value, bool) else value


_FORMATS = FormatChecker(
    [name for name in Draft202012Validator.FORMAT_CHECKER.checkers if name != "regex"]
)
"""Without `regex`, which would compile what a caller sends."""

_Validator: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        name: _counted(keyword)
        for name, keyword in {
            **Draft202012Validator.VALIDATORS,
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
            "uniqueItems": _unique_items,
        }.items()
    },
)


@dataclass(frozen=True)
class PayloadSchema:
    """A compiled JSON Schema (draft 2020-12).

    Attributes:
        source: the schema, as in the file.
    """

    source: dict[str, Any]
    _validator: Any = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: dict[str, Any]) -> Self:
        """Compile a schema.

        Raises:
            ValueError: it is not a JSON Schema, refers to something outside of itself, applies to
                itself without end, is nested too deeply, or has a pattern that RE2 does not know.
        """
        if is_deeper(source, MAX_SCHEMA_DEPTH - 1):
            raise ValueError(f"nested more than {MAX_SCHEMA_DEPTH} levels deep")
        try:
            Draft202012Validator.check_schema(source, format_checker=FormatChecker(()))
        except SchemaError as error:
            where = ".".join(str(part) for part in error.absolute_path) or "(whole)"
            raise ValueError(f"not a JSON Schema: {where}: {error.message[:200]}") from None
        _check_patterns(source, "")
        _check_references(source)
        # With an empty registry the validator never fetches what a schema refers to.
        registry: Registry[Any] = Registry()
        return cls(source, _Validator(source, registry=registry, format_checker=_FORMATS))

    def check(self, payload: Any) -> None:
        """Validate a payload.

        Raises:
            InvalidInputError: `payload.<field>: <problem>` for the first problems.
        """
        _steps.set([0])
        try:
            found = list(islice(self._validator.iter_errors(payload), MAX_SORTED))
        except TooComplexError:
            raise InvalidInputError("payload: too large for its schema to be checked") from None
        except RecursionError:
            raise InvalidInputError("payload: nested too deeply") from None
        if found:
            errors = sorted(found, key=lambda error: list(map(str, error.path)))
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
    checked: set[str] = set()
    for reference in _references(schema):
        _check_endless(reference, lambda name: resolver.lookup(name).contents, (), checked)


def _check_endless(
    reference: str, lookup: Callable[[str], Any], leads_here: tuple[str, ...], checked: set[str]
) -> None:
    """Refuse references that lead back to themselves for the same value."""
    if reference in leads_here:
        raise ValueError(f"{reference}: applies to the same value without end")
    if reference not in checked:
        for other in _references_for_same_value(lookup(reference)):
            _check_endless(other, lookup, (*leads_here, reference), checked)
        checked.add(reference)


def _references_for_same_value(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (schema[key] for key in _REFERENCES if isinstance(schema.get(key), str))
        for inner in _applied_to_same_value(schema):
            yield from _references_for_same_value(inner)


def _applied_to_same_value(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword in _SAME_VALUE:
        inner = schema.get(keyword)
        if isinstance(inner, list):
            yield from inner
        elif keyword == "dependentSchemas" and isinstance(inner, dict):
            yield from inner.values()
        elif inner is not None:
            yield inner


def _check_patterns(schema: Any, where: str) -> None:
    """Compile all patterns; `where` is the path of the schema, with a dot at its end."""
    if isinstance(schema, list):
        for index, inner in enumerate(schema):
            _check_patterns(inner, f"{where}{index}.")
    if not isinstance(schema, dict):
        return
    by_name = schema.get("patternProperties")
    named = by_name if isinstance(by_name, dict) else {}
    if named and "unevaluatedProperties" in schema:
        # The library would run the patterns with Python's own, which may take for ever.
        raise ValueError(f"{where}unevaluatedProperties: not supported with patternProperties")
    patterns = [(f"{where}patternProperties", name) for name in named]
    if isinstance(pattern := schema.get("pattern"), str):
        patterns.append((f"{where}pattern", pattern))
    for field_name, text in patterns:
        try:
            compile_pattern(text)
        except ValueError as error:
            raise ValueError(f"{field_name}: {error}") from None
    for name, inner in schema.items():
        if name not in _DATA:
            _check_patterns(inner, f"{where}{name}.")


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
    unknown = sorted(str(name)[:64] for name in _additional(present, schema))
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
    "uniqueItems": lambda _error: "has items that are equal",
    "format": lambda error: f"is not a {error.validator_value}",
    "anyOf": lambda _error: "matches none of the allowed forms",
    "oneOf": lambda _error: "does not match exactly one of the allowed forms",
}
