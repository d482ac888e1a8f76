"""Reading what callers and files write."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from ackbridge.contracts.wire import (
    MAX_JSON_DEPTH,
    Duration,
    InvalidInputError,
    check_json,
    duration_text,
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
