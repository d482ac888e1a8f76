"""A batch: which parked calls are taken up again, how fast, and how far it is."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from .limits import MAX_REASON_LENGTH, Actor, Name, ParkedReason, Reason
from .wire import Duration, StrictModel, Wire


class ParkedSelection(StrictModel):
    """Which parked calls; what is left out selects all.

    Attributes:
        reason: why they are parked: `no_response`, `no_receipt`, `provider_failure`,
            `switched_off`, ...
        older_than: parked for at least so long, counted from the last time.
        keys: the callers' own idempotency keys.
        at_most: how many, the oldest first.
    """

    provider: Name
    operation: Name | None = None
    reason: ParkedReason | None = None
    older_than: Duration | None = Field(default=None, ge=timedelta(0))
    keys: tuple[str, ...] = Field(default=(), max_length=1000)
    at_most: int | None = Field(default=None, ge=1)


class Ramp(StrictModel):
    """A gentle start: from a low rate to the full one, evenly.

    Attributes:
        start: calls per second at first.
        over: how long it takes to the full rate.
    """

    start: float = Field(default=1.0, gt=0, le=1000, description="Calls per second at first.")
    over: Duration = Field(
        default=timedelta(minutes=5),
        gt=timedelta(0),
        description="How long it takes to the full rate.",
    )

    def rate(self, elapsed: timedelta, full: float) -> float:
        """Calls per second so long after the start."""
        share = min(max(elapsed / self.over, 0.0), 1.0)
        return min(self.start, full) + (full - min(self.start, full)) * share


class BatchRequest(StrictModel):
    """The one argument of the workflow `ReprocessParked`.

    Attributes:
        selection: which parked calls. Those that are parked once it has begun are left to the next.
        rate: calls per second that are taken up again.
        concurrency: how many of them may be under way at once.
        ramp: a gentle start, and again after every time the provider was closed to it.
        not_before: when it begins; None: at once.
        by, reason: who wants it and why; every call is told by whom.
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
    """Where a batch is.

    Attributes:
        WAITING: for its time, or until its provider is open again; goes on by itself.
        RUNNING: takes calls up, or waits for those under way.
        PAUSED: until somebody resumes it.
        STOPPED: ended before its time; calls under way end by themselves.
        COMPLETED: every selected call was taken up, and has ended or is parked again.
        TERMINATED: somebody has ended its workflow from outside; no batch says so of itself.
    """

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    TERMINATED = "terminated"

    @property
    def is_final(self) -> bool:
        """Whether the batch is over."""
        return self in (BatchState.STOPPED, BatchState.COMPLETED, BatchState.TERMINATED)


class BatchCounts(Wire):
    """What has become of the calls of a batch.

    Attributes:
        selected: taken by the batch so far, each once.
        signalled: told to try again; whatever they have come to since.
        completed, parked_again, failed: of those; cancelled calls count as failed.
        skipped: not told, or not listening: they had ended or gone on by themselves.
    """

    selected: int = 0
    signalled: int = 0
    completed: int = 0
    parked_again: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        """How many are through."""
        return self.completed + self.parked_again + self.failed + self.skipped


class BatchProgress(Wire):
    """The answer of the query `progress`, and the result of the workflow.

    Attributes:
        batch: the workflow's id.
        by: who wanted it.
        why: why it waits, is paused, or was stopped; or what it does now.
        total: how many calls were selected when it began; None before that.
        calls_per_second: how fast it may go at the moment.
        last_error: the last thing that went wrong, a refused signal included.
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
    """What a batch takes along when it continues as new; nobody else may give one.

    Attributes:
        as_of: the ledger's time when it began.
        gentle_since: when the ramp began.
        closed: why nothing could be sent.
        paused, stopped: orders that stand.
    """

    progress: BatchProgress
    as_of: AwareDatetime | None = None
    gentle_since: AwareDatetime | None = None
    closed: str | None = None
    paused: BatchCommand | None = None
    stopped: BatchCommand | None = None


class SurveyStep(Wire):
    """See what there is to do, before a batch begins."""

    selection: ParkedSelection


class Survey(Wire):
    """How many parked calls are selected, as of which moment of the ledger's."""

    total: int
    as_of: AwareDatetime


class ReprocessPageStep(Wire):
    """Take parked calls up again for a while.

    Attributes:
        batch: its name in the ledger and in the calls; the same in every run of the batch.
        as_of: calls that were parked later are left to the next batch.
        gentle_for: how long the ramp has gone on already.
        closed: why nothing could be sent when it was looked at last: wait until that changes.
        is_last: take no more calls, and give back those that were not told yet.
    """

    batch: str
    request: BatchRequest
    as_of: AwareDatetime
    gentle_for: timedelta = timedelta(0)
    closed: str | None = None
    is_last: bool = False


class ReprocessPageResult(Wire):
    """How far the batch is after a page.

    Attributes:
        is_done: nothing is left to take up, and nothing under way.
        closed: why nothing may be sent to the provider now.
    """

    counts: BatchCounts
    is_done: bool = False
    closed: str | None = None
