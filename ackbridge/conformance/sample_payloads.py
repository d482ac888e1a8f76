"""Payloads generated from their JSON Schema: small, and checked by the real validator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ackbridge.catalog.payload_schema import PayloadSchema
from ackbridge.contracts.wire import InvalidInputError

Schema = Any
"""A JSON Schema; true and false are schemas too."""

_MAX_CANDIDATES = 500
_MAX_CHOICES = 20
_MAX_DEPTH = 8
_FORMATS: Mapping[str, str] = {
    "date": "2030-01-31",
    "date-time": "2030-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "somebody@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "8f9de3fa-0d4e-4e0c-9d9b-6f3ed8f0b0a1",
}

_COMMON_TEXTS = (
    *("EUR", "eur", "DE", "de", "de-DE", "1", "1234", "12345", "1234567890", "0.50", "a", "A"),
    *("abc-1", "ABC-1", "+4915112345678", "2030-01-31", "12:00", "#000000", "deadbeef"),
)
"""For patterns: what they often describe. Others need an example's payload."""


class NoSampleError(Exception):
    """No valid payload was found; the text says what is wrong with the last candidate."""


def generate_payloads(schema: PayloadSchema, count: int) -> list[Any]:
    """Up to `count` distinct valid payloads, the smallest first; raises `NoSampleError` if none."""
    found: list[Any] = []
    problem = "it allows nothing"
    generator = _Generator(schema.source)
    for candidate in islice(generator.values(schema.source), _MAX_CANDIDATES):
        try:
            schema.check(candidate)
        except InvalidInputError as error:
            problem = str(error)
            continue
        if candidate not in found:
            found.append(candidate)
        if len(found) == count:
            break
    if not found:
        raise NoSampleError(problem)
    return found


def vary(payloads: Sequence[Any], schema: PayloadSchema) -> Iterator[Any]:
    """Valid payloads that differ from a given one in one value."""
    for payload in payloads:
        for candidate in islice(_variations(payload), _MAX_CANDIDATES):
            try:
                schema.check(candidate)
            except InvalidInputError:
                continue
            yield candidate


def _variations(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from ({**value, key: other} for other in _variations(inner))
            for key in value:
                yield {other: inner for other, inner in value.items() if other != key}
        case list():
            for index, inner in enumerate(value):
                for other in _variations(inner):
                    yield [*value[:index], other, *value[index + 1 :]]
        case bool():
            yield not value
        case int() | float():
            yield from (value + 1, value - 1)
        case str():
            yield from (f"{value} ", f"{value}x", value.swapcase(), value[::-1])


class _Generator:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def values(self, schema: Schema, depth: int = 0) -> Iterator[Any]:
        """Candidates, the best first."""
        if depth > _MAX_DEPTH or schema is False:
            return
        if not isinstance(schema, Mapping):
            yield "made-up"
            return
        if "const" in schema:
            yield schema["const"]
            return
        yield from schema.get("examples", ())
        if "default" in schema:
            yield schema["default"]
        if "enum" in schema:
            yield from schema["enum"]
            return
        for variant in self._variants(schema):
            if variant is schema:
                yield from self._plain(schema, depth)
            else:
                yield from self.values(variant, depth + 1)

    def _variants(self, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The schema without references and combinations, once for each alternative."""
        rest = dict(schema)
        if "$ref" in rest:
            yield _merged(self._resolve(rest.pop("$ref")), rest)
        elif "allOf" in rest:
            parts = rest.pop("allOf")
            for part in parts:
                rest = _merged(rest, part)
            yield rest
        elif "anyOf" in rest or "oneOf" in rest:
            parts = rest.pop("anyOf", None) or rest.pop("oneOf")
            for part in parts:
                yield _merged(rest, part)
        else:
            yield schema

    def _resolve(self, reference: str) -> Schema:
        found = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found[step.replace("~1", "/").replace("~0", "~")]
        return found

    def _plain(self, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        kinds = schema.get("type") or _implied_type(schema)
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            match kind:
                case "object":
                    yield from self._objects(schema, depth)
                case "array":
                    yield from self._arrays(schema, depth)
                case "string":
                    yield from self._strings(schema)
                case "integer" | "number":
                    yield from _numbers(schema)
                case "boolean":
                    yield from (True, False)
                case _:
                    yield None

    def _objects(self, schema: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required = list(schema.get("required", ()))
        optional = [name for name in properties if name not in required]
        smallest = list(self._filled(properties, required, depth))
        yield from smallest
        # With more and more optional fields: dependencies and `minProperties` need some.
        for count in range(1, len(optional) + 1):
            yield from islice(self._filled(properties, required + optional[:count], depth), 1)
        missing = schema.get("minProperties", 0) - len(required)
        more = [f"made_up_{number}" for number in range(missing)]
        if more:
            yield from self._filled(properties, required + more, depth)
        if schema.get("additionalProperties", True) is not False:
            yield from ({**one, "made_up": "made-up"} for one in islice(smallest, 1))

    def _filled(
        self, properties: Mapping[str, Schema], names: Sequence[str], depth: int
    ) -> Iterator[dict[str, Any]]:
        """Objects with these fields: the best value of each, then other values of one at a time."""
        choices = {
            name: list(islice(self.values(properties.get(name, True), depth + 1), _MAX_CHOICES))
            for name in names
        }
        if not all(choices.values()):
            return
        best = {name: values[0] for name, values in choices.items()}
        yield best
        for name, values in choices.items():
            for value in values[1:]:
                yield {**best, name: value}

    def _arrays(self, schema: Mapping[str, Any], depth: int) -> Iterator[list[Any]]:
        firsts = schema.get("prefixItems", ())
        least = max(schema.get("minItems", 0), schema.get("minContains", int("contains" in schema)))
        items = [next(self.values(item, depth + 1), None) for item in firsts]
        of = schema.get("contains", schema.get("items", True))
        others = list(islice(self.values(of, depth + 1), max(least, 1)))
        while others and len(items) < least:
            # Distinct ones first, for `uniqueItems`.
            items.append(others[(len(items) - len(firsts)) % len(others)])
        yield items
        yield [*items, *others[:1]]

    def _strings(self, schema: Mapping[str, Any]) -> Iterator[str]:
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 10_000)
        if schema.get("format") in _FORMATS:
            yield _FORMATS[schema["format"]]
        if "pattern" in schema:
            yield from _COMMON_TEXTS
        for text in ("made-up", "something-else", "x", "y"):
            fitted = text[:longest]
            yield fitted + "x" * (shortest - len(fitted))


def _merged(one: Schema, other: Schema) -> dict[str, Any]:
    one, other = (part if isinstance(part, Mapping) else {} for part in (one, other))
    both = {**one, **other}
    if "properties" in one and "properties" in other:
        both["properties"] = {
            name: _merged(one["properties"].get(name, {}), other["properties"].get(name, {}))
            for name in {**one["properties"], **other["properties"]}
        }
    if "required" in one and "required" in other:
        both["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return both


def _implied_type(schema: Mapping[str, Any]) -> str:
    for kind, words in (
        ("object", {"properties", "required", "minProperties"}),
        ("array", {"items", "prefixItems", "minItems", "contains"}),
        ("number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    ):
        if words & schema.keys():
            return kind
    return "string"


def _numbers(schema: Mapping[str, Any]) -> Iterator[float]:
    step = schema.get("multipleOf", 1)
    lows = [schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema]
    highs = [schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema]
    starts = [*lows, *highs] or [1]
    for start in starts:
        for turn in (0, 1, -1, 2):
            number = (start // step + turn) * step
            yield int(number) if number == int(number) else number
    if lows and highs:
        yield (max(lows) + min(highs)) / 2
