"""A batch as a story, for the current details in the Temporal UI (Markdown)."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.batches import BatchProgress, BatchState

_HEADLINES = {
    BatchState.WAITING: "Waiting",
    BatchState.RUNNING: "Taking parked calls up again",
    BatchState.PAUSED: "Paused",
    BatchState.STOPPED: "Stopped",
    BatchState.COMPLETED: "Completed",
    BatchState.TERMINATED: "Terminated",
}
_WIDTH = 30
"""Characters of the bar."""


def tell_batch(progress: BatchProgress) -> str:
    """Say how far a batch is, since when and why, and what has become of its calls."""
    counts = progress.counts
    why = f", {progress.why}" if progress.why else ""
    headline = _HEADLINES[progress.state]
    lines = [f"**{headline}**{why} (since {progress.since:%Y-%m-%d %H:%M:%S} UTC)", ""]
    lines += [f"`{_bar(progress)}` {counts.done} of {_total(progress)}", ""]
    lines.append(f"- wanted by {progress.by}")
    if progress.calls_per_second is not None:
        lines.append(f"- at most {progress.calls_per_second:.3g} calls per second")
    lines.append(f"- selected {counts.selected}, told to try again {counts.signalled}")
    lines.append(f"- completed {counts.completed}, failed {counts.failed}")
    lines.append(f"- parked again {counts.parked_again}, skipped {counts.skipped}")
    if progress.last_error:
        lines.append(f"- last trouble: {progress.last_error}")
    return "\n".join(lines)


def _bar(progress: BatchProgress) -> str:
    filled = 0
    if progress.state is BatchState.COMPLETED:
        filled = _WIDTH
    elif progress.total:
        filled = min(_WIDTH * progress.counts.done // progress.total, _WIDTH)
    return "█" * filled + "░" * (_WIDTH - filled)


def _total(progress: BatchProgress) -> str:
    return "?" if progress.total is None else f"{max(progress.total, progress.counts.selected)}"
