"""Output: tables and live views for a terminal, JSON for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ackbridge.contracts.batches import BatchProgress, BatchState
from ackbridge.contracts.calls import CallStatus

T = TypeVar("T")
Cell = str | Text | ProgressBar

console = Console(highlight=False)

WATCH_INTERVAL = 0.5
"""Seconds between two refreshes of `--watch`."""

_BATCH_STYLES = {
    BatchState.WAITING: "yellow",
    BatchState.RUNNING: "cyan",
    BatchState.PAUSED: "yellow",
    BatchState.STOPPED: "red",
    BatchState.COMPLETED: "green",
    BatchState.TERMINATED: "red",
}


def print_json(value: Any) -> None:
    """Print one JSON document; pydantic models are dumped in JSON mode."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(json.dumps(plain, indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table with a title; brackets in plain text are not read as markup."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(c.replace("[", r"\[") if isinstance(c, str) else c for c in row))
    return made


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    columns: Sequence[str],
    *,
    as_json: bool,
    longest: int | None = None,
) -> None:
    """Print rows as JSON objects, or as a table whose cells are cut after `longest` characters."""
    if as_json:
        print_json(list(rows))
    else:
        cells = [[str(value)[:longest] for value in row.values()] for row in rows]
        console.print(table(title, columns, cells))


def properties(title: str, values: Mapping[str, str | None]) -> Table:
    """A table of names and values; values that are None or empty are left out."""
    return table(title, ("", ""), [(name, value) for name, value in values.items() if value])


def call_status(status: CallStatus) -> Table:
    outcome, notice = status.outcome, status.notice
    values: dict[str, str | None] = {
        "answer": _answer(status),
        "stage": f"{status.stage} since {status.since:%Y-%m-%d %H:%M:%S} UTC",
        "cycle": f"{status.cycle}, sent {status.attempts} times",
        "reference": status.reference,
    }
    if status.deadline:
        at = f"{status.deadline:%Y-%m-%d %H:%M:%S} UTC"
        values["deadline"] = f"{at}: {status.deadline_reason}"
    if outcome is not None:
        if outcome.status == "completed":
            values["response"] = json.dumps(outcome.response, ensure_ascii=False)
        values |= {"reason": outcome.reason, "late": "yes" if outcome.late else None}
        if outcome.forced:
            values["forced"] = f"by {outcome.forced.by}: {outcome.forced.reason}"
    owed, duplicates = status.acknowledgements_owed, status.duplicates
    values |= {
        "owed": f"{owed} acknowledgements" if owed else None,
        "duplicates": f"{duplicates} suppressed" if duplicates else None,
        "flags and breaker": status.standing,
        "last error": status.last_error,
    }
    if notice is not None:
        parts = (f"{notice.title}.", notice.message, notice.alternative)
        values["notice"] = " ".join(filter(None, parts))
    return properties(status.call_id, values)


def batch_table(batches: Sequence[BatchProgress]) -> Table:
    columns = ("batch", "state", "", "done", "completed", "parked again", "failed", "skipped")
    return table("", columns, [_batch_row(batch) for batch in batches])


def call_progress(*, disable: bool = False, transient: bool = False) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, disable=disable, transient=transient)


async def watch(
    fetch: Callable[[], Awaitable[T]],
    render: Callable[[T], RenderableType],
    is_final: Callable[[T], bool] = lambda _: False,
    *,
    interval: float = WATCH_INTERVAL,
    transient: bool = True,
) -> T:
    """Fetch every `interval` seconds and redraw, until a value is final; returns that value."""
    value = await fetch()
    with Live(render(value), console=console, transient=transient) as live:
        while not is_final(value):
            await asyncio.sleep(interval)
            value = await fetch()
            live.update(render(value))
    return value


def _answer(status: CallStatus) -> str:
    expected = status.notice.expected_at if status.notice else None
    until = f", expected by {expected:%Y-%m-%d %H:%M:%S} UTC" if expected else ""
    late = ", late" if status.outcome and status.outcome.late else ""
    return f"{status.answer}{until}{late}"


def _batch_row(batch: BatchProgress) -> tuple[Cell, ...]:
    counts = batch.counts
    total = max(batch.total or 0, counts.selected)
    state = f"{batch.state} {batch.why}" if batch.why else str(batch.state)
    done = (total or 1) if batch.state is BatchState.COMPLETED else counts.done
    return (
        Text(batch.batch),
        Text(state, style=_BATCH_STYLES[batch.state]),
        ProgressBar(total=total or 1, completed=done, width=24),
        f"{counts.done} of {total if batch.total is not None else '?'}",
        *(str(n) for n in (counts.completed, counts.parked_again, counts.failed, counts.skipped)),
    )
