"""Learned deadlines: the rules, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.contracts.breaker import BreakerState, BreakerStatus
from ackbridge.contracts.control import LearnedDeadline
from ackbridge.control.deadlines import DeadlineRules, deadline_for, learn, learn_all, survival
from ackbridge.stats.counters import OperationStats, Timing
from ackbridge.stats.quantile_sketch import ACCURACY, QuantileSketch

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = DeadlineRules(
    initial=timedelta(seconds=30),
    quantile=0.99,
    factor=1.5,
    min_samples=50,
    window=timedelta(hours=1),
    floor=timedelta(seconds=1),
    ceiling=timedelta(minutes=10),
    sample=0.1,
)


def seconds(number: float) -> timedelta:
    """A span."""
    return timedelta(seconds=number)


def seen(
    answers: Mapping[float, int],
    silences: Mapping[float, int] | None = None,
    overdue: Mapping[float, int] | None = None,
) -> OperationStats:
    """So many answers, silences and overdue answers after so many seconds."""
    observed = OperationStats()
    for name, counts in (
        (Timing.ANSWER, answers),
        (Timing.SILENCE, silences or {}),
        (Timing.OVERDUE, overdue or {}),
    ):
        for time, count in counts.items():
            observed.times[name].add(time, count)
    return observed


def learned(observed: OperationStats, rules: DeadlineRules = RULES) -> LearnedDeadline:
    """What is learned; something must be."""
    found = learn(rules, observed, None)
    assert found is not None
    return found


def about(wanted: float) -> object:
    """Within what a sketch is exact to."""
    return pytest.approx(wanted, rel=1.5 * ACCURACY)


def test_the_deadline_is_quantile_times_factor() -> None:
    """It says so, with what it was learned from."""
    found = learned(seen({1.0: 985, 2.8: 15}))
    assert found.deadline.total_seconds() == about(4.2)
    assert found.samples == 1000
    assert found.reason.startswith("learned p99 2.")
    assert found.reason.endswith("× 1.5, 1000 samples")  # noqa: RUF001 -- the sign people write


@given(st.lists(st.floats(min_value=0.01, max_value=500), min_size=50, max_size=300))
def test_without_silences_it_is_the_plain_quantile(times: list[float]) -> None:
    """The estimate for calls that are cut off changes nothing where none is."""
    sketch = QuantileSketch()
    for one in times:
        sketch.add(one)
    found = survival(sketch, QuantileSketch(), QuantileSketch())
    assert found is not None
    assert sketch.quantile(0.99) == pytest.approx(found.quantile(0.99))


def test_too_few_samples_change_nothing() -> None:
    """The initial value holds, or what was learned before."""
    few = seen({1.0: 49})
    before = learned(seen({5.0: 100}))
    assert learn(RULES, few, None) is None
    assert learn(RULES, few, before) is before


def test_what_never_comes_does_not_move_the_deadline() -> None:
    """Silences, heard out by scouts, leave it where the answers put it: far from the ceiling."""
    alone = learned(seen({1.0: 900})).deadline
    with_silence = learned(seen({1.0: 900}, silences={1.5: 270, 30.0: 30})).deadline
    assert alone == with_silence


def test_silence_alone_teaches_nothing() -> None:
    """A provider that answers nobody leaves what was learned before."""
    before = learned(seen({1.0: 100}))
    assert learn(RULES, seen({}, silences={1.5: 500}), before) is before
    assert learn(RULES, seen({1.0: 3}, silences={1.5: 500}), before) is before


def test_scouts_speak_for_everybody_who_gave_up() -> None:
    """A provider that has become slow is seen by those who wait, and the deadline rises."""
    found = learned(seen({1.0: 900, 6.0: 10}, silences={1.5: 90}))
    assert found.deadline.total_seconds() == about(9.0)


def test_one_slow_answer_does_not_speak_for_all_silences() -> None:
    """A single answer later than all others is no proof that the silent ones would have come."""
    found = learned(seen({1.0: 980, 200.0: 1}, silences={1.5: 19}))
    assert found.deadline.total_seconds() == about(1.5)


def test_late_answers_let_it_rise() -> None:
    """Where late answers are heard, they count, and what stays silent counts as listened to."""
    found = learned(seen({1.0: 900, 6.0: 50}, silences={1.5: 50}, overdue={6.0: 50}))
    assert found.deadline.total_seconds() == about(9.0)


def test_a_late_answer_does_not_speak_for_the_silent_ones() -> None:
    """They were listened to as long as it took, and did not come."""
    found = learned(seen({1.0: 900, 6.0: 3}, silences={1.5: 97}, overdue={6.0: 3}))
    assert found.deadline.total_seconds() == about(1.5)


@given(
    st.dictionaries(st.floats(0.001, 5000), st.integers(1, 500), min_size=1, max_size=20),
    st.dictionaries(st.floats(0.001, 5000), st.integers(1, 500), max_size=20),
)
def test_it_stays_between_floor_and_ceiling(
    answers: dict[float, int], silences: dict[float, int]
) -> None:
    """Whatever was observed; and scouts wait as long as everybody at least."""
    found = learn(RULES, seen(answers, silences), None)
    if found is not None:
        assert RULES.floor <= found.deadline <= RULES.ceiling
        assert found.scout_deadline is not None
        assert found.deadline <= found.scout_deadline <= RULES.ceiling
        assert RULES.sample <= found.scouts <= 0.25


def test_floor_and_ceiling_are_named() -> None:
    """Somebody who looks for the reason finds it."""
    assert learned(seen({0.1: 100})).reason.endswith("raised to the floor")
    assert learned(seen({500.0: 100})).reason.endswith("lowered to the ceiling")


def test_a_small_change_is_none() -> None:
    """What changes becomes history: a deadline that is about the same stays the very same."""
    before = learned(seen({2.0: 1000}))
    assert learn(RULES, seen({2.1: 1000}), before) is before
    after = learn(RULES, seen({3.0: 1000}), before)
    assert after is not None
    assert after.deadline.total_seconds() == about(4.5)


def test_the_more_is_silent_the_more_scouts_there_are() -> None:
    """Up to a quarter; and when most is silent they wait up to the ceiling."""
    quiet = learned(seen({1.0: 900}, silences={1.5: 10}))
    louder = learned(seen({1.0: 900}, silences={1.5: 90}))
    loudest = learned(seen({1.0: 100}, silences={1.5: 900}))
    assert quiet.scouts == 0.1
    assert louder.scouts == pytest.approx(0.18, abs=0.01)
    assert loudest.scouts == 0.25
    assert quiet.scout_deadline == RULES.initial
    assert loudest.scout_deadline == RULES.ceiling


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_learning_freezes_while_the_breaker_is_not_closed(state: BreakerState) -> None:
    """What a provider in trouble does is nothing to learn from."""
    observed = {"order": seen({2.0: 1000})}
    breaker = BreakerStatus(state=state, since=NOW, reason="errors")
    closed = BreakerStatus(state=BreakerState.CLOSED, since=NOW, reason="well")
    assert learn_all({"order": RULES}, observed, {}, breaker) == {}
    assert learn_all({"order": RULES}, observed, {}, closed).keys() == {"order"}


def test_only_what_changes_is_answered() -> None:
    """An operation without news, or without rules, is left out."""
    closed = BreakerStatus(state=BreakerState.CLOSED, since=NOW, reason="well")
    observed = {"order": seen({2.0: 1000}), "quote": seen({9.0: 1000})}
    first = learn_all({"order": RULES}, observed, {}, closed)
    assert learn_all({"order": RULES}, observed, first, closed) == {}


def test_a_call_says_why_it_waits_so_long() -> None:
    """What is configured, what was learned, or that it is a scout."""
    known = learned(seen({2.8: 812}))
    assert deadline_for(RULES, None, seconds(30), 0.5) == (
        seconds(30),
        "30 s (configured initial value)",
    )
    assert deadline_for(None, known, seconds(30), 0.5)[0] == seconds(30)
    deadline, why = deadline_for(RULES, known, seconds(30), 0.5)
    assert deadline == known.deadline
    assert why.startswith("4.")
    assert "s: learned p99 2." in why
    longer, why = deadline_for(RULES, known, seconds(30), 0.05)
    assert longer == seconds(30)
    assert why.startswith("30 s: 10% of calls wait longer than 4.")


def test_the_file_has_the_last_word() -> None:
    """A floor, a ceiling or no scouts: they hold for what was learned before they were written."""
    known = learned(seen({2.8: 812}))
    higher = replace(RULES, floor=seconds(8))
    lower = replace(RULES, ceiling=seconds(3))
    alone = replace(RULES, sample=0.0)
    assert deadline_for(higher, known, seconds(30), 0.5)[0] == seconds(8)
    assert deadline_for(lower, known, seconds(3), 0.05)[0] == seconds(3)
    assert deadline_for(alone, known, seconds(30), 0.0)[0] == known.deadline
    assert learned(seen({2.8: 812}), alone).scouts == 0.0
