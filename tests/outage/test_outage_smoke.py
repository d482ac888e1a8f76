"""A small outage, result as `make outage` plays a large one, and checks that see what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest

from .checks import check
from .simulation import Options, OutageResult, simulate

pytestmark = [pytest.mark.slow, pytest.mark.extended]


@pytest.fixture(scope="module")
async def result(tmp_path_factory: pytest.TempPathFactory) -> OutageResult:
    """Thirty calls, parked for hours."""
    options = Options(calls=30, held=timedelta(seconds=5))
    return await simulate(options, tmp_path_factory.mktemp("outage"), print)


def test_every_subscriber_is_notified_of_the_end_once(result: OutageResult) -> None:
    """Thirty calls fail, are parked for hours, and complete late, each once."""
    assert check(result) == []
    assert result.failed_requests > 0


def without_an_outcome(result: OutageResult, call_id: str) -> OutageResult:
    """A caller that got no outcome."""
    kept = {one: result.outcomes[one] for one in result.outcomes if one != call_id}
    return dataclasses.replace(result, outcomes=kept)


def worked_twice(result: OutageResult, call_id: str) -> OutageResult:
    """A provider that worked twice."""
    seen = result.seen[call_id]
    twice = dataclasses.replace(seen, works=seen.works * 2)
    return dataclasses.replace(result, seen=result.seen | {call_id: twice})


def unacknowledged(result: OutageResult, call_id: str) -> OutageResult:
    """A work that was never acknowledged."""
    seen = result.seen[call_id]
    works = tuple(dataclasses.replace(work, verdicts=()) for work in seen.works)
    silent = dataclasses.replace(seen, works=works)
    return dataclasses.replace(result, seen=result.seen | {call_id: silent})


def not_notified(result: OutageResult, call_id: str) -> OutageResult:
    """A subscriber that was notified of the delay only."""
    notices = result.notices[call_id][:-1]
    return dataclasses.replace(result, notices=result.notices | {call_id: notices})


def too_short(result: OutageResult, call_id: str) -> OutageResult:
    """A call that was answered before its hours were over."""
    waits = result.parked_for | {call_id: timedelta(days=365)}
    return dataclasses.replace(result, parked_for=waits)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_an_outcome, "its caller got None"),
        (worked_twice, "the provider worked 2 times"),
        (unacknowledged, "is completed, acknowledged as ()"),
        (not_notified, "its subscriber got ['call.delayed']"),
        (too_short, "shorter than it was parked"),
    ],
)
def test_checks_find_the_violation(
    result: OutageResult, spoil: Callable[[OutageResult, str], OutageResult], says: str
) -> None:
    """What is wrong with one call is reported, and nothing about other calls."""
    call_id = result.requests[7].call_id
    wrong = check(spoil(result, call_id))
    assert len(wrong) == 1
    assert wrong[0].startswith(f"{call_id}: ")
    assert says in wrong[0]
