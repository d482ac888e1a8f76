"""Payloads are validated; errors name fields and contain no values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.catalog import check_payload
from ackbridge.contracts.wire import InvalidInputError
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
