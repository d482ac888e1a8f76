"""observe: resuming after another attempt, and retrying without backoff."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ackbridge.contracts.breaker import (
    BreakerState,
    BreakerStatus,
    MonitorState,
    OperationMonitor,
    SendRate,
)
from ackbridge.contracts.calls import Stage
from ackbridge.contracts.control import ObserveStep
from ackbridge.contracts.steps import Parking, StepFailure
from ackbridge.stats.counters import Count
from activities.observe import RETRY_DELAY, Observe
from activities.resume_parked import ParkedProbes

from .world import NOW, World, attempt, delay, failed


def step() -> ObserveStep:
    """A healthy provider without a rate limit."""
    breaker = BreakerStatus.initial(NOW)
    return ObserveStep(provider="acme", breaker=breaker, applied=SendRate())


async def report(world: World, worker: str, failures: int) -> None:
    """A worker reports unanswered sends, and dies."""
    counters = world.deps.counters
    counters.worker = worker
    counters.count("acme", "order", Count.CALLS_FAILED, failures)
    buckets = counters.gather(NOW)
    await world.ledger.stats.store(worker, buckets)
    counters.mark_reported(buckets)
    counters._open.clear()


async def test_reports_of_dead_workers_count(world: World) -> None:
    """Two workers reported five failures each: ten in a row, counted once."""
    await report(world, "one", 5)
    await report(world, "two", 5)
    decision = await attempt().run(Observe(world.deps).observe, step())
    assert decision.breaker is not None
    assert decision.breaker.state is BreakerState.OPEN
    assert decision.breaker.reason == "10 calls failed in a row; pause of 30 s"
    assert decision.rate == SendRate(per_second=0)
    assert decision.breakers["order"].state is BreakerState.OPEN
    assert decision.watch is not None
    assert [tally.failed for tally in decision.watch.operations["order"].marks.values()] == [10]


async def test_next_attempt_resumes_from_the_heartbeat(world: World) -> None:
    """Failures are neither counted again nor lost."""
    await report(world, "one", 10)
    first = await attempt().run(Observe(world.deps).observe, step())
    assert first.watch is not None
    again = attempt(2, heartbeat_details=[first.watch.model_dump(mode="json")])
    await report(world, "two", 10)
    second = await again.run(Observe(world.deps).observe, step())
    assert second.breaker is not None
    assert second.watch is not None
    assert [tally.failed for tally in second.watch.operations["order"].marks.values()] == [20]


async def test_retries_have_no_backoff(world: World) -> None:
    """Nobody else monitors the provider meanwhile; here its file is missing."""
    unknown = step().model_copy(update={"provider": "nobody"})
    error = await failed(attempt(30).run(Observe(world.deps).observe, unknown))
    assert error.type == StepFailure.UNAVAILABLE
    assert delay(error) == RETRY_DELAY / timedelta(seconds=1)


async def test_calls_in_quarantine_are_shown_as_they_are_now(world: World) -> None:
    """Whatever the latest recovery has seen."""
    shown = step().model_copy(update={"quarantined": ("acme.order.released",)})
    decision = await attempt().run(Observe(world.deps).observe, shown)
    assert decision.quarantined == ()


async def park(world: World, key: str, reason: str = "breaker_open") -> str:
    """Park a call now."""
    request = world.request(key=key)
    await world.ledger.calls.claim(request, "chain-1")
    parking = Parking(reason=reason, times=1)
    await world.ledger.calls.record_stage(
        request.call_id, Stage.PARKED, "parked", None, parking=parking
    )
    return request.call_id


async def test_parked_calls_are_the_probes_where_there_are_no_others(world: World) -> None:
    """One per two intervals, only what the outage has parked, and no call while others come."""
    every = timedelta(seconds=5)
    half_open = BreakerStatus(
        state=BreakerState.HALF_OPEN,
        since=NOW - 2 * every,
        reason="probing",
        trickle=True,
        probe_every=every,
        opened_at=NOW - timedelta(minutes=1),
    )
    await park(world, "k-0", reason="switched_off")
    call_id = await park(world, "k-1")
    idle = MonitorState()
    probed = step().model_copy(update={"breakers": {"order": half_open}})
    probes = ParkedProbes(world.ledger, probed)
    assert await probes.choose(idle, NOW - timedelta(seconds=1)) == []
    assert await probes.choose(idle, NOW) == [call_id]
    assert await probes.choose(idle, NOW + timedelta(seconds=9)) == []
    assert await probes.choose(idle, NOW + 2 * every) == [call_id], "there is no other"
    other_id = await park(world, "k-2")
    chosen = [await probes.choose(idle, NOW + number * every) for number in (4, 6, 8)]
    assert [other_id] in chosen, "the oldest one may be gone, or not be sent"
    assert [call_id] in chosen
    busy = MonitorState(operations={"order": OperationMonitor(used_at=NOW)})
    assert await ParkedProbes(world.ledger, probed).choose(busy, NOW + every) == []
    later = half_open.model_copy(update={"opened_at": NOW + every})
    other = probed.model_copy(update={"breakers": {"order": later}})
    assert await ParkedProbes(world.ledger, other).choose(idle, NOW) == []


@pytest.mark.parametrize(
    ("provider", "trickle", "own", "is_probed"),
    [
        (BreakerState.HALF_OPEN, True, BreakerState.CLOSED, True),
        (BreakerState.HALF_OPEN, False, BreakerState.HALF_OPEN, False),
        (BreakerState.OPEN, False, BreakerState.HALF_OPEN, False),
        (BreakerState.CLOSED, False, BreakerState.OPEN, False),
        (BreakerState.CLOSED, False, BreakerState.HALF_OPEN, True),
    ],
)
async def test_which_breakers_are_probed_with_parked_calls(
    world: World, provider: BreakerState, trickle: bool, own: BreakerState, is_probed: bool
) -> None:
    """The health request goes first, and nothing is sent while a breaker is open."""
    call_id = await park(world, "k-1")
    began = NOW - timedelta(minutes=1)
    fields = {"since": began, "reason": "r", "opened_at": began}
    probed = step().model_copy(
        update={
            "breaker": BreakerStatus(state=provider, trickle=trickle, **fields),
            "breakers": {"order": BreakerStatus(state=own, trickle=True, **fields)},
        }
    )
    chosen = await ParkedProbes(world.ledger, probed).choose(MonitorState(), NOW)
    assert chosen == ([call_id] if is_probed else [])
