"""How long healthy calls are kept back, over hours of simulated calls to providers that change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from benchmarks.breaker.scenarios import (
    BROKEN,
    HOUR,
    MINUTE,
    SILENT,
    Scenario,
    between,
    shipped,
    slower,
)
from benchmarks.breaker.simulation import (
    RULES,
    CounterBreaker,
    NoBreaker,
    RealBreaker,
    Result,
    simulate,
)

pytestmark = pytest.mark.slow


TOO_SHORT = timedelta(seconds=2)
"""The provider's usual 99th percentile; slower, it answers half of all calls after 4.8 s."""


def played(scenario: Scenario, *, per_second: float = 0.5) -> Result:
    return simulate(scenario, RealBreaker(), per_second=per_second)


IN_EVERY_RUN = {
    *("20 times slower", "10 times slower, late responses count", "broken for 20 minutes"),
    *("silent for 2 minutes of every 6", "one endpoint broken for an hour"),
}
"""One of each kind; each simulates hours, and takes a second."""


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(one, marks=() if one.name in IN_EVERY_RUN else pytest.mark.extended)
        for one in shipped()
    ],
    ids=lambda one: one.name,
)
def test_healthy_calls_are_not_kept_back_for_longer_than_twice_the_outage(
    scenario: Scenario,
) -> None:
    """And one open period."""
    found = played(scenario)
    assert found.kept_back <= found.bound


@pytest.mark.parametrize("factor", [pytest.param(2, marks=pytest.mark.extended), 20])
def test_a_slower_provider_keeps_nobody_back(factor: float) -> None:
    """The deadline is extended, and learned again; few calls time out meanwhile."""
    found = played(Scenario("slower", between(10 * MINUTE, 2 * HOUR, slower(factor))))
    assert found.kept_back == 0
    assert found.gave_up < 0.05 * found.calls


def test_a_fixed_deadline_that_is_too_short_opens_the_breaker_once() -> None:
    """Its calls time out, and those of the probes show that the provider is only slower."""
    fixed = replace(RULES, initial=TOO_SHORT, floor=TOO_SHORT, sample=0.0, is_fixed=True)
    breaker = RealBreaker(fixed)
    scenario = Scenario("slower", between(10 * MINUTE, 2 * HOUR, slower(6)))
    found = simulate(scenario, breaker, per_second=0.5)
    assert sum(text.startswith("open") for _, name, text in breaker.history if not name) == 1
    assert found.kept_back < 2 * MINUTE
    assert found.gave_up < 0.05 * found.calls


def test_a_provider_that_is_down_gets_few_requests() -> None:
    """A fraction of what it would get without a breaker."""
    for condition in (BROKEN, SILENT):
        scenario = Scenario("down", between(10 * MINUTE, 30 * MINUTE, condition))
        ours = played(scenario)
        assert ours.in_vain < simulate(scenario, NoBreaker(), per_second=0.5).in_vain / 2


def test_a_plain_counter_breaker_shuts_a_slower_provider_out() -> None:
    """The simulation can fail: what was seen with the breaker of before is seen here."""
    scenario = Scenario("slower", between(10 * MINUTE, 2 * HOUR, slower(20)))
    found = simulate(scenario, CounterBreaker(), per_second=1)
    assert found.kept_back > found.bound
