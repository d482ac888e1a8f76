"""Providers that become slow, silent or broken and recover, in simulated time, with a breaker.

Nothing here waits: seconds are counted. Workers report every two seconds, as real ones do.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    MonitorState,
    SendRamp,
)
from ackbridge.control.breaker import BreakerRules, evaluate, send_rate
from ackbridge.stats.counters import Count

START = datetime(2026, 1, 1, tzinfo=UTC)
REPORT_EVERY = 2
DEADLINE = 20
"""Seconds after which a response counts as missing."""


@dataclass
class Provider:
    """Answers according to its current behaviour, and fails under too much load.

    Attributes:
        behaviour: by second: `well`, `slow` (every third answer too late), `silent`, `broken`, and
            `weak`, which bears `strength` sends a second and grows stronger by a tenth each second.
    """

    behaviour: Callable[[int], str]
    dice: random.Random
    strength: float = 1.5
    sent: int = 0
    asked: list[int] = field(default_factory=list)
    failed_at: list[int] = field(default_factory=list)
    _this_second: tuple[int, int] = (-1, 0)

    def send(self, second: int) -> BreakerCounts:
        """One send; the counts it leads to, some of them only after `DEADLINE`."""
        self.asked.append(second)
        behaviour = self.behaviour(second)
        at, so_many = self._this_second
        self._this_second = (second, so_many + 1 if at == second else 1)
        if behaviour == "weak":
            if at != second:
                self.strength *= 1.1
            if self._this_second[1] > self.strength + 1:
                self.strength = max(1.0, self.strength / 2)
                behaviour = "broken"
        if behaviour == "broken":
            self.failed_at.append(second)
            return BreakerCounts(failed=1)
        if behaviour == "silent" or (behaviour == "slow" and self.dice.random() < 1 / 3):
            return BreakerCounts(answered=1, silent=1)
        return BreakerCounts(answered=1, responded=1)

    def is_healthy(self, second: int) -> bool:
        """The health request; a silent provider reports that it is healthy."""
        return self.behaviour(second) != "broken"


@dataclass
class Run:
    """The result of a simulation.

    Attributes:
        states: (second, state, reason) of every change.
        parked: calls that were not sent, and wait.
    """

    provider: Provider
    states: list[tuple[int, str, str]] = field(default_factory=list)
    parked: int = 0

    def when(self, state: BreakerState) -> list[int]:
        """The seconds at which the breaker entered a state."""
        return [second for second, name, _ in self.states if name == state]


def simulate(
    behaviour: Callable[[int], str],
    *,
    seconds: int,
    per_second: int = 10,
    has_health: bool = True,
    policy: BreakerPolicy | None = None,
) -> Run:
    """Calls arrive evenly; those that may not be sent are parked until the breaker allows them."""
    policy = policy or BreakerPolicy()
    rules = BreakerRules(policy, health_every=timedelta(seconds=5) if has_health else None)
    provider = Provider(behaviour, random.Random(7))  # noqa: S311 -- the same dice at every run
    run = Run(provider)
    breaker, monitor = BreakerStatus.initial(START), MonitorState()
    breakers: dict[str, BreakerStatus] = {}
    unreported = NO_COUNTS
    later: deque[tuple[int, int, BreakerCounts]] = deque()
    credit = 0.0
    for second in range(seconds):
        now = START + timedelta(seconds=second)
        run.parked += per_second
        rate = send_rate(policy, breaker, None)
        if rate is None:
            may_send = run.parked
        else:
            credit = min(credit + rate, max(1.0, rate))
            may_send = min(run.parked, int(credit))
            credit -= may_send
        for _ in range(may_send):
            run.parked -= 1
            known = provider.send(second)
            away = BreakerCounts(silent=known.silent)
            unreported += known - away
            if known.silent:
                later.append((second + DEADLINE, second, away))
        while later and later[0][0] <= second:
            _, sent, silent = later.popleft()
            judged_from = max(
                (one.judged_from or START for one in (breaker, *breakers.values())), default=START
            )
            if START + timedelta(seconds=sent) >= judged_from:
                unreported += silent
        reports = {}
        if second % REPORT_EVERY == 0:
            reports, unreported = {"order": {now.isoformat(): unreported}}, NO_COUNTS
        health = None
        if has_health and rules.is_probe_due(breaker, monitor.probed_at, now):
            health = Count.HEALTHY if provider.is_healthy(second) else Count.UNHEALTHY
        found = evaluate(
            rules, breaker, breakers, monitor, reports, health, now, backlog=run.parked
        )
        if found.breaker.state is not breaker.state:
            run.states.append((second, found.breaker.state, found.breaker.reason))
        breaker, monitor = found.breaker, found.monitor
        breakers.update(found.breakers)
    return run


def during(first: int, last: int, behaviour: str, after: str = "well") -> Callable[[int], str]:
    """Well, then with a behaviour, then with another one."""
    return lambda second: "well" if second < first else behaviour if second < last else after


def test_a_healthy_provider_is_not_restricted() -> None:
    """Ten minutes of ordinary traffic change nothing and park nothing."""
    run = simulate(lambda _: "well", seconds=600)
    assert run.states == []
    assert run.parked == 0


def test_a_broken_provider_gets_few_sends_until_it_recovers() -> None:
    """The breaker opens within seconds, sends little, and drains everything after the recovery."""
    run = simulate(during(100, 220, "broken"), seconds=600)
    assert run.states[0] == (102, "open", run.states[0][2])
    broken = [second for second in run.provider.asked if 103 <= second < 220]
    assert len(broken) <= 4, "single sends, because the health request fails for long"
    # Each pause is longer, so it may take as long again as it was away, and not more.
    closed = run.when(BreakerState.CLOSED)
    assert len(closed) == 1
    assert 220 <= closed[0] <= 220 + 2 * 120
    assert run.parked == 0


def test_without_a_health_request_single_sends_are_the_probes() -> None:
    """Each pause costs a few real sends while the provider is broken; then they close it."""
    run = simulate(during(100, 220, "broken"), seconds=700, has_health=False)
    broken = [second for second in run.provider.asked if 103 <= second < 220]
    probed = len([s for s in run.when(BreakerState.HALF_OPEN) if s < 220])
    assert probed <= len(broken) <= probed * (BreakerPolicy().probes + 1)
    assert len(run.when(BreakerState.CLOSED)) == 1
    assert run.parked == 0


def test_missing_responses_open_it() -> None:
    """Receipts and health do not offset them: it opens 20 s after the first silence."""
    run = simulate(during(100, 200, "silent"), seconds=900)
    opened = run.when(BreakerState.OPEN)[0]
    assert 100 + DEADLINE <= opened <= 100 + DEADLINE + 4
    after = [second for second in run.provider.asked if opened < second < 200]
    assert len(after) <= (200 - opened) / 5 + 1
    assert len(run.when(BreakerState.CLOSED)) == 1
    assert run.parked == 0


def test_a_slow_provider_opens_it_only_at_the_error_rate() -> None:
    """A third of late answers is below the default threshold of a half, and above a lower one."""
    run = simulate(during(100, 400, "slow"), seconds=500)
    assert run.states == []
    policy = BreakerPolicy(error_rate=0.25)
    strict = simulate(during(100, 400, "slow"), seconds=500, policy=policy)
    assert strict.when(BreakerState.OPEN)


def test_the_ramp_protects_a_provider_that_has_just_recovered() -> None:
    """It can take a send or two a second at first: without a ramp it fails again at once."""
    behaviour = during(100, 160, "broken", after="weak")
    gentle = simulate(behaviour, seconds=700)
    late = [second for second in gentle.provider.failed_at if second > 165]
    assert len(gentle.when(BreakerState.CLOSED)) == 1
    assert late == []
    brutal = simulate(behaviour, seconds=700, policy=BreakerPolicy(ramp=SendRamp(steps=0)))
    assert len([second for second in brutal.provider.failed_at if second > 165]) > 100


def test_a_relapse_on_the_ramp_opens_it_at_once() -> None:
    """It costs a few sends, not the twenty or ten that open a breaker without a ramp."""

    def behaviour(second: int) -> str:
        return "broken" if 100 <= second < 130 or 150 <= second < 260 else "well"

    run = simulate(behaviour, seconds=900)
    relapse = [second for second in run.provider.asked if 150 <= second < 260]
    assert 1 <= len(relapse) <= 12
    assert len(run.when(BreakerState.CLOSED)) == 2
    assert run.parked == 0


def test_the_simulation_is_deterministic() -> None:
    """It depends neither on the machine's clock nor on chance."""
    behaviour = during(100, 200, "slow", after="silent")
    assert simulate(behaviour, seconds=400).states == simulate(behaviour, seconds=400).states
