"""Reading what callers and files write."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import (
    MAX_JSON_DEPTH,
    Duration,
    InvalidInputError,
    check_json,
    duration_text,
    parse_argument,
    read_json_unchecked,
)


@pytest.mark.parametrize("text", ["9999999999999d", "9" * 400 + "s", "1e400", "P" + "9" * 40 + "D"])
def test_durations_that_are_too_long_are_refused(text: str) -> None:
    """Like every other invalid value, not with an error of arithmetic."""
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=7), "7 days"),
        (timedelta(days=1, seconds=9), "1 day"),
        (timedelta(days=2, hours=3, minutes=4), "2 days 3 h"),
        (timedelta(hours=1, minutes=30), "1 h 30 min"),
        (timedelta(minutes=5, seconds=1), "5 min 1 s"),
        (timedelta(seconds=4.25), "4.25 s"),
        (timedelta(0), "0 s"),
    ],
)
def test_durations_are_written_for_people(span: timedelta, text: str) -> None:
    """In the two largest units."""
    assert duration_text(span) == text


def test_json_is_checked_part_by_part() -> None:
    """What `read_json` refuses of a whole is found in its parts."""
    deep: object = 1
    for _ in range(MAX_JSON_DEPTH + 2):
        deep = [deep]
    good, *bad = read_json_unchecked(b'[{"a": 1e-5}, {"b": NaN}, {"c": "\\ud800"}]')
    check_json(good)
    for one in (*bad, deep):
        with pytest.raises(InvalidInputError):
            check_json(one)
    for text in (b"{", b"[" * 100_000):
        with pytest.raises(InvalidInputError):
            read_json_unchecked(text)


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        (math.nan, "it"),
        ({"amount": -math.inf}, "amount"),
        ({"note": "NaN", "lines": [{"price": 1.5}, {"price": math.nan}]}, "lines.1.price"),
    ],
)
def test_a_number_that_json_does_not_have_is_refused(payload: Any, where: str) -> None:
    """It would become null; the error names the field."""
    fields = {"provider": "acme", "operation": "order", "key": "k-1", "payload": payload}
    with pytest.raises(InvalidInputError, match=f"payload: {where}: neither NaN nor Infinity"):
        parse_argument(CallRequest, (fields,))
    valid = CallRequest.model_validate(fields | {"payload": None})
    with pytest.raises(InvalidInputError, match=f"payload: {where}: neither NaN nor Infinity"):
        valid.model_copy(update={"payload": payload}).check_size()


def test_words_for_such_numbers_are_texts() -> None:
    """A text is not a number, whatever it says."""
    fields = {"provider": "acme", "operation": "order", "key": "k-1", "payload": ["NaN", 1e308]}
    assert parse_argument(CallRequest, (fields,)).payload == ["NaN", 1e308]
