"""Printing: tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ackbridge.contracts.calls import CallStatus

console = Console(highlight=False)


def as_json(value: Any) -> None:
    """Print one JSON document."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(json.dumps(plain, indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table with a title; every cell is plain text, or a text with a style."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(c if isinstance(c, Text) else c.replace("[", r"\[") for c in row))
    return made


def facts(title: str, values: Mapping[str, str | None]) -> Table:
    """Names and values, one a line; what is None is left out."""
    return table(title, ("", ""), [(name, value) for name, value in values.items() if value])


def status(status: CallStatus) -> RenderableType:
    """A call for people."""
    outcome = status.outcome
    notice = status.notice
    return facts(
        status.call_id,
        {
            "answer": _answer(status),
            "stage": f"{status.stage} since {status.since:%Y-%m-%d %H:%M:%S} UTC",
            "cycle": f"{status.cycle}, sent {status.attempts} times",
            "reference": status.reference,
            "deadline": f"{status.deadline:%Y-%m-%d %H:%M:%S} UTC: {status.deadline_reason}"
            if status.deadline
            else None,
            "response": json.dumps(outcome.response, ensure_ascii=False)
            if outcome and outcome.status == "completed"
            else None,
            "reason": outcome.reason if outcome else None,
            "late": "yes" if outcome and outcome.late else None,
            "forced": f"by {outcome.forced.by}: {outcome.forced.reason}"
            if outcome and outcome.forced
            else None,
            "owed": f"{status.acknowledgements_owed} acknowledgements"
            if status.acknowledgements_owed
            else None,
            "duplicates": f"{status.duplicates} suppressed" if status.duplicates else None,
            "flags and breaker": status.standing,
            "last trouble": status.last_error,
            "for the user": " ".join(
                filter(None, (f"{notice.title}.", notice.message, notice.alternative))
            )
            if notice
            else None,
        },
    )


def _answer(status: CallStatus) -> str:
    """What whoever waits is told: accepted, completed, delayed until, failed, cancelled."""
    expected = status.notice.expected_at if status.notice else None
    until = f", expected by {expected:%Y-%m-%d %H:%M:%S} UTC" if expected else ""
    late = ", late" if status.outcome and status.outcome.late else ""
    return f"{status.answer}{until}{late}"
