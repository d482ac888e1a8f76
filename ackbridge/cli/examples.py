"""The table of examples that `check` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ackbridge.catalog.examples import Example, ExampleKind, Meaning
from ackbridge.conformance.readings import CheckedExample, Reading
from ackbridge.terminal import output

_COLUMNS = ("example", "message", "is", "for", "event", "with")
_MAX_SHOWN = 80
"""Characters of a response or a reason in the table."""


def print_examples(title: str, checked: Sequence[CheckedExample]) -> None:
    """Print what the file makes of each example, one line for each event."""
    rows = [row for one in checked for row in _rows(one)]
    if output.console.is_terminal:
        output.console.print(output.table(title, _COLUMNS, rows))
    else:
        print(title, *("\t".join(row) for row in rows), sep="\n")


def example_rows(checked: CheckedExample) -> Iterator[dict[str, Any]]:
    """What the file makes of an example, as JSON."""
    for reading in checked.readings:
        meaning = reading.meaning.model_dump(mode="json", exclude_unset=True)
        yield {
            "example": str(checked.recorded.path),
            "source": checked.recorded.example.source,
            "operation": reading.operation,
            "verified": checked.is_verified and not checked.problems,
            **{name: value for name, value in meaning.items() if value is not None},
        }


def describe(readings: Sequence[Reading]) -> Iterator[str]:
    """What the file makes of a message, a sentence for each event."""
    for reading in readings:
        meaning = reading.meaning
        about = f" for call {meaning.call_id}" if meaning.call_id else ""
        named = f" of {reading.operation}" if reading.operation and not about else ""
        key = f" under event key {meaning.event_key}" if meaning.event_key else ""
        work = f", reference {meaning.reference}" if meaning.reference else ""
        content = _content(meaning)
        yield f"{meaning.kind}{named}{about}{key}{work}{f': {content}' if content else ''}"


def _rows(checked: CheckedExample) -> Iterator[tuple[str, ...]]:
    name, example = checked.recorded.name, checked.recorded.example
    message = _message(example) + (", signature verified" if checked.is_verified else "")
    for reading in checked.readings:
        meaning = reading.meaning
        yield (
            *(name, message, meaning.kind.value, _subject(reading)),
            *(meaning.event_key or "", _content(meaning)),
        )
    if not checked.readings:
        yield name, message, "unreadable", "", "", ""


def _message(example: Example) -> str:
    answer = example.answer
    if answer is None:
        return "callback"
    is_acknowledged = answer.to in ("success", "failed")
    what = f"acknowledgement ({answer.to})" if is_acknowledged else answer.to
    return f"{answer.status} to {what}"


def _subject(reading: Reading) -> str:
    """The call, or the reference, or else the operation."""
    meaning = reading.meaning
    return meaning.call_id or " ".join(filter(None, (reading.operation, meaning.reference)))


def _content(meaning: Meaning) -> str:
    match meaning.kind:
        case ExampleKind.SUCCESS:
            text = json.dumps(meaning.response, ensure_ascii=False)
        case ExampleKind.RECEIPT:
            text = "" if meaning.data is None else json.dumps(meaning.data, ensure_ascii=False)
        case ExampleKind.EXTENSION:
            text = f"until {meaning.until}" if meaning.until else f"{meaning.by} more"
        case _:
            again = "retryable" if meaning.retryable else None
            text = ": ".join(filter(None, (again, meaning.code, meaning.reason)))
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
