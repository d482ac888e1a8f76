"""Output: tables and live views for a terminal, JSON for programs."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ackbridge.contracts.batches import BatchProgress, BatchState
from ackbridge.contracts.calls import CallStatus, Effect, Waiting

T = TypeVar("T")
Cell = str | Text | ProgressBar


class _UncroppedConsole(Console):
    """Does not cut off what is wider than the terminal, such as a long id."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **{"crop": False, **options})

    def on_broken_pipe(self) -> None:
        """Leave it to the caller; rich would exit with another status."""
        raise BrokenPipeError


console = _UncroppedConsole(highlight=False)

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


def say(sentence: str) -> None:
    """Print a sentence as it is, in one line, so that ids and commands in it can be copied."""
    console.print(sentence, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class _Rows:
    """Rows under a title: a table, or a paragraph for each row where ids would be broken."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        if self.title:
            yield _unbroken(self.title, "bold")
        if self._fits(options.max_width):
            yield self._table()
            return
        for row in self.rows:
            first, *others = zip(self.columns, row, strict=True)
            yield _unbroken(first[1]) if not isinstance(first[1], ProgressBar) else first[1]
            for _, cell in others:
                if isinstance(cell, ProgressBar):
                    yield Padding(cell, (0, 0, 0, 2))
            named = [(name, str(cell)) for name, cell in others if _text(cell)]
            yield from _named_values(named, options.max_width, indent=2)

    def _fits(self, width: int) -> bool:
        needed = 2 * (len(self.columns) - 1)
        for number, column in enumerate(self.columns):
            cells = [_text(row[number]) for row in self.rows]
            longest = max((cell_len(cell) for cell in (column, *cells)), default=0)
            needed += longest if column in _ID_COLUMNS else min(longest, _FAIR_WIDTH)
        return needed <= width

    def _table(self) -> Table:
        made = Table(box=None, pad_edge=False, show_header=any(self.columns))
        for column in self.columns:
            made.add_column(column, overflow="fold", no_wrap=column in _ID_COLUMNS)
        for row in self.rows:
            made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        return made


@dataclass(frozen=True)
class _Properties:
    """Names and values under a title; values are wrapped between words only."""

    title: str
    values: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield _unbroken(self.title, "bold")
        yield from _named_values(self.values, options.max_width, indent=0)


_ID_COLUMNS = frozenset({"id", "call", "event", "reference", "batch", "provider", "code"})
"""Columns whose values are never broken, because they are copied."""

_FAIR_WIDTH = 12
"""Characters that a table leaves at least to any other column."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> RenderableType:
    """Rows under a title; brackets in plain text are not read as markup, ids are not broken."""
    return _Rows(title, columns, rows)


def _named_values(values: Sequence[tuple[str, str]], width: int, *, indent: int) -> Iterator[Text]:
    margin = indent + max((len(name) for name, _ in values), default=0) + 2
    for name, value in values:
        lines = [
            line
            for paragraph in value.splitlines()
            for line in textwrap.wrap(
                paragraph,
                max(width - margin, 20),
                break_long_words=False,
                break_on_hyphens=False,
            )
            or [""]
        ]
        first = f"{'':{indent}}{name:{margin - indent}}"
        for number, line in enumerate(lines):
            yield _unbroken((first if number == 0 else " " * margin) + line)


def _unbroken(text: str | Text, style: str = "") -> Text:
    made = text.copy() if isinstance(text, Text) else Text(text, style=style)
    made.no_wrap, made.overflow = True, "ignore"
    return made


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)


def _text(cell: Cell) -> str:
    return "" if isinstance(cell, ProgressBar) else str(cell)


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
        cells = [[_plain(value)[:longest] for value in row.values()] for row in rows]
        console.print(table(title, columns, cells))


def properties(title: str, values: Mapping[str, str | None]) -> RenderableType:
    """Names and values; those that are None or empty are left out."""
    return _Properties(title, [(name, value) for name, value in values.items() if value])


def call_status(status: CallStatus) -> RenderableType:
    """The state of one call."""
    outcome, notice = status.outcome, status.notice
    values: dict[str, str | None] = {
        "answer": _answer(status),
        "stage": f"{status.stage} since {status.since:%Y-%m-%d %H:%M:%S} UTC",
        "cycle": f"{status.cycle}, sent {counted(status.attempts, 'time')}",
        "waiting for": waiting(status.waiting),
        "effect": _EFFECTS[status.effect],
        "code": code(status.code, status.provider_code),
        "disputed": _DISPUTED if status.disputed else None,
        "receipt": None if status.receipt is None else _json(status.receipt),
        "reference": status.reference,
    }
    if status.deadline:
        at = f"{status.deadline:%Y-%m-%d %H:%M:%S} UTC"
        values["deadline"] = f"{at}: {status.deadline_reason}"
    if outcome is not None:
        if outcome.status == "completed":
            values["response"] = _json(outcome.response)
        if outcome.settled:
            values["settled"] = f"by {outcome.settled.by}: {outcome.settled.reason}"
        if outcome.forced:
            values["forced"] = f"by {outcome.forced.by}: {outcome.forced.reason}"
    owed, duplicates = status.acknowledgements_owed, status.duplicates
    values |= {
        "owed": counted(owed, "acknowledgement") if owed else None,
        "duplicates": f"{duplicates} suppressed" if duplicates else None,
        "flags and breaker": status.standing,
        "last error": status.last_error,
    }
    if notice is not None:
        parts = (f"{notice.title}.", notice.message, notice.alternative)
        values["notice"] = " ".join(filter(None, parts))
    return properties(status.call_id, {name: values.get(name) for name in _CALL_PROPERTIES})


_CALL_PROPERTIES = (
    *("answer", "effect", "code", "stage", "waiting for", "cycle", "reference", "receipt"),
    *("deadline", "response", "settled", "forced", "disputed", "owed"),
    *("duplicates", "flags and breaker", "last error", "notice"),
)
"""In the order in which they are shown."""

_EFFECTS = {
    Effect.NONE: "none: nothing took effect at the provider",
    Effect.DONE: "done: the provider has done the work",
    Effect.UNKNOWN: "unknown: the provider may have done the work, or may still do it",
}

_DISPUTED = "the provider refused our success acknowledgement"


def code(ours: str | None, theirs: str | None) -> str | None:
    """The code of an outcome, with the provider's own in parentheses."""
    if theirs is None:
        return ours
    return f"{ours or 'code'} ({theirs})"


def waiting(found: Waiting | None) -> str | None:
    """What a call waits for, since when, until when and why."""
    if found is None:
        return None
    text = f"{found.what.replace('_', ' ')} since {found.since:%Y-%m-%d %H:%M:%S} UTC"
    if found.next_attempt_at is not None:
        text += f", next attempt at {found.next_attempt_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text}: {found.detail}" if found.detail else text


def age(span: timedelta) -> str:
    """How long ago, in its largest unit: `45 s`, `12 min`, `3 h`, `5 d`."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 call`, `2 calls`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def batch_table(batches: Sequence[BatchProgress]) -> RenderableType:
    """Batches with a progress bar each."""
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
