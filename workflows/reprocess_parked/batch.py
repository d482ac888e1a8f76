"""The state of one batch, independent of its host: progress, commands and the next step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.batches import (
        BatchCommand,
        BatchContinuation,
        BatchCounts,
        BatchProgress,
        BatchRequest,
        BatchState,
        ReprocessPageResult,
        ReprocessPageStep,
        Survey,
        SurveyStep,
    )


class BatchRun:
    """One batch; the host passes it commands and results, and shows its progress.

    Attributes:
        state: everything that the next run has to know, with the commands in effect.
    """

    def __init__(
        self,
        request: BatchRequest,
        batch_id: str,
        run_chain: str,
        clock: Callable[[], datetime],
        show: Callable[[BatchProgress], None],
        state: BatchContinuation | None = None,
    ) -> None:
        """Start a batch, or continue one; `run_chain` is its first run's id, which is used once."""
        self.request = request
        # The name under which the ledger knows the batch.
        self._name = f"{batch_id}#{run_chain[:8]}"[-200:]
        self._now = clock
        self._show = show
        if state is None:
            progress = BatchProgress(
                batch=batch_id,
                provider=request.selection.provider,
                state=BatchState.WAITING,
                since=clock(),
                started_at=clock(),
                by=request.by,
            )
            state = BatchContinuation(progress=progress)
        self.state = state

    # Commands

    def pause(self, command: BatchCommand) -> None:
        if self.state.paused is None:
            self._set(paused=command)

    def resume(self, command: BatchCommand) -> None:
        """Continue after a pause, from the ramp's start."""
        if self.state.paused is None:
            self.reject(f"resume by {command.by}: the batch is not paused")
        else:
            self._set(paused=None, closed=None, gentle_since=self._now())

    def stop(self, command: BatchCommand) -> None:
        if self.state.stopped is None:
            self._set(stopped=command)

    def reject(self, problem: str) -> None:
        self._update(last_error=problem)

    @property
    def is_interrupted(self) -> bool:
        return self.state.paused is not None or self.state.stopped is not None

    # Steps and their results

    def wait_before_start(self) -> timedelta | None:
        """How long to wait for `not_before`; None to start now."""
        start = self.request.not_before
        left = start - self._now() if start and not self.is_surveyed else timedelta(0)
        if left <= timedelta(0):
            return None
        self._enter(BatchState.WAITING, f"starts at {start:%Y-%m-%d %H:%M:%S} UTC")
        return left

    @property
    def is_surveyed(self) -> bool:
        """Whether the batch has started."""
        return self.state.as_of is not None

    def survey_step(self) -> SurveyStep:
        return SurveyStep(selection=self.request.selection)

    def surveyed(self, survey: Survey) -> None:
        self._set(as_of=survey.as_of, gentle_since=self._now())
        self._update(total=survey.total)

    def page_step(self, *, is_last: bool = False) -> ReprocessPageStep:
        state, now = self.state, self._now()
        ramp_elapsed = now - (state.gentle_since or now)
        if state.closed is not None:
            self._enter(BatchState.WAITING, state.closed)
        else:
            ramp, full_rate = self.request.ramp, self.request.rate
            rate = ramp.rate(ramp_elapsed, full_rate) if ramp else full_rate
            self._enter(BatchState.RUNNING, None, rate)
        return ReprocessPageStep(
            batch=self._name,
            request=self.request,
            as_of=state.as_of or now,
            gentle_for=ramp_elapsed,
            closed=state.closed,
            is_last=is_last,
            known=state.progress.counts,
            pause=state.pause,
        )

    def page_done(self, page: ReprocessPageResult, *, is_last: bool = False) -> None:
        if self.state.closed is not None and page.closed is None:
            self._set(gentle_since=self._now())
        self._set(closed=page.closed, pause=page.pause)
        counts = page.counts
        total = max(self.state.progress.total or 0, counts.selected + counts.left)
        if page.is_done or is_last:
            # The others have ended meanwhile, or were resumed by somebody else.
            skipped = counts.skipped + total - counts.selected - counts.left
            counts = counts.model_copy(update={"skipped": skipped})
        self._update(counts=counts, total=total)

    def enter_pause(self) -> None:
        if (paused := self.state.paused) is not None:
            self._enter(BatchState.PAUSED, f"by {paused.by}: {paused.reason}")

    def end(self) -> None:
        if (stopped := self.state.stopped) is not None:
            self._enter(BatchState.STOPPED, f"by {stopped.by}: {stopped.reason}")
        else:
            self._enter(BatchState.COMPLETED, _describe_others(self.state.progress.counts))

    def _enter(self, state: BatchState, why: str | None, rate: float | None = None) -> None:
        before = self.state.progress
        since = before.since if (before.state, before.why) == (state, why) else self._now()
        self._update(state=state, why=why, since=since, calls_per_second=rate)

    def _update(self, **changes: object) -> None:
        progress = self.state.progress.model_copy(update=changes)
        self._set(progress=progress)
        self._show(progress)

    def _set(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)


def _describe_others(counts: BatchCounts) -> str | None:
    """What became of the calls that a completed batch has not resumed."""
    parts = []
    if counts.skipped:
        parts.append(f"{counts.skipped} had ended or were resumed otherwise")
    if counts.left:
        parts.append(f"{counts.left} left, their operation is switched off")
    return "; ".join(parts) or None
