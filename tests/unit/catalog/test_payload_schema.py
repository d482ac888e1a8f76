"""Payloads are validated; errors name fields and contain no values."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.catalog import check_payload
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import IntegrationFileError
from tests.support.catalog_files import acme

SCHEMA = {
    "type": "object",
    "required": ["amount", "to"],
    "additionalProperties": False,
    "properties": {
        "amount": {"type": "integer", "exclusiveMinimum": 0, "maximum": 10},
        "to": {"$ref": "#/$defs/to"},
        "on": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "either": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        "code": {"type": ["string", "null"], "pattern": "^[A-Z]+$", "minLength": 2},
        "never": {"not": {}},
    },
    "$defs": {"to": {"type": "string", "minLength": 1}},
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"amount": "x-secret"}, "payload.amount: is not of type integer"),
        ({"amount": 0}, "payload.amount: is not more than 0"),
        ({"amount": 11}, "payload.amount: is more than 10"),
        ({"to": ""}, "payload.to: is shorter than 1 characters"),
        ({"on": "x-secret"}, "payload.on: is not a date"),
        ({"tags": ["a", "x-secret"]}, "payload.tags.1: is not one of ['a', 'b']"),
        ({"tags": ["a", "a", "a"]}, "payload.tags: has more than 2 items"),
        ({"either": "x-secret"}, "payload.either: matches none of the allowed forms"),
        ({"code": 1}, "payload.code: is not of type string or null"),
        ({"code": "x-secret"}, "payload.code: does not match ^[A-Z]+$"),
        ({"never": 1}, "payload.never: does not satisfy not"),
        ({"amout": 5}, "payload: unknown field amout"),
    ],
)
def test_errors_name_the_field_and_hide_the_value(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """The error says what is wrong with the field, without its value."""
    operation = acme(tmp_path, payload_schema=SCHEMA).operations["order"]
    with pytest.raises(InvalidInputError) as caught:
        check_payload(operation, {"amount": 5, "to": "x", **wrong})
    assert message == str(caught.value)


def test_several_problems_are_reported_together(tmp_path: Path) -> None:
    """Missing fields are one problem, and at most five problems are reported."""
    operation = acme(tmp_path, payload_schema=SCHEMA).operations["order"]
    with pytest.raises(
        InvalidInputError, match=r"^payload: amount, to are missing; payload\.on: is not"
    ):
        check_payload(operation, {"on": 1})
    with pytest.raises(InvalidInputError, match=r"^payload: is not of type object$"):
        check_payload(operation, None)


def test_valid_payloads_pass(tmp_path: Path) -> None:
    """With a schema and without one."""
    check_payload(
        acme(tmp_path, payload_schema=SCHEMA).operations["order"],
        {"amount": 5, "to": "x", "on": "2026-01-01", "code": None},
    )
    check_payload(acme(tmp_path).operations["order"], object())


NESTED_DEFS = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
TREE = {"properties": {"x": {"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}}


def _nested(levels: int) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(levels):
        nested = {"x": nested}
    return nested


@pytest.mark.parametrize(
    ("schema", "payload", "problem"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 200_000 + "b", "payload: does not match ^(a+)+$"),
        ({"pattern": "^(a|a)*$"}, "a" * 200_000 + "b", "payload: does not match ^(a|a)*$"),
        ({"pattern": "^a$"}, "a\n", "payload: does not match ^a$"),
        ({"pattern": "^a$"}, "\ud800", "payload: does not match ^a$"),
        (
            {"patternProperties": {"^(a+)+$": {"type": "integer"}}, "additionalProperties": False},
            {"aaa": 1, "a" * 50_000 + "b": 1},
            f"payload: unknown field {'a' * 64}",
        ),
        ({"uniqueItems": True}, [{"a": i} for i in range(20_000)], None),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "payload: has items that are equal"),
        ({"uniqueItems": True}, [1, True, "1", None, [1], [True]], None),
        ({"format": "regex"}, "(((((", None),
        (
            {"$defs": {**NESTED_DEFS, "d30": {}}, "$ref": "#/$defs/d0"},
            1,
            "payload: too large for its schema to be checked",
        ),
        (
            {"$defs": {"n": TREE}, "$ref": "#/$defs/n"},
            _nested(90),
            "payload: too large for its schema to be checked",
        ),
        ({"additionalProperties": {"$ref": "#"}}, _nested(90), None),
        ({"additionalProperties": {"$ref": "#"}}, _nested(900), "payload: nested too deeply"),
    ],
)
def test_no_payload_can_make_validation_hang(
    tmp_path: Path, schema: dict[str, Any], payload: Any, problem: str | None
) -> None:
    """Patterns and uniqueness take linear time, and the evaluated keywords are bounded."""
    operation = acme(tmp_path, payload_schema=schema).operations["order"]
    started = time.process_time()
    if problem is None:
        check_payload(operation, payload)
    else:
        with pytest.raises(InvalidInputError) as caught:
            check_payload(operation, payload)
        assert str(caught.value) == problem
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"pattern": r"(a)\1"}, r"pattern: (a)\1: not a pattern that runs in linear time"),
        ({"properties": {"x": {"pattern": "(?=a)"}}}, "properties.x.pattern: (?=a): not a"),
        ({"patternProperties": {"(?!a)": {}}}, "patternProperties: (?!a): not a pattern"),
        ({"anyOf": [{}, {"pattern": "a{1000}{1000}"}]}, "anyOf.1.pattern: a{1000}{1000}: not"),
        ({"pattern": "a" * 2000}, "pattern: a pattern has at most 1000 characters"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "not supported with"),
        ({"$ref": "#"}, "#: applies to the same value without end"),
        (
            {"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
            "applies to the same value without end",
        ),
        ({"$ref": "http://127.0.0.1:9/schema"}, "only references within the schema"),
        ({"$ref": "file:///etc/passwd"}, "only references within the schema"),
        (_nested(80), "nested more than 60 levels deep"),
    ],
)
def test_schemas_that_could_hang_are_refused(
    tmp_path: Path, schema: dict[str, Any], problem: str
) -> None:
    """`check` names the field."""
    with pytest.raises(IntegrationFileError) as caught:
        acme(tmp_path, payload_schema=schema)
    assert problem in str(caught.value)
    assert "operations.order.payload_schema" in str(caught.value)


def test_data_in_a_schema_is_not_a_schema(tmp_path: Path) -> None:
    """A constant that looks like a pattern is none."""
    schema = {"properties": {"pattern": {"const": {"pattern": "(?=a)"}}}}
    operation = acme(tmp_path, payload_schema=schema).operations["order"]
    check_payload(operation, {"pattern": {"pattern": "(?=a)"}})
