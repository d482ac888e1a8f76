"""A small outage, played as `make outage` plays a large one, and checks that see what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest

from .checking import check
from .playing import Options, Played, play

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Thirty calls, parked for hours."""
    options = Options(calls=30, held=timedelta(seconds=5))
    return await play(options, tmp_path_factory.mktemp("outage"), print)


def test_everybody_hears_of_the_end_once(played: Played) -> None:
    """Thirty calls are made in vain, wait for hours, and complete late, each once."""
    assert check(played) == []
    assert played.sent_in_vain > 0
    assert sum(batch.counts.completed for batch in played.batches) == 30


def without_an_outcome(played: Played, call_id: str) -> Played:
    """A caller that got no outcome."""
    kept = {one: played.outcomes[one] for one in played.outcomes if one != call_id}
    return dataclasses.replace(played, outcomes=kept)


def worked_twice(played: Played, call_id: str) -> Played:
    """A provider that worked twice."""
    seen = played.seen[call_id]
    twice = dataclasses.replace(seen, works=seen.works * 2)
    return dataclasses.replace(played, seen=played.seen | {call_id: twice})


def unacknowledged(played: Played, call_id: str) -> Played:
    """A work that was never acknowledged."""
    seen = played.seen[call_id]
    works = tuple(dataclasses.replace(work, verdicts=()) for work in seen.works)
    silent = dataclasses.replace(seen, works=works)
    return dataclasses.replace(played, seen=played.seen | {call_id: silent})


def never_told(played: Played, call_id: str) -> Played:
    """A subscriber that has heard of the delay only."""
    letters = played.letters[call_id][:-1]
    return dataclasses.replace(played, letters=played.letters | {call_id: letters})


def too_short(played: Played, call_id: str) -> Played:
    """A call that was answered before its hours were over."""
    waits = played.parked_for | {call_id: timedelta(days=365)}
    return dataclasses.replace(played, parked_for=waits)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_an_outcome, "its caller got None"),
        (worked_twice, "the provider worked 2 times"),
        (unacknowledged, "is completed, told ()"),
        (never_told, "its subscriber heard ['call.delayed']"),
        (too_short, "shorter than it was parked"),
    ],
)
def test_the_check_sees(played: Played, spoil: Callable[[Played, str], Played], says: str) -> None:
    """Whatever one side has not seen of one call is told, and of no other call."""
    call_id = played.requests[7].call_id
    wrong = check(spoil(played, call_id))
    assert len(wrong) == 1
    assert wrong[0].startswith(f"{call_id}: ")
    assert says in wrong[0]
