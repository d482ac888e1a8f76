"""A provider that goes slow, silent, broken and back, in simulated time, and its breaker.

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
    BreakerWindow,
    SendRamp,
)
from ackbridge.control.breaker import BreakerRules, next_status, send_rate, without_stale_silences

START = datetime(2026, 1, 1, tzinfo=UTC)
REPORT_EVERY = 2
DEADLINE = 20
"""Seconds after which a response counts as away."""


@dataclass
class Provider:
    """Answers as its mood of the moment says, and breaks down when it is asked too much.

    Attributes:
        mood: by second: `well`, `slow` (every third answer too late), `silent`, `broken`, and
            `weak`, which bears `strength` sends a second and grows stronger by a tenth each second.
    """

    mood: Callable[[int], str]
    dice: random.Random
    strength: float = 1.5
    sent: int = 0
    asked: list[int] = field(default_factory=list)
    failed_at: list[int] = field(default_factory=list)
    _this_second: tuple[int, int] = (-1, 0)

    def send(self, second: int) -> BreakerCounts:
        """One send; what will be known of it, some of it only after `DEADLINE`."""
        self.asked.append(second)
        mood = self.mood(second)
        at, so_many = self._this_second
        self._this_second = (second, so_many + 1 if at == second else 1)
        if mood == "weak":
            if at != second:
                self.strength *= 1.1
            if self._this_second[1] > self.strength + 1:
                self.strength = max(1.0, self.strength / 2)
                mood = "broken"
        if mood == "broken":
            self.failed_at.append(second)
            return BreakerCounts(failed=1)
        if mood == "silent" or (mood == "slow" and self.dice.random() < 1 / 3):
            return BreakerCounts(answered=1, silent=1)
        return BreakerCounts(answered=1, responded=1)

    def is_healthy(self, second: int) -> bool:
        """The health request: a silent provider thinks that it is well."""
        return self.mood(second) != "broken"


@dataclass
class Run:
    """What happened.

    Attributes:
        states: (second, state, reason) of every change.
        parked: calls that were not sent, and wait.
    """

    provider: Provider
    states: list[tuple[int, str, str]] = field(default_factory=list)
    parked: int = 0

    def when(self, state: BreakerState) -> list[int]:
        """The seconds at which it came into a state."""
        return [second for second, name, _ in self.states if name == state]


def simulate(
    mood: Callable[[int], str],
    *,
    seconds: int,
    per_second: int = 10,
    has_health: bool = True,
    policy: BreakerPolicy | None = None,
) -> Run:
    """Calls come evenly; what may not be sent is parked, and drained when the breaker allows."""
    policy = policy or BreakerPolicy()
    rules = BreakerRules(
        policy,
        health_every=timedelta(seconds=5) if has_health else None,
        longest_deadline=timedelta(seconds=DEADLINE),
    )
    provider = Provider(mood, random.Random(7))  # noqa: S311 -- the same dice at every run
    run = Run(provider)
    breaker, evidence = BreakerStatus.initial(START), BreakerWindow()
    unreported = NO_COUNTS
    later: deque[tuple[int, BreakerCounts]] = deque()
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
                later.append((second + DEADLINE, away))
        while later and later[0][0] <= second:
            unreported += later.popleft()[1]
        tally = NO_COUNTS
        if second % REPORT_EVERY == 0:
            tally, unreported = unreported, NO_COUNTS
        is_half_open = breaker.state is BreakerState.HALF_OPEN
        if has_health and is_half_open and second % 5 == 0:
            is_well = provider.is_healthy(second)
            tally += BreakerCounts(healthy=1) if is_well else BreakerCounts(unhealthy=1)
        evidence = evidence.with_counts(
            without_stale_silences(breaker, tally, now), now, policy.window
        )
        before = breaker
        breaker = next_status(rules, breaker, evidence, now, backlog=run.parked)
        if breaker.state is not before.state:
            evidence = BreakerWindow()
            run.states.append((second, breaker.state, breaker.reason))
    return run


def during(first: int, last: int, mood: str, after: str = "well") -> Callable[[int], str]:
    """Well, then in a mood, then something else."""
    return lambda second: "well" if second < first else mood if second < last else after


def test_a_provider_that_is_well_is_left_alone() -> None:
    """Ten minutes of ordinary traffic move nothing and hold nothing back."""
    run = simulate(lambda _: "well", seconds=600)
    assert run.states == []
    assert run.parked == 0


def test_a_broken_provider_is_left_in_peace_and_taken_up_again() -> None:
    """It opens within seconds, hardly sends while it is broken, and drains all once it is well."""
    run = simulate(during(100, 220, "broken"), seconds=600)
    assert run.states[0] == (102, "open", run.states[0][2])
    broken = [second for second in run.provider.asked if 103 <= second < 220]
    assert broken == []
    # Each pause is longer, so it may take as long again as it was away, and not more.
    closed = run.when(BreakerState.CLOSED)
    assert len(closed) == 1
    assert 220 <= closed[0] <= 220 + 2 * 120
    assert run.parked == 0


def test_without_a_health_request_single_sends_are_the_probes() -> None:
    """A trickle of real calls costs a send for each pause while it is broken, then closes it."""
    run = simulate(during(100, 220, "broken"), seconds=700, has_health=False)
    broken = [second for second in run.provider.asked if 103 <= second < 220]
    assert len(broken) == len([s for s in run.when(BreakerState.HALF_OPEN) if s < 220])
    assert len(run.when(BreakerState.CLOSED)) == 1
    assert run.parked == 0


def test_a_silent_provider_opens_it_when_responses_stay_away() -> None:
    """Receipts and health hide nothing: a third of a minute after the first silence it is open."""
    run = simulate(during(100, 200, "silent"), seconds=900)
    opened = run.when(BreakerState.OPEN)[0]
    assert 100 + DEADLINE <= opened <= 100 + DEADLINE + 4
    after = [second for second in run.provider.asked if opened < second < 200]
    assert len(after) <= (200 - opened) / 5 + 1
    assert len(run.when(BreakerState.CLOSED)) == 1
    assert run.parked == 0


def test_a_slow_provider_stays_in_use_below_the_rate() -> None:
    """A third of late answers is not half of them; with a lower threshold it is a reason."""
    run = simulate(during(100, 400, "slow"), seconds=500)
    assert run.states == []
    policy = BreakerPolicy(error_rate=0.25)
    strict = simulate(during(100, 400, "slow"), seconds=500, policy=policy)
    assert strict.when(BreakerState.OPEN)


def test_a_provider_that_has_just_recovered_survives() -> None:
    """Weak, it bears a send or two a second at first: the ramp fails it never, no ramp at once."""
    mood = during(100, 160, "broken", after="weak")
    gentle = simulate(mood, seconds=700)
    late = [second for second in gentle.provider.failed_at if second > 165]
    assert len(gentle.when(BreakerState.CLOSED)) == 1
    assert late == []
    brutal = simulate(mood, seconds=700, policy=BreakerPolicy(ramp=SendRamp(steps=0)))
    assert len([second for second in brutal.provider.failed_at if second > 165]) > 100


def test_one_that_breaks_again_on_the_ramp_is_left_alone_at_once() -> None:
    """The relapse costs a few sends, not the twenty or ten that open a calm breaker."""

    def mood(second: int) -> str:
        return "broken" if 100 <= second < 130 or 150 <= second < 260 else "well"

    run = simulate(mood, seconds=900)
    relapse = [second for second in run.provider.asked if 150 <= second < 260]
    assert 1 <= len(relapse) <= 12
    assert len(run.when(BreakerState.CLOSED)) == 2
    assert run.parked == 0


def test_the_same_world_has_the_same_history() -> None:
    """Nothing in it depends on the clock of the machine, or on chance."""
    mood = during(100, 200, "slow", after="silent")
    assert simulate(mood, seconds=400).states == simulate(mood, seconds=400).states
