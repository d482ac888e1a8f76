"""observe: resuming after another attempt, and retrying without backoff."""

from __future__ import annotations

from datetime import timedelta

from ackbridge.contracts.breaker import BreakerState, BreakerStatus, SendRate
from ackbridge.contracts.control import ObserveStep
from ackbridge.contracts.steps import StepFailure
from ackbridge.stats.counters import Count
from activities.observe import RETRY_DELAY, Observe

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
