"""Payloads generated from their schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.catalog.payload_schema import PayloadSchema
from ackbridge.conformance.sample_payloads import NoSampleError, generate_payloads, vary


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "number", "minimum": 0.5, "maximum": 0.75},
        {"type": "integer", "multipleOf": 7, "minimum": 15},
        {"type": "integer", "maximum": -5},
        {"type": "string", "pattern": "^[A-Z]{3}$"},
        {"type": "string", "minLength": 20, "maxLength": 20},
        {"type": "string", "maxLength": 0},
        {"type": "string", "format": "email"},
        {"type": "string", "format": "date-time"},
        {"enum": ["a", 1, None]},
        {"const": {"x": [1]}},
        {"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "string"}, {"const": 3}], "minItems": 3},
        {"type": "array", "contains": {"const": "z"}},
        {"type": ["null", "string"]},
        {"type": "object", "minProperties": 2},
        {"type": "object", "properties": {"a": {}}, "dependentRequired": {"a": ["b"]}},
        {"oneOf": [{"type": "integer", "minimum": 5}, {"type": "string", "minLength": 3}]},
        {"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}, "required": ["b"]}]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "boolean"}}},
        {
            "type": "object",
            "required": ["kind", "to"],
            "properties": {
                "kind": {"examples": ["parcel"]},
                "to": {
                    "type": "object",
                    "required": ["zip"],
                    "properties": {"zip": {"minimum": 9}},
                },
            },
        },
    ],
)
def test_valid_payload_is_generated(schema: dict[str, Any]) -> None:
    """For most schemas that occur in practice."""
    compiled = PayloadSchema.parse(schema)
    for payload in generate_payloads(compiled, 2):
        compiled.check(payload)


def test_two_payloads_differ() -> None:
    """As a scenario with one key and two payloads needs."""
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    one, two = generate_payloads(PayloadSchema.parse(schema), 2)
    assert one != two


def test_known_payloads_are_varied() -> None:
    """In one value each, or without it; what is not valid is left out."""
    schema = {
        "required": ["code"],
        "properties": {
            "code": {"type": "string", "pattern": "^[A-Z]{4}[0-9]{3}x?$"},
            "n": {"type": "integer", "maximum": 7},
        },
    }
    known = {"code": "KIEL001", "n": 7}
    assert list(vary([known], PayloadSchema.parse(schema))) == [
        {"code": "KIEL001x", "n": 7},
        {"code": "KIEL001", "n": 6},
        {"code": "KIEL001"},
    ]


def test_first_payload_is_the_smallest() -> None:
    """Optional fields are left out."""
    schema = {"required": ["a"], "properties": {"a": {"const": 1}, "b": {"const": 2}}}
    assert generate_payloads(PayloadSchema.parse(schema), 2) == [{"a": 1}, {"a": 1, "b": 2}]


def test_error_says_why_nothing_was_generated() -> None:
    """A pattern that none of the usual texts matches."""
    schema = {"type": "string", "pattern": "^[A-Z]{40}#$"}
    with pytest.raises(NoSampleError, match="payload: does not match"):
        generate_payloads(PayloadSchema.parse(schema), 1)


NUMBERS = st.integers(-20, 20)


@given(
    st.fixed_dictionaries(
        {"type": st.just("integer")},
        optional={"minimum": NUMBERS, "exclusiveMaximum": NUMBERS, "multipleOf": st.just(3)},
    )
)
def test_integers_within_any_bounds(schema: dict[str, Any]) -> None:
    """One is generated wherever one exists."""
    step = schema.get("multipleOf", 1)
    low, high = schema.get("minimum", -60), schema.get("exclusiveMaximum", 60)
    there_is_one = any(number % step == 0 for number in range(low, high))
    try:
        generate_payloads(PayloadSchema.parse(schema), 1)
    except NoSampleError:
        assert not there_is_one
    else:
        assert there_is_one
