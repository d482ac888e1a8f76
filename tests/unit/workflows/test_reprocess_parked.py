"""A batch without an engine: its ramp, its story, and what closes a provider to it."""

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
from workflows.reprocess_parked.batch import Batch
from workflows.reprocess_parked.ui_details import tell_batch

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RAMP = Ramp(start=1, over=timedelta(minutes=10))
REQUEST = BatchRequest(selection=ParkedSelection(provider="acme"), rate=11, ramp=RAMP, by="ops")


class Staged:
    """A batch with a clock that is moved by hand."""

    def __init__(self, memory: BatchContinuation | None = None) -> None:
        self.now = NOW
        self.shown: list[BatchProgress] = []
        self.batch = Batch(
            REQUEST, "batch.acme:1", "0123456789", lambda: self.now, self.shown.append, memory
        )


def snapshot(breaker: BreakerState = BreakerState.CLOSED, **flags: FlagState) -> ControlSnapshot:
    """A control where an operator has spoken."""
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
def test_a_ramp_rises_evenly(minutes: float, rate: float) -> None:
    """From its start to the full rate, and stays there."""
    assert RAMP.rate(timedelta(minutes=minutes), 11) == pytest.approx(rate)


def test_a_ramp_never_exceeds_the_full_rate() -> None:
    """Whatever it says it starts with."""
    assert RAMP.rate(timedelta(0), 0.5) == 0.5


def test_the_ramp_begins_anew_after_the_provider_was_closed() -> None:
    """Whoever has just come back is not met with the full rate; nor after a pause."""
    staged = Staged()
    staged.batch.surveyed(Survey(total=9, as_of=NOW))
    staged.now += timedelta(minutes=10)
    assert staged.batch.page_step().gentle_for == timedelta(minutes=10)
    staged.batch.take(ReprocessPageResult(counts=BatchCounts(), closed="until the breaker closes"))
    assert staged.batch.page_step().closed == "until the breaker closes"
    assert staged.shown[-1].state is BatchState.WAITING
    staged.now += timedelta(minutes=5)
    staged.batch.take(ReprocessPageResult(counts=BatchCounts()))
    assert staged.batch.page_step().gentle_for == timedelta(0)
    staged.now += timedelta(minutes=5)
    order = BatchCommand(by="ann", reason="a moment")
    staged.batch.pause(order)
    staged.batch.resume(order)
    assert staged.batch.page_step().gentle_for == timedelta(0)


def test_a_batch_takes_everything_along_when_it_continues() -> None:
    """The next run asks for the very page that this one would have asked for."""
    first = Staged()
    first.batch.surveyed(Survey(total=9, as_of=NOW))
    first.batch.take(
        ReprocessPageResult(counts=BatchCounts(selected=3), closed="until it is switched on")
    )
    first.batch.pause(BatchCommand(by="ann", reason="a moment"))
    memory = BatchContinuation.model_validate_json(first.batch.memory().model_dump_json())
    second = Staged(memory)
    assert second.batch.page_step() == first.batch.page_step()
    assert (second.batch.paused, second.batch.is_surveyed) == (first.batch.paused, True)


def test_the_names_of_two_batches_with_one_id_differ() -> None:
    """A schedule or a drain may use its id again, and its calls are not the old one's."""
    one, other = (
        Batch(REQUEST, "batch.acme:1", chain, lambda: NOW, lambda _: None).page_step().batch
        for chain in ("aaaaaaaa-1", "bbbbbbbb-1")
    )
    assert one != other


def test_a_resume_without_a_pause_says_so() -> None:
    """It is kept as the last trouble, for whoever looks."""
    staged = Staged()
    staged.batch.resume(BatchCommand(by="ann", reason="-"))
    assert staged.shown[-1].last_error == "resume by ann: the batch is not paused"


def test_the_story_of_a_batch() -> None:
    """A bar, who wanted it, how fast it may go, and what has become of its calls."""
    staged = Staged()
    staged.batch.surveyed(Survey(total=4, as_of=NOW))
    staged.batch.take(
        ReprocessPageResult(counts=BatchCounts(selected=3, signalled=3, completed=1, failed=1))
    )
    staged.batch.page_step()
    told = tell_batch(staged.shown[-1])
    assert "█" * 15 + "░" * 15 + "` 2 of 4" in told
    assert "wanted by ops" in told
    assert "at most 1 calls per second" in told
    assert "█" * 30 in tell_batch(staged.batch.end())


def test_an_open_or_half_open_breaker_closes_a_provider() -> None:
    """Probing is the breaker's own business."""
    files = IntegrationFlags()
    assert availability(snapshot(), files, "prod").unavailable_until is None
    assert availability(None, files, "prod").unavailable_until is None
    half_open = availability(snapshot(BreakerState.HALF_OPEN), files, "prod").unavailable_until
    assert half_open == "until the breaker closes, which is half-open: 60 % of 50 failed"
    assert availability(snapshot(BreakerState.OPEN), files, "prod").unavailable_until is not None


def test_flags_that_are_off_close_a_provider_or_an_operation() -> None:
    """An operator's word goes before the file's; other environments do not matter."""
    off = FlagValue(state=FlagState.OFF)
    files = IntegrationFlags(flags={"prod": {WHOLE_PROVIDER: off, "refund": off, "order": off}})
    until = availability(None, files, "prod").unavailable_until
    assert until == "until the provider is switched on in prod"
    assert availability(snapshot(all=FlagState.ON), files, "prod").unavailable_until is None
    assert availability(None, files, "dev").unavailable_until is None
    overridden = snapshot(order=FlagState.ON, quote=FlagState.OFF)
    disabled = availability(overridden, files, "prod").disabled_operations
    assert disabled == {"refund", "quote"}
