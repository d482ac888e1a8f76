"""Checks of an outage: what must hold for each call at its caller, provider and subscriber."""

from __future__ import annotations

from collections.abc import Iterator

from ackbridge.contracts.batches import BatchState
from ackbridge.contracts.calls import OutcomeStatus

from .simulation import COMPLETED_LATE, DELAYED, OutageResult

MAX_PROBES = 10
"""Calls that are resumed before the breaker has closed; they are in no batch."""


def check(result: OutageResult) -> list[str]:
    """All violations, one line each."""
    return [
        *_batches(result),
        *(
            f"{request.call_id}: {problem}"
            for request in result.requests
            for problem in _call(result, request.call_id)
        ),
    ]


def _batches(result: OutageResult) -> Iterator[str]:
    first = result.waiting
    if first is None or first.state is not BatchState.WAITING or first.counts.signalled:
        yield "the batch did not wait for the provider"
    if result.left:
        yield f"{result.left} calls are still parked in the ledger"
    if result.forged:
        yield f"{result.forged} notices came with a bad signature"
    completed = sum(batch.counts.completed for batch in result.batches)
    # Without new calls, parked ones are the probes of the breaker.
    if not 0 <= len(result.requests) - completed <= MAX_PROBES:
        yield f"the batches count {completed} completed calls of {len(result.requests)}"
    for batch in result.batches:
        if batch.state is not BatchState.COMPLETED:
            yield f"a batch ended as {batch.state}: {batch.why}"


def _call(result: OutageResult, call_id: str) -> Iterator[str]:
    yield from _for_its_caller(result, call_id)
    yield from _at_the_provider(result, call_id)
    yield from _at_the_subscriber(result, call_id)


def _for_its_caller(result: OutageResult, call_id: str) -> Iterator[str]:
    outcome = result.outcomes.get(call_id)
    if outcome is None:
        yield f"its caller got {result.raised.get(call_id)!r}"
        return
    if outcome.status is not OutcomeStatus.COMPLETED or not outcome.late:
        yield f"it ended as {outcome.status}, late: {outcome.late}"
    timings = outcome.timings
    if timings.answered_at is None:
        yield "its outcome does not say when it was answered"
    elif timings.answered_at - timings.started_at < result.parked_for[call_id]:
        yield f"it took {timings.answered_at - timings.started_at}, shorter than it was parked"


def _at_the_provider(result: OutageResult, call_id: str) -> Iterator[str]:
    seen = result.seen.get(call_id)
    works = seen.works if seen else ()
    if len(works) != 1:
        yield f"the provider worked {len(works)} times"
    for work in works:
        if work.status != "completed" or work.verdicts != ("success",):
            yield f"the provider's work {work.id} is {work.status}, acknowledged as {work.verdicts}"


def _at_the_subscriber(result: OutageResult, call_id: str) -> Iterator[str]:
    events = [notice.body["type"] for notice in result.notices.get(call_id, [])]
    *before, last = events or [None]
    if last != COMPLETED_LATE or set(before) != {DELAYED}:
        yield f"its subscriber got {events}"
