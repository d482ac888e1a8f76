"""Batches with their progress bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ackbridge.contracts.batches import BatchProgress, BatchState

_STYLES = {
    BatchState.WAITING: "yellow",
    BatchState.RUNNING: "cyan",
    BatchState.PAUSED: "yellow",
    BatchState.STOPPED: "red",
    BatchState.COMPLETED: "green",
    BatchState.TERMINATED: "red",
}


def bars(seen: Sequence[BatchProgress]) -> Table:
    """A table with a bar for each batch, and what has become of its calls."""
    made = Table(box=None, pad_edge=False)
    for column in ("batch", "state", "", "done", "completed", "parked again", "failed", "skipped"):
        made.add_column(column, overflow="fold")
    for one in seen:
        counts = one.counts
        total = max(one.total or 0, counts.selected)
        made.add_row(
            Text(one.batch),
            Text(one.state + (f" {one.why}" if one.why else ""), style=_STYLES[one.state]),
            _bar(one, total),
            f"{counts.done} of {total if one.total is not None else '?'}",
            *(str(number) for number in (counts.completed, counts.parked_again)),
            *(str(number) for number in (counts.failed, counts.skipped)),
        )
    return made


def _bar(one: BatchProgress, total: int) -> ProgressBar:
    is_over = one.state is BatchState.COMPLETED
    whole = total or 1
    return ProgressBar(total=whole, completed=whole if is_over else one.counts.done, width=24)
