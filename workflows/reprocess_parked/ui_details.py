"""Markdown of a batch, for the current details in the Temporal UI."""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.batches import BatchProgress, BatchState
    from workflows.hosting.markdown import bullets, document, timestamp

_HEADLINES = {
    BatchState.WAITING: "Waiting",
    BatchState.RUNNING: "Reprocessing parked calls",
    BatchState.PAUSED: "Paused",
    BatchState.STOPPED: "Stopped",
    BatchState.COMPLETED: "Completed",
    BatchState.TERMINATED: "Terminated",
}
BAR_WIDTH = 30


def render(progress: BatchProgress) -> str:
    why = f", {progress.why}" if progress.why else ""
    done = progress.counts.done
    total = "?" if progress.total is None else max(progress.total, progress.counts.selected)
    return document(
        f"**{_HEADLINES[progress.state]}**{why} (since {timestamp(progress.since)})",
        f"`{_bar(progress)}` {done} of {total}",
        bullets(_items(progress)),
    )


def _items(progress: BatchProgress) -> Iterator[str]:
    counts = progress.counts
    yield f"requested by {progress.by}"
    if progress.calls_per_second is not None:
        yield f"at most {progress.calls_per_second:.3g} calls per second"
    yield f"selected {counts.selected}, resumed {counts.signalled}"
    yield f"completed {counts.completed}, failed {counts.failed}"
    yield f"parked again {counts.parked_again}, skipped {counts.skipped}"
    if counts.left:
        yield f"still parked {counts.left}"
    if progress.last_error:
        yield f"last error: {progress.last_error}"


def _bar(progress: BatchProgress) -> str:
    filled = 0
    if progress.state is BatchState.COMPLETED:
        filled = BAR_WIDTH
    elif progress.total:
        filled = min(BAR_WIDTH * progress.counts.done // progress.total, BAR_WIDTH)
    return "█" * filled + "░" * (BAR_WIDTH - filled)
