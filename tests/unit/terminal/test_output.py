"""Tables and statuses on narrow terminals: ids are never broken, and all is readable."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import RenderableType
from rich.progress_bar import ProgressBar

from ackbridge.contracts.calls import (
    CallStatus,
    Effect,
    OutcomeCode,
    Stage,
    Waiting,
    WaitingFor,
)
from ackbridge.terminal import output

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CALL = f"sandbox.create_order.{'f' * 32}-[x]"
LONG_CALL = f"sandbox.create_order.{'f' * 100}"


def drawn(renderable: RenderableType, width: int = 80) -> list[str]:
    """The lines as they are printed on a terminal this wide."""
    console = type(output.console)(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    file: Any = console.file
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_table_where_everything_fits() -> None:
    """One line for each row, with a heading."""
    lines = drawn(output.table("1 call", ("call", "stage"), [(CALL, "parked")]))
    assert lines[0] == "1 call"
    assert lines[1].split() == ["call", "stage"]
    assert lines[2].split() == [CALL, "parked"]


@pytest.mark.parametrize("call_id", [CALL, LONG_CALL])
def test_rows_become_paragraphs_before_an_id_is_broken(call_id: str) -> None:
    """The id has a line of its own, then each value with its name; empty ones are left out."""
    columns = ("call", "workflow", "stage", "since", "code", "amount")
    row = (call_id, "running", "", "2026-01-02 03:04:05", "no_receipt (try_again_later)", "5")
    lines = drawn(output.table("", columns, [row]), width=72)
    assert lines == [
        call_id,
        "  workflow  running",
        "  since     2026-01-02 03:04:05",
        "  code      no_receipt (try_again_later)",
        "  amount    5",
    ]


def test_progress_bar_of_a_paragraph() -> None:
    """It is drawn under the id."""
    bar = ProgressBar(total=4, completed=1, width=24)
    columns = ("batch", "", "state", "done", "completed", "failed", "skipped")
    row = ("batch.sandbox:20260102T030405006Z", bar, "running", "1 of 4", "1", "0", "0")
    lines = drawn(output.table("", columns, [row]), width=60)
    assert lines[0] == row[0]
    assert lines[1].startswith("  ━")
    assert "  done       1 of 4" in lines


def test_long_values_are_wrapped_between_words() -> None:
    """The id inside a sentence stays whole, also where it does not fit."""
    error = f"the event belongs to {LONG_CALL} and to no other call of this provider"
    lines = drawn(output.properties(CALL, {"last error": error, "late": None}))
    assert lines[0] == CALL
    assert f"            {LONG_CALL}" in lines
    assert max(len(line) for line in lines if LONG_CALL not in line) <= 80


def test_status_says_effect_code_and_what_the_call_waits_for() -> None:
    """And all of it is readable on 80 columns."""
    waiting = Waiting(
        what=WaitingFor.RATE_LIMIT,
        since=NOW,
        next_attempt_at=NOW + timedelta(minutes=1),
        detail="2.5/s, set by ada: a [drill]",
    )
    status = CallStatus(
        call_id=CALL,
        stage=Stage.SENDING,
        since=NOW,
        effect=Effect.UNKNOWN,
        code=OutcomeCode.NO_RECEIPT,
        provider_code="card_declined",
        disputed=True,
        waiting=waiting,
        receipt={"link": "https://provider.example/checkout"},
    )
    lines = drawn(output.call_status(status))
    text = " ".join(" ".join(lines).split())
    assert lines[0] == CALL
    assert "effect unknown: the provider may have done the work" in text
    assert "code no_receipt (card_declined)" in text
    assert "waiting for rate limit since 2026-01-02 03:04:05 UTC, next attempt at" in text
    assert "2.5/s, set by ada: a [drill]" in text
    assert "disputed the provider refused our success acknowledgement" in text
    assert '{"link": "https://provider.example/checkout"}' in text
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=-1), "0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=90), "1 h"),
        (timedelta(minutes=12), "12 min"),
        (timedelta(days=5, hours=3), "5 d"),
    ],
)
def test_age_in_its_largest_unit(span: timedelta, text: str) -> None:
    """Rounded down."""
    assert output.age(span) == text
