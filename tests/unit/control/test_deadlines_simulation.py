"""Learning over hours of simulated calls, compared with an oracle."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.deadlines.providers import (
    HOUR,
    LogNormal,
    Mixture,
    Provider,
    bimodal,
    dropping,
    shipped,
    steady,
    step,
)
from benchmarks.deadlines.simulation import RULES, Day, false_alarms, simulate

MAY_FAIL = 1 - RULES.quantile
FIXED = RULES.initial.total_seconds()


@cache
def day(provider: str) -> Day:
    """Four hours of calls to one of the providers in the documentation."""
    return simulate(next(one for one in shipped() if one.name == provider))


def settled(seen: Day) -> list[float]:
    """The deadlines of the last hour as a share of the oracle's, without the exploration sample."""
    return [
        call.deadline / seen.oracle(call.at)
        for call in seen.between(3 * HOUR)
        if call.deadline <= 2 * seen.oracle(call.at)
    ]


@pytest.mark.parametrize("provider", [one.name for one in shipped()])
def test_it_comes_close_to_the_oracle(provider: str) -> None:
    """Within a third of the deadline that is best for the known distribution."""
    assert 0.67 < median(settled(day(provider))) < 1.33


@pytest.mark.parametrize("provider", [one.name for one in shipped()])
def test_false_alarms_are_as_rare_as_configured(provider: str) -> None:
    """About one in a hundred of all calls, during changes too."""
    assert false_alarms(day(provider).calls) <= 1.2 * MAY_FAIL


@pytest.mark.parametrize("provider", [steady(), bimodal(), dropping()], ids=lambda one: one.name)
def test_silence_is_detected_much_sooner(provider: Provider) -> None:
    """On average, compared with a fixed timeout, the exploration sample included."""
    waits = [call.deadline for call in day(provider.name).between(HOUR)]
    assert median(waits) < FIXED / 2
    assert fmean(waits) < FIXED / 1.8


def test_after_a_step_it_rises_again() -> None:
    """Although answers beyond the deadline are censored, it does not stay too low."""
    seen = day("step change")
    before, after = seen.deadline_at(2 * HOUR), seen.deadline_at(2.5 * HOUR)
    assert before < 1.5 * seen.oracle(0)
    assert after > 0.67 * seen.oracle(4 * HOUR)
    assert false_alarms(seen.between(2.5 * HOUR)) <= MAY_FAIL


def test_after_a_step_beyond_the_exploration_sample_it_rises_as_well() -> None:
    """When most calls are silent, the exploration sample waits up to the ceiling."""
    seen = simulate(step(times=60))
    assert seen.oracle(4 * HOUR) > 3 * FIXED
    assert seen.deadline_at(4 * HOUR) > 0.67 * seen.oracle(4 * HOUR)


def test_late_answers_help() -> None:
    """Parked calls receive them: there are fewer false alarms after a step."""
    without, with_late = day("step change"), simulate(step(), late=True)
    assert false_alarms(with_late.calls) < false_alarms(without.calls)


def test_with_few_calls_it_learns_too() -> None:
    """One call every twenty seconds is enough, with a few more false alarms after a step."""
    seen = simulate(step(), per_second=0.05, hours=6)
    assert seen.deadline_at(6 * HOUR) > 0.67 * seen.oracle(6 * HOUR)
    assert false_alarms(seen.between(4 * HOUR)) <= 2 * MAY_FAIL


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_provider_that_drops_calls_does_not_push_it_up(share: float) -> None:
    """Whatever the share of silences, the answers decide the deadline."""
    seen = simulate(dropping(share))
    assert max(one.deadline for at, one in seen.learned if at > HOUR) < timedelta(
        seconds=1.5 * seen.oracle(0)
    )


def test_an_outage_leaves_it_where_it_was() -> None:
    """After an hour without any answer, and without a breaker."""
    dead = Provider("outage", steady().at, lambda now: 1.0 if 2 * HOUR <= now < 3 * HOUR else 0.0)
    seen = simulate(dead)
    for moment in (2.5 * HOUR, 3 * HOUR, 3.5 * HOUR, 4 * HOUR):
        assert 0.67 < seen.deadline_at(moment) / seen.oracle(moment) < 1.5


def test_when_a_provider_gets_faster_the_deadline_follows() -> None:
    """Once the slow answers have left the window."""
    seen = simulate(step(times=0.2))
    assert seen.deadline_at(4 * HOUR) < 1.33 * seen.oracle(4 * HOUR)


def test_history_grows_with_changes_not_with_calls() -> None:
    """Four hours and 14,000 calls lead to a handful of decisions."""
    assert len(day("log-normal").learned) < 20
    assert len(day("slow drift").learned) < 30


humps = st.builds(LogNormal, median=st.floats(0.05, 8.0), sigma=st.floats(0.1, 1.0))
mixtures = st.builds(
    lambda one, other, share: Mixture(((1 - share, one), (share, other))),
    humps,
    humps,
    st.floats(0.02, 0.5),
)


@settings(max_examples=12, derandomize=True)
@given(st.one_of(humps, mixtures), st.floats(0, 0.05), st.integers(0, 1000))
def test_any_distribution(distribution: LogNormal | Mixture, dropped: float, seed: int) -> None:
    """From a cold start it gets close to the oracle, with few false alarms."""
    seen = simulate(Provider("any", lambda _: distribution, lambda _: dropped), seed=seed, hours=2)
    ratio = seen.deadline_at(2 * HOUR) / seen.oracle(2 * HOUR)
    assert 0.5 < ratio < 1.6
    assert false_alarms(seen.calls) <= 1.5 * MAY_FAIL


def test_the_simulated_drift_is_followed() -> None:
    """All the way up, without falling far behind."""
    seen = day("slow drift")
    for hour in (1, 2, 3, 4):
        assert 0.67 < seen.deadline_at(hour * HOUR) / seen.oracle(hour * HOUR) < 1.5
