"""What must hold after an outage, call by call, from what three sides have seen of it."""

from __future__ import annotations

from collections.abc import Iterator

from ackbridge.contracts.batches import BatchState
from ackbridge.contracts.calls import OutcomeStatus

from .playing import COMPLETED_LATE, DELAYED, Played


def check(played: Played) -> list[str]:
    """Everything that is not as it must be, one line each."""
    return [
        *_batches(played),
        *(
            f"{request.call_id}: {problem}"
            for request in played.requests
            for problem in _call(played, request.call_id)
        ),
    ]


def _batches(played: Played) -> Iterator[str]:
    first = played.waiting
    if first is None or first.state is not BatchState.WAITING or first.counts.signalled:
        yield "the batch did not wait for the provider"
    if played.left:
        yield f"{played.left} calls are still parked in the ledger"
    if played.forged:
        yield f"{played.forged} notices came with a bad signature"
    completed = sum(batch.counts.completed for batch in played.batches)
    if completed != len(played.requests):
        yield f"the batches count {completed} completed calls of {len(played.requests)}"
    for batch in played.batches:
        if batch.state is not BatchState.COMPLETED:
            yield f"a batch ended as {batch.state}: {batch.why}"


def _call(played: Played, call_id: str) -> Iterator[str]:
    yield from _for_its_caller(played, call_id)
    yield from _at_the_provider(played, call_id)
    yield from _at_the_subscriber(played, call_id)


def _for_its_caller(played: Played, call_id: str) -> Iterator[str]:
    outcome = played.outcomes.get(call_id)
    if outcome is None:
        yield f"its caller got {played.raised.get(call_id)!r}"
        return
    if outcome.status is not OutcomeStatus.COMPLETED or not outcome.late:
        yield f"it ended as {outcome.status}, late: {outcome.late}"
    timings = outcome.timings
    if timings.answered_at is None:
        yield "nobody knows when it was answered"
    elif timings.answered_at - timings.started_at < played.parked_for[call_id]:
        yield f"it took {timings.answered_at - timings.started_at}, shorter than it was parked"


def _at_the_provider(played: Played, call_id: str) -> Iterator[str]:
    seen = played.seen.get(call_id)
    works = seen.works if seen else ()
    if len(works) != 1:
        yield f"the provider worked {len(works)} times"
    for work in works:
        if work.status != "completed" or work.verdicts != ("success",):
            yield f"the provider's work {work.id} is {work.status}, told {work.verdicts}"


def _at_the_subscriber(played: Played, call_id: str) -> Iterator[str]:
    events = [letter.body["type"] for letter in played.letters.get(call_id, [])]
    *before, last = events or [None]
    if last != COMPLETED_LATE or set(before) != {DELAYED}:
        yield f"its subscriber heard {events}"
