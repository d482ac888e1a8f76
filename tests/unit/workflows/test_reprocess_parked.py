"""A batch without an engine: its ramp, its details, and when its provider is unavailable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ackbridge.contracts.batches import (
    BatchCommand,
    BatchContinuation,
    BatchCounts,
    BatchProgress,
    BatchRequest,
    BatchState,
    ParkedSelection,
    Ramp,
    ReprocessPageResult,
    Survey,
)
from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import (
    WHOLE_PROVIDER,
    ControlSnapshot,
    FlagOverride,
    FlagState,
    FlagValue,
    IntegrationFlags,
)
from ackbridge.control.admission import availability
from workflows.reprocess_parked.batch import BatchRun
from workflows.reprocess_parked.ui_details import render

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RAMP = Ramp(start=1, over=timedelta(minutes=10))
REQUEST = BatchRequest(selection=ParkedSelection(provider="acme"), rate=11, ramp=RAMP, by="ops")


class Harness:
    """A batch with a clock that tests move."""

    def __init__(self, state: BatchContinuation | None = None) -> None:
        self.now = NOW
        self.shown: list[BatchProgress] = []
        self.batch = BatchRun(
            REQUEST, "batch.acme:1", "0123456789", lambda: self.now, self.shown.append, state
        )


def snapshot(breaker: BreakerState = BreakerState.CLOSED, **flags: FlagState) -> ControlSnapshot:
    """A control with overridden flags."""
    settings = {
        operation.removeprefix("all"): FlagOverride(state=state, by="ann", reason="-", at=NOW)
        for operation, state in flags.items()
    }
    return ControlSnapshot(
        provider="acme",
        version=1,
        at=NOW,
        flags={"prod": settings},
        breaker=BreakerStatus(state=breaker, since=NOW, reason="60 % of 50 failed"),
    )


@pytest.mark.parametrize(("minutes", "rate"), [(-1, 1), (0, 1), (5, 6), (10, 11), (99, 11)])
def test_ramp_rises_evenly(minutes: float, rate: float) -> None:
    """From the start rate to the full rate, where it stays."""
    assert RAMP.rate(timedelta(minutes=minutes), 11) == pytest.approx(rate)


def test_ramp_never_exceeds_the_full_rate() -> None:
    """Even with a higher start rate."""
    assert RAMP.rate(timedelta(0), 0.5) == 0.5


def test_ramp_restarts_after_closed_provider_and_pause() -> None:
    """A provider that recovers, and a resumed batch, start with a low rate."""
    harness = Harness()
    harness.batch.surveyed(Survey(total=9, as_of=NOW))
    harness.now += timedelta(minutes=10)
    assert harness.batch.page_step().gentle_for == timedelta(minutes=10)
    harness.batch.page_done(
        ReprocessPageResult(counts=BatchCounts(), closed="until the breaker closes")
    )
    assert harness.batch.page_step().closed == "until the breaker closes"
    assert harness.shown[-1].state is BatchState.WAITING
    harness.now += timedelta(minutes=5)
    harness.batch.page_done(ReprocessPageResult(counts=BatchCounts()))
    assert harness.batch.page_step().gentle_for == timedelta(0)
    harness.now += timedelta(minutes=5)
    command = BatchCommand(by="ann", reason="a moment")
    harness.batch.pause(command)
    harness.batch.resume(command)
    assert harness.batch.page_step().gentle_for == timedelta(0)


def test_continue_as_new_keeps_the_state() -> None:
    """The next run has the same next page."""
    first = Harness()
    first.batch.surveyed(Survey(total=9, as_of=NOW))
    first.batch.page_done(
        ReprocessPageResult(counts=BatchCounts(selected=3), closed="until it is switched on")
    )
    first.batch.pause(BatchCommand(by="ann", reason="a moment"))
    state = BatchContinuation.model_validate_json(first.batch.state.model_dump_json())
    second = Harness(state)
    assert second.batch.page_step() == first.batch.page_step()
    assert (second.batch.state.paused, second.batch.is_surveyed) == (first.batch.state.paused, True)


def test_batches_with_one_workflow_id_have_different_names() -> None:
    """Schedules use an id again, and the calls of the two batches are kept apart."""
    one, other = (
        BatchRun(REQUEST, "batch.acme:1", chain, lambda: NOW, lambda _: None).page_step().batch
        for chain in ("aaaaaaaa-1", "bbbbbbbb-1")
    )
    assert one != other


def test_resume_without_a_pause_is_rejected() -> None:
    """The progress shows the error."""
    harness = Harness()
    harness.batch.resume(BatchCommand(by="ann", reason="-"))
    assert harness.shown[-1].last_error == "resume by ann: the batch is not paused"


def test_details_of_a_batch() -> None:
    """A progress bar, who requested it, its rate, and the results of its calls."""
    harness = Harness()
    harness.batch.surveyed(Survey(total=4, as_of=NOW))
    harness.batch.page_done(
        ReprocessPageResult(counts=BatchCounts(selected=3, signalled=3, completed=1, failed=1))
    )
    harness.batch.page_step()
    details = render(harness.shown[-1])
    assert "█" * 15 + "░" * 15 + "` 2 of 4" in details
    assert "requested by ops" in details
    assert "at most 1 calls per second" in details
    harness.batch.end()
    assert "█" * 30 in render(harness.batch.state.progress)


def test_the_numbers_of_a_completed_batch_add_up() -> None:
    """Calls that were resumed by another batch meanwhile are skipped; others may be left."""
    harness = Harness()
    harness.batch.surveyed(Survey(total=4, as_of=NOW))
    counts = BatchCounts(selected=1, signalled=1, completed=1, left=2)
    harness.batch.page_done(ReprocessPageResult(counts=counts, is_done=True))
    harness.batch.end()
    done = harness.shown[-1]
    assert (done.total, done.counts.skipped, done.counts.done + done.counts.left) == (4, 1, 4)
    assert done.why == (
        "1 had ended or were resumed otherwise; 2 left, their operation is switched off"
    )
    assert "still parked 2" in render(done)


def test_the_total_is_never_less_than_what_was_selected() -> None:
    """Calls may become available after the batch has counted."""
    harness = Harness()
    harness.batch.surveyed(Survey(total=0, as_of=NOW))
    harness.batch.page_done(ReprocessPageResult(counts=BatchCounts(selected=2)))
    assert harness.shown[-1].total == 2


def test_pages_together_keep_to_the_rate() -> None:
    """A page that is over before its next call leaves the rest of the pause to the next page."""
    harness = Harness()
    harness.batch.surveyed(Survey(total=4, as_of=NOW))
    pause = timedelta(seconds=3)
    known = BatchCounts(selected=1, signalled=1)
    harness.batch.page_done(ReprocessPageResult(counts=known, pause=pause))
    step = harness.batch.page_step()
    assert (step.pause, step.known) == (pause, known)


def test_open_or_half_open_breaker_makes_a_provider_unavailable() -> None:
    """Batches send nothing until the breaker closes."""
    files = IntegrationFlags()
    assert availability(snapshot(), files, "prod").unavailable_until is None
    assert availability(None, files, "prod").unavailable_until is None
    half_open = availability(snapshot(BreakerState.HALF_OPEN), files, "prod").unavailable_until
    assert half_open == "until the breaker closes, which is half-open: 60 % of 50 failed"
    assert availability(snapshot(BreakerState.OPEN), files, "prod").unavailable_until is not None


def test_flag_that_is_off_makes_provider_or_operation_unavailable() -> None:
    """An override goes before the file; other environments do not matter."""
    off = FlagValue(state=FlagState.OFF)
    files = IntegrationFlags(flags={"prod": {WHOLE_PROVIDER: off, "refund": off, "order": off}})
    until = availability(None, files, "prod").unavailable_until
    assert until == "until the provider is switched on in prod"
    assert availability(snapshot(all=FlagState.ON), files, "prod").unavailable_until is None
    assert availability(None, files, "dev").unavailable_until is None
    overridden = snapshot(order=FlagState.ON, quote=FlagState.OFF)
    disabled = availability(overridden, files, "prod").disabled_operations
    assert disabled == {"refund", "quote"}
