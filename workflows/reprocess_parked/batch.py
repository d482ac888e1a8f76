"""One batch, whatever hosts it: where it is, what it was told, and what it asks for next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.batches import (
        BatchCommand,
        BatchContinuation,
        BatchProgress,
        BatchRequest,
        BatchState,
        ReprocessPageResult,
        ReprocessPageStep,
        Survey,
        SurveyStep,
    )


class Batch:
    """The state of one batch. The host feeds it with orders and pages, and shows its progress."""

    def __init__(
        self,
        request: BatchRequest,
        batch_id: str,
        run_chain: str,
        clock: Callable[[], datetime],
        show: Callable[[BatchProgress], None],
        memory: BatchContinuation | None = None,
    ) -> None:
        """Take a batch up.

        Args:
            batch_id: the workflow's id, which may be used again after the end.
            run_chain: the id of the first run, which is not.
            memory: of the run that this one continues.
        """
        self.request = request
        self._name = f"{batch_id}#{run_chain[:8]}"[-200:]
        self._clock = clock
        self._show = show
        self._progress = (
            memory.progress
            if memory
            else BatchProgress(
                batch=batch_id,
                provider=request.selection.provider,
                state=BatchState.WAITING,
                since=clock(),
                started_at=clock(),
                by=request.by,
            )
        )
        self._as_of = memory.as_of if memory else None
        self._gentle_since = memory.gentle_since if memory else None
        self._closed = memory.closed if memory else None
        self.paused = memory.paused if memory else None
        self.stopped = memory.stopped if memory else None

    # What it is told

    def pause(self, order: BatchCommand) -> None:
        """Take up no more calls until somebody resumes it."""
        if self.paused is None:
            self.paused = order

    def resume(self, order: BatchCommand) -> None:
        """Go on after a pause, gently again."""
        if self.paused is None:
            self.reject(f"resume by {order.by}: the batch is not paused")
        else:
            self.paused = self._closed = None
            self._gentle_since = self._clock()

    def stop(self, order: BatchCommand) -> None:
        """End before its time."""
        if self.stopped is None:
            self.stopped = order

    def reject(self, problem: str) -> None:
        """Keep what was wrong with something it was sent."""
        self._change(last_error=problem)

    def surveyed(self, survey: Survey) -> None:
        """It knows what there is to do, and begins."""
        self._as_of = survey.as_of
        self._gentle_since = self._clock()
        self._change(total=survey.total)

    def take(self, page: ReprocessPageResult) -> None:
        """See how far a page has come."""
        if self._closed is not None and page.closed is None:
            self._gentle_since = self._clock()
        self._closed = page.closed
        self._change(counts=page.counts)

    # What it is asked

    @property
    def progress(self) -> BatchProgress:
        """Where it is."""
        return self._progress

    @property
    def is_surveyed(self) -> bool:
        """Whether it has begun."""
        return self._as_of is not None

    def is_interrupted(self) -> bool:
        """Whether somebody wants it to take up no more calls."""
        return self.paused is not None or self.stopped is not None

    def waits_for_its_time(self) -> timedelta | None:
        """How long it has to wait before it begins; None: it may begin."""
        start = self.request.not_before
        left = start - self._clock() if start and not self.is_surveyed else timedelta(0)
        if left <= timedelta(0):
            return None
        self._enter(BatchState.WAITING, f"for its time, {start:%Y-%m-%d %H:%M:%S} UTC")
        return left

    def survey_step(self) -> SurveyStep:
        """What to ask first."""
        return SurveyStep(selection=self.request.selection)

    def page_step(self, *, is_last: bool = False) -> ReprocessPageStep:
        """The next page: take calls up for a while."""
        gentle_for = self._clock() - (self._gentle_since or self._clock())
        if self._closed is not None:
            self._enter(BatchState.WAITING, self._closed)
        else:
            self._enter(BatchState.RUNNING, None, self._rate(gentle_for))
        return ReprocessPageStep(
            batch=self._name,
            request=self.request,
            as_of=self._as_of or self._clock(),
            gentle_for=gentle_for,
            closed=self._closed,
            is_last=is_last,
        )

    def rests(self) -> None:
        """It is paused."""
        if self.paused is not None:
            self._enter(BatchState.PAUSED, f"by {self.paused.by}: {self.paused.reason}")

    def end(self) -> BatchProgress:
        """It is over."""
        if self.stopped is not None:
            self._enter(BatchState.STOPPED, f"by {self.stopped.by}: {self.stopped.reason}")
        else:
            self._enter(BatchState.COMPLETED, None)
        return self._progress

    def memory(self) -> BatchContinuation:
        """For the run that continues this one."""
        return BatchContinuation(
            progress=self._progress,
            as_of=self._as_of,
            gentle_since=self._gentle_since,
            closed=self._closed,
            paused=self.paused,
            stopped=self.stopped,
        )

    def show(self) -> None:
        """Tell whoever looks."""
        self._show(self._progress)

    def _rate(self, gentle_for: timedelta) -> float:
        ramp, full = self.request.ramp, self.request.rate
        return ramp.rate(gentle_for, full) if ramp else full

    def _enter(self, state: BatchState, why: str | None, rate: float | None = None) -> None:
        before = self._progress
        since = before.since if (before.state, before.why) == (state, why) else self._clock()
        self._change(state=state, why=why, since=since, calls_per_second=rate)

    def _change(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)
        self.show()
