"""Learned deadlines: each rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.contracts.control import LearnedDeadline
from ackbridge.control.deadlines import (
    CallDeadline,
    DeadlineRules,
    can_extend,
    deadline_for,
    deadline_of_probe,
    extend,
    learn,
    learn_all,
    survival,
)
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
FIXED = replace(RULES, floor=RULES.initial, sample=0.0, is_fixed=True)
"""Of a file that does not say `learn`."""


def seconds(number: float) -> timedelta:
    """A time span."""
    return timedelta(seconds=number)


def stats_with(
    answers: Mapping[float, int],
    silences: Mapping[float, int] | None = None,
    overdue: Mapping[float, int] | None = None,
) -> OperationStats:
    """Statistics with answers, silences and overdue answers: seconds to their number."""
    stats = OperationStats()
    for name, counts in (
        (Timing.ANSWER, answers),
        (Timing.SILENCE, silences or {}),
        (Timing.OVERDUE, overdue or {}),
    ):
        for time, count in counts.items():
            stats.times[name].add(time, count)
    return stats


def learned(stats: OperationStats, rules: DeadlineRules = RULES) -> LearnedDeadline:
    """The learned deadline, which must exist."""
    found = learn(rules, stats, None)
    assert found is not None
    return found


def about(wanted: float) -> object:
    """Equal, within the accuracy of a sketch."""
    return pytest.approx(wanted, rel=1.5 * ACCURACY)


def test_the_deadline_is_quantile_times_factor() -> None:
    """The reason says so, with the number of samples."""
    found = learned(stats_with({1.0: 985, 2.8: 15}))
    assert found.deadline.total_seconds() == about(4.2)
    assert found.samples == 1000
    assert found.reason.startswith("learned p99 2.")
    assert found.reason.endswith("× 1.5, 1000 samples")  # noqa: RUF001 -- the sign people write


@given(st.lists(st.floats(min_value=0.01, max_value=500), min_size=50, max_size=300))
def test_without_silences_it_is_the_plain_quantile(times: list[float]) -> None:
    """Without censored samples the estimate is the plain quantile."""
    sketch = QuantileSketch()
    for one in times:
        sketch.add(one)
    found = survival(sketch, QuantileSketch(), QuantileSketch())
    assert found is not None
    assert sketch.quantile(0.99) == pytest.approx(found.quantile(0.99))


def test_too_few_samples_change_nothing() -> None:
    """The initial or the previously learned value stays."""
    few = stats_with({1.0: 49})
    before = learned(stats_with({5.0: 100}))
    assert learn(RULES, few, None) is None
    assert learn(RULES, few, before) is before


def test_silences_do_not_move_the_deadline() -> None:
    """With an exploration sample that waited longer, only the answers count."""
    alone = learned(stats_with({1.0: 900})).deadline
    with_silence = learned(stats_with({1.0: 900}, silences={1.5: 270, 30.0: 30})).deadline
    assert alone == with_silence


def test_silence_alone_teaches_nothing() -> None:
    """Without any answer the previously learned value stays."""
    before = learned(stats_with({1.0: 100}))
    assert learn(RULES, stats_with({}, silences={1.5: 500}), before) is before
    assert learn(RULES, stats_with({1.0: 3}, silences={1.5: 500}), before) is before


def test_the_exploration_sample_represents_the_calls_that_timed_out() -> None:
    """If a provider becomes slower, the sample measures it, and the deadline rises."""
    found = learned(stats_with({1.0: 900, 6.0: 10}, silences={1.5: 90}))
    assert found.deadline.total_seconds() == about(9.0)


def test_one_slow_answer_does_not_represent_all_silences() -> None:
    """A single answer later than all others does not prove that the others would have come."""
    found = learned(stats_with({1.0: 980, 200.0: 1}, silences={1.5: 19}))
    assert found.deadline.total_seconds() == about(1.5)


def test_late_answers_let_it_rise() -> None:
    """Late answers count, and silences count as stats until then."""
    found = learned(stats_with({1.0: 900, 6.0: 50}, silences={1.5: 50}, overdue={6.0: 50}))
    assert found.deadline.total_seconds() == about(9.0)


def test_a_late_answer_does_not_represent_the_silences() -> None:
    """They were stats for as long, and did not come."""
    found = learned(stats_with({1.0: 900, 6.0: 3}, silences={1.5: 97}, overdue={6.0: 3}))
    assert found.deadline.total_seconds() == about(1.5)


@given(
    st.dictionaries(st.floats(0.001, 5000), st.integers(1, 500), min_size=1, max_size=20),
    st.dictionaries(st.floats(0.001, 5000), st.integers(1, 500), max_size=20),
)
def test_it_stays_between_floor_and_ceiling(
    answers: dict[float, int], silences: dict[float, int]
) -> None:
    """For any statistics; and the exploration sample waits at least as long as other calls."""
    found = learn(RULES, stats_with(answers, silences), None)
    if found is not None:
        assert RULES.floor <= found.deadline <= RULES.ceiling
        assert found.scout_deadline is not None
        assert found.deadline <= found.scout_deadline <= RULES.ceiling
        assert RULES.sample <= found.scouts <= 0.25


def test_floor_and_ceiling_are_named() -> None:
    """The reason names them."""
    assert learned(stats_with({0.1: 100})).reason.endswith("raised to the floor")
    assert learned(stats_with({500.0: 100})).reason.endswith("lowered to the ceiling")


def test_a_small_change_is_ignored() -> None:
    """Changes become history: a similar deadline is the same object."""
    before = learned(stats_with({2.0: 1000}))
    assert learn(RULES, stats_with({2.1: 1000}), before) is before
    after = learn(RULES, stats_with({3.0: 1000}), before)
    assert after is not None
    assert after.deadline.total_seconds() == about(4.5)


def test_the_exploration_sample_grows_with_silences() -> None:
    """Up to a quarter of the calls; when most are silent, it waits up to the ceiling."""
    quiet = learned(stats_with({1.0: 900}, silences={1.5: 10}))
    louder = learned(stats_with({1.0: 900}, silences={1.5: 90}))
    loudest = learned(stats_with({1.0: 100}, silences={1.5: 900}))
    assert quiet.scouts == 0.1
    assert louder.scouts == pytest.approx(0.18, abs=0.01)
    assert loudest.scouts == 0.25
    assert quiet.scout_deadline == RULES.initial
    assert loudest.scout_deadline == RULES.ceiling


def test_only_changes_are_returned() -> None:
    """Operations without a change, or without rules, are left out."""
    stats = {"order": stats_with({2.0: 1000}), "quote": stats_with({9.0: 1000})}
    first = learn_all({"order": RULES}, stats, {})
    assert first.keys() == {"order"}
    assert learn_all({"order": RULES}, stats, first) == {}


def test_an_extended_deadline_covers_a_provider_that_is_twenty_times_slower() -> None:
    """Only once, and only where it is below the ceiling."""
    usual = learned(stats_with({1.0: 1000}))
    longer = extend(RULES, usual, NOW, to_ceiling=False)
    assert longer.deadline.total_seconds() == about(30)
    assert longer.deadline.total_seconds() >= 20
    assert (longer.usual, longer.since) == (usual.deadline, NOW)
    assert longer.reason == (
        "extended from 1.47 s, too many calls timed out; learned again from now on"
    )
    assert can_extend(RULES, usual)
    assert not can_extend(RULES, longer)
    assert not can_extend(RULES, None)
    assert not can_extend(replace(RULES, ceiling=usual.deadline), usual)
    last = extend(RULES, longer, NOW, to_ceiling=True)
    assert (last.deadline, last.usual) == (RULES.ceiling, usual.deadline)
    assert extend(RULES, None, NOW, to_ceiling=True).usual == RULES.initial


def test_an_extended_deadline_is_learned_again_when_all_calls_have_had_its_time() -> None:
    """Those answered sooner are the fast ones; from then on a few samples are enough."""
    longer = extend(RULES, learned(stats_with({1.0: 1000})), NOW, to_ceiling=False)
    few = stats_with({5.0: 12})
    assert learn(RULES, few, longer, NOW + seconds(29)) is longer
    found = learn(RULES, few, longer, NOW + seconds(31))
    assert found is not None
    assert found.deadline.total_seconds() == about(7.5)
    assert (found.usual, found.since) == (None, NOW)
    assert learn(RULES, stats_with({5.0: 9}), longer, NOW + seconds(31)) is longer
    assert learn(RULES, stats_with({}, {30.0: 50}), longer, NOW + seconds(31)) is longer


def test_a_fixed_deadline_is_learned_after_an_outage_only() -> None:
    """It is never shorter than the file says, and what was learned by older rules is ignored."""
    assert learn(FIXED, stats_with({5.0: 1000}), None) is None
    by_older_rules = learned(stats_with({5.0: 1000}))
    assert learn(FIXED, stats_with({2.0: 1000}), by_older_rules) is by_older_rules
    assert not can_extend(FIXED, by_older_rules)
    longer = extend(FIXED, by_older_rules, NOW, to_ceiling=True)
    assert (longer.deadline, longer.usual) == (FIXED.ceiling, FIXED.initial)
    after = NOW + FIXED.ceiling + seconds(1)
    slower = learn(FIXED, stats_with({40.0: 20}), longer, after)
    assert slower is not None
    assert slower.deadline.total_seconds() == about(60)
    assert deadline_for(FIXED, slower, seconds(30), 0.0).deadline == slower.deadline
    quick = learn(FIXED, stats_with({2.0: 20}), longer, after)
    assert quick is not None
    assert quick.deadline == FIXED.initial


def test_callers_are_told_at_the_usual_deadline() -> None:
    """Of every call that waits longer: extended, in the sample, or sent as a probe."""
    usual = learned(stats_with({2.0: 1000}))
    ordinary = deadline_for(RULES, usual, seconds(30), 0.5)
    assert ordinary.delayed_after is None
    sample = deadline_for(RULES, usual, seconds(30), 0.05)
    assert (sample.deadline, sample.delayed_after) == (seconds(30), usual.deadline)
    longer = extend(RULES, usual, NOW, to_ceiling=False)
    assert deadline_for(RULES, longer, seconds(30), 0.5).delayed_after == usual.deadline
    probe = deadline_of_probe(ordinary, RULES.ceiling, "half open")
    assert (probe.deadline, probe.delayed_after) == (RULES.ceiling, usual.deadline)
    assert probe.reason == "600 s: the ceiling, while the breaker is half open"
    assert deadline_of_probe(sample, RULES.ceiling, "open").delayed_after == usual.deadline
    initial = deadline_for(RULES, None, seconds(30), 0.5)
    assert deadline_of_probe(initial, RULES.ceiling, "open").delayed_after == seconds(30)


def test_the_reason_of_a_calls_deadline() -> None:
    """Configured, learned, or longer for the exploration sample."""
    known = learned(stats_with({2.8: 812}))
    configured = CallDeadline(seconds(30), "30 s (configured initial value)")
    assert deadline_for(RULES, None, seconds(30), 0.5) == configured
    assert deadline_for(FIXED, known, seconds(30), 0.5).deadline == seconds(30)
    found = deadline_for(RULES, known, seconds(30), 0.5)
    assert found.deadline == known.deadline
    assert found.reason.startswith("4.")
    assert "s: learned p99 2." in found.reason
    longer = deadline_for(RULES, known, seconds(30), 0.05)
    assert longer.deadline == seconds(30)
    assert longer.reason.startswith("30 s: 10% of calls wait longer than 4.")


def test_the_file_overrides_what_was_learned() -> None:
    """A new floor, ceiling or exploration sample applies to what was learned before."""
    known = learned(stats_with({2.8: 812}))
    higher = replace(RULES, floor=seconds(8))
    lower = replace(RULES, ceiling=seconds(3))
    alone = replace(RULES, sample=0.0)
    assert deadline_for(higher, known, seconds(30), 0.5).deadline == seconds(8)
    assert deadline_for(lower, known, seconds(3), 0.05).deadline == seconds(3)
    assert deadline_for(alone, known, seconds(30), 0.0).deadline == known.deadline
    assert learned(stats_with({2.8: 812}), alone).scouts == 0.0
