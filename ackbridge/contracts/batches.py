"""Batches, which reprocess parked calls: requests, commands, progress and steps."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, Field

from .limits import MAX_REASON_LENGTH, Actor, Name, ParkedReason, Reason
from .wire import Duration, StrictModel, Wire

QUARANTINE_AFTER: Final = 2
"""How often a parked call fails again, while most other calls of its operation are answered, until
recoveries leave it out."""

HELD_BACK: Final = ("switched_off", "breaker_open", "not_sent")
"""Why calls are parked that were not sent: they have not failed."""


class ParkedSelection(StrictModel):
    """Which parked calls to select; a filter that is left out selects all.

    Attributes:
        operation: one operation or several.
        reason: why they are parked, such as `no_response`, `no_receipt` or `switched_off`; one
            reason or several.
        older_than: the shortest time since they were last parked.
        parked_since: the earliest time at which they were last parked.
        keys: the callers' idempotency keys.
        at_most: the maximum number of calls, oldest first.
        quarantined: false leaves out calls that fail again and again alone; see `QUARANTINE_AFTER`.
    """

    provider: Name
    operation: Name | tuple[Name, ...] | None = None
    reason: ParkedReason | tuple[ParkedReason, ...] | None = None
    older_than: Duration | None = Field(default=None, ge=timedelta(0))
    parked_since: AwareDatetime | None = None
    keys: tuple[str, ...] = Field(default=(), max_length=1000)
    at_most: int | None = Field(default=None, ge=1)
    quarantined: bool = True

    @property
    def operations(self) -> tuple[str, ...]:
        """The selected operations; empty: all."""
        return _several(self.operation)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The selected reasons; empty: all."""
        return _several(self.reason)


def _several(selected: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if selected is None:
        return ()
    return (selected,) if isinstance(selected, str) else selected


class Ramp(StrictModel):
    """The rate increases evenly from a low one to the full one."""

    start: float = Field(default=1.0, gt=0, description="Calls per second at the start.")
    over: Duration = Field(
        default=timedelta(minutes=5),
        gt=timedelta(0),
        description="How long it takes to reach the full rate.",
    )

    def rate(self, elapsed: timedelta, full: float) -> float:
        """Calls per second after a time since the start."""
        share = min(max(elapsed / self.over, 0.0), 1.0)
        return min(self.start, full) + (full - min(self.start, full)) * share


class BatchRequest(StrictModel):
    """The one argument of the workflow `ReprocessParked`.

    Attributes:
        selection: calls that are parked after the start are not selected.
        rate: calls per second.
        concurrency: the maximum number of calls in progress at once.
        ramp: how the rate increases at the start, and again after the provider was closed.
        not_before: when to start; None for now.
        by, reason: who requests the batch and why.
    """

    selection: ParkedSelection
    rate: float = Field(default=5.0, gt=0, le=1000)
    concurrency: int = Field(default=20, ge=1, le=1000)
    ramp: Ramp | None = None
    not_before: AwareDatetime | None = None
    by: Actor
    reason: str | None = Field(default=None, max_length=MAX_REASON_LENGTH)


class BatchCommand(StrictModel):
    """The signals `pause`, `resume` and `stop` of a batch."""

    by: Actor
    reason: Reason


class BatchState(StrEnum):
    """The state of a batch.

    Attributes:
        WAITING: for its start, or until the provider is open again.
        RUNNING: reprocesses calls, or waits for those in progress.
        PAUSED: until it is resumed.
        STOPPED: ended by a command; calls in progress end by themselves.
        COMPLETED: every selected call has ended or is parked again.
        TERMINATED: its workflow was terminated; reported by clients, never by the batch itself.
    """

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    TERMINATED = "terminated"

    @property
    def is_final(self) -> bool:
        """Whether the batch has ended."""
        return self in (BatchState.STOPPED, BatchState.COMPLETED, BatchState.TERMINATED)


class BatchCounts(Wire):
    """Numbers of calls of a batch.

    At the end of a batch, `completed`, `parked_again`, `failed`, `skipped` and `left` add up to its
    total; of a stopped one, some calls may still be in progress.

    Attributes:
        selected: selected so far, each once.
        signalled: told to resume, whatever has happened since.
        completed, parked_again, failed: results of those; cancelled calls count as failed.
        skipped: not resumed, because they had ended or were resumed by somebody else.
        left: at the end, not resumed and still parked: their operation is switched off, or the
            batch was stopped.
    """

    selected: int = 0
    signalled: int = 0
    completed: int = 0
    parked_again: int = 0
    failed: int = 0
    skipped: int = 0
    left: int = 0

    @property
    def in_progress(self) -> int:
        """Calls that were told to resume, and have neither ended nor been parked again."""
        return self.signalled - self.completed - self.parked_again - self.failed

    @property
    def done(self) -> int:
        """Calls that are no longer in progress."""
        return self.completed + self.parked_again + self.failed + self.skipped


class BatchProgress(Wire):
    """The result of the query `progress` and of the workflow.

    Attributes:
        batch: the workflow's id.
        by: who requested it.
        why: why it waits, is paused or was stopped; else what it is doing.
        total: calls that were parked at the start, and all that were selected since; None before.
        calls_per_second: the current rate.
        last_error: the latest error, rejected signals included.
    """

    batch: str
    provider: str
    state: BatchState
    since: AwareDatetime
    started_at: AwareDatetime
    by: str
    why: str | None = None
    total: int | None = None
    counts: BatchCounts = BatchCounts()
    calls_per_second: float | None = None
    last_error: str | None = None


class BatchContinuation(Wire):
    """The state of a batch that continues as new; accepted only from the batch itself.

    Attributes:
        as_of: the ledger's time at the start.
        gentle_since: when the ramp started.
        closed: why nothing could be sent.
        pause: before the next call is resumed.
        paused, stopped: commands in effect.
    """

    progress: BatchProgress
    as_of: AwareDatetime | None = None
    gentle_since: AwareDatetime | None = None
    closed: str | None = None
    pause: timedelta = timedelta(0)
    paused: BatchCommand | None = None
    stopped: BatchCommand | None = None


class SurveyStep(Wire):
    """The argument of `survey_parked`: count the parked calls of a selection."""

    selection: ParkedSelection


class Survey(Wire):
    """The result of `survey_parked`.

    Attributes:
        as_of: the ledger's time of the count.
    """

    total: int
    as_of: AwareDatetime


class ReprocessPageStep(Wire):
    """The argument of `reprocess_page`: resume parked calls for a while.

    Attributes:
        batch: the batch's name in the ledger and in calls; the same in all of its runs.
        as_of: calls that were parked later are not selected.
        gentle_for: how long the ramp has been running.
        closed: why nothing could be sent last time; the page waits until that changes.
        is_last: select no more calls, and release those that were not resumed yet.
        known: what the batch shows; the page returns soon after it has changed.
        pause: before the first call is resumed, so that pages together keep to the rate.
    """

    batch: str
    request: BatchRequest
    as_of: AwareDatetime
    gentle_for: timedelta = timedelta(0)
    closed: str | None = None
    is_last: bool = False
    known: BatchCounts = BatchCounts()
    pause: timedelta = timedelta(0)


class ReprocessPageResult(Wire):
    """The result of `reprocess_page`.

    Attributes:
        counts: with those that are left if it is the last page.
        is_done: no call is left to resume or in progress.
        closed: why nothing may be sent to the provider now.
        pause: of the next page.
    """

    counts: BatchCounts
    is_done: bool = False
    closed: str | None = None
    pause: timedelta = timedelta(0)
