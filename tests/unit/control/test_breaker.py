"""The breaker's state machine: its transitions and its invariants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ackbridge.contracts.breaker import (
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    BreakerWindow,
    SendRamp,
)
from ackbridge.control.breaker import BreakerRules, next_status, send_rate, without_stale_silences

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = BreakerPolicy()

TALLIES = st.builds(
    BreakerCounts,
    **{name: st.integers(0, 12) for name in BreakerCounts.model_fields},
)
POLICIES = st.builds(
    BreakerPolicy,
    window=st.integers(1, 60).map(lambda n: n * SECOND),
    error_rate=st.floats(0.05, 1),
    min_volume=st.integers(1, 40),
    consecutive=st.integers(1, 20),
    open_for=st.integers(1, 60).map(lambda n: n * SECOND),
    open_at_most=st.integers(1, 600).map(lambda n: n * SECOND),
    probes=st.integers(1, 5),
    ramp=st.builds(
        SendRamp,
        start=st.floats(0.1, 10),
        factor=st.floats(1.1, 4),
        every=st.integers(1, 20).map(lambda n: n * SECOND),
        steps=st.integers(0, 6),
    ),
)
TICKS = st.lists(st.tuples(st.integers(1, 30), TALLIES), max_size=60)


class Driven:
    """A breaker, driven as by the control loop."""

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        has_health: bool = False,
        limit: float | None = None,
        longest_deadline: timedelta = timedelta(0),
    ) -> None:
        self.policy = policy
        self.rules = BreakerRules(
            policy,
            limit=limit,
            health_every=SECOND if has_health else None,
            longest_deadline=longest_deadline,
        )
        self.now = AT
        self.breaker = BreakerStatus.initial(AT)
        self.evidence = BreakerWindow()

    def tick(self, seconds: float, tally: BreakerCounts) -> tuple[BreakerStatus, BreakerStatus]:
        """Advance the time, report counts, and return the status before and after."""
        self.now += timedelta(seconds=seconds)
        before = self.breaker
        tally = without_stale_silences(before, tally, self.now)
        self.evidence = self.evidence.with_counts(tally, self.now, self.policy.window)
        self.breaker = next_status(self.rules, before, self.evidence, self.now)
        if self.breaker.state is not before.state:
            self.evidence = BreakerWindow()
        return before, self.breaker


@given(policy=POLICIES, ticks=TICKS, has_health=st.booleans(), limit=st.none() | st.floats(0, 50))
@settings(max_examples=200, deadline=None)
def test_invariants(
    policy: BreakerPolicy, ticks: Any, has_health: bool, limit: float | None
) -> None:
    """It closes only from half open, keeps its pauses, and never exceeds the limit."""
    driven = Driven(policy, has_health=has_health, limit=limit, longest_deadline=20 * SECOND)
    for seconds, tally in ticks:
        before, after = driven.tick(seconds, tally)
        steps = (before.state, after.state)
        assert steps != (BreakerState.OPEN, BreakerState.CLOSED)
        assert steps != (BreakerState.CLOSED, BreakerState.HALF_OPEN)
        assert (before.state is after.state) is (before.since == after.since)
        if steps == (BreakerState.OPEN, BreakerState.HALF_OPEN):
            assert driven.now - before.since >= min(policy.open_for, policy.pause(1))
            assert before.until is not None
            assert before.until <= driven.now
        if after.state is BreakerState.OPEN:
            assert after.until is not None
            assert after.until - after.since == policy.pause(after.openings)
        if after.state is BreakerState.OPEN and before.state is not BreakerState.OPEN:
            assert after.openings == before.openings + 1
            assert tally.failed or tally.silent or tally.unhealthy
        rate = send_rate(policy, after, limit)
        assert (rate == 0) if after.state is BreakerState.OPEN else (rate is None or rate >= 0)
        assert limit is None or rate is None or rate <= limit
        assert not after.is_unrestricted or rate == limit


@given(policy=POLICIES, ticks=TICKS, state=st.sampled_from(BreakerState))
@settings(max_examples=50, deadline=None)
def test_a_forced_breaker_stays(policy: BreakerPolicy, ticks: Any, state: Any) -> None:
    """No counts change a forced breaker until it is released."""
    driven = Driven(policy)
    driven.breaker = held = driven.breaker.forced(state, "ann", "maintenance", AT)
    for seconds, tally in ticks:
        driven.tick(seconds, tally)
    assert driven.breaker is held
    released = held.released("done", driven.now)
    assert released.forced_by is None
    assert released.is_unrestricted is (state is BreakerState.CLOSED)


@given(ticks=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 50)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_success_alone_changes_nothing(ticks: Any) -> None:
    """Without failures the breaker stays closed."""
    driven = Driven(POLICY)
    for seconds, answered in ticks:
        driven.tick(seconds, BreakerCounts(answered=answered, responded=answered))
    assert driven.breaker == BreakerStatus.initial(AT)


@given(policy=POLICIES, ticks=TICKS, limit=st.none() | st.floats(1, 50))
@settings(max_examples=50, deadline=None)
def test_it_recovers_from_any_state(policy: BreakerPolicy, ticks: Any, limit: float | None) -> None:
    """With nothing but successes it ends up closed, without a ramp."""
    driven = Driven(policy, has_health=True, limit=limit)
    for seconds, tally in ticks:
        driven.tick(seconds, tally)
    well = BreakerCounts(answered=3, responded=3, healthy=1)
    for _ in range(700):
        driven.tick(2, well)
    assert driven.breaker.is_unrestricted
    assert send_rate(policy, driven.breaker, limit) == limit


@pytest.mark.parametrize(
    ("tally", "is_open", "reason"),
    [
        (BreakerCounts(answered=10, failed=9), False, ""),
        (
            BreakerCounts(answered=10, failed=10),
            True,
            "10 of 20 sends failed within 30 s; pause of 30 s",
        ),
        (BreakerCounts(failed=9), False, ""),
        (BreakerCounts(failed=10), True, "10 sends failed in a row; pause of 30 s"),
        (
            BreakerCounts(answered=50, responded=8, silent=12),
            True,
            "12 of 20 calls timed out within 30 s; pause of 30 s",
        ),
        (BreakerCounts(unhealthy=50), False, ""),
    ],
)
def test_what_opens_the_breaker(tally: BreakerCounts, is_open: bool, reason: str) -> None:
    """An error rate at a minimum volume, or a streak; receipts do not offset silences."""
    driven = Driven(POLICY)
    driven.tick(1, tally)
    assert (driven.breaker.state is BreakerState.OPEN) is is_open
    assert not is_open or driven.breaker.reason == reason


def test_old_failures_do_not_count() -> None:
    """The window slides: older counts are dropped."""
    driven = Driven(POLICY)
    driven.tick(1, BreakerCounts(answered=1, failed=9))
    driven.tick(31, BreakerCounts(answered=9, failed=9))
    assert driven.breaker.state is BreakerState.CLOSED


def test_pauses_double_until_a_recovery() -> None:
    """Up to the longest pause; after a complete ramp the first pause applies again."""
    driven = Driven(POLICY, has_health=True)
    driven.tick(1, BreakerCounts(failed=10))
    pauses = []
    for _ in range(7):
        assert driven.breaker.until is not None
        pauses.append((driven.breaker.until - driven.breaker.since).total_seconds())
        driven.tick(pauses[-1], BreakerCounts())
        assert driven.breaker.state is BreakerState.HALF_OPEN
        driven.tick(5, BreakerCounts(unhealthy=1))
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    driven.tick(600, BreakerCounts())
    driven.tick(15, BreakerCounts(healthy=3))
    assert [driven.tick(10, BreakerCounts(answered=5))[1].step for _ in range(6)] == [
        1,
        2,
        3,
        4,
        5,
        None,
    ]
    driven.tick(1, BreakerCounts(failed=10))
    assert driven.breaker.reason.endswith("pause of 30 s")


def test_the_ramp_of_sends() -> None:
    """No sends while open, single sends while half open, then twice as many in every step."""
    driven = Driven(POLICY, limit=25.0)
    driven.tick(1, BreakerCounts(failed=10))
    rates = [send_rate(POLICY, driven.breaker, 25.0)]
    driven.tick(30, BreakerCounts())
    rates.append(send_rate(POLICY, driven.breaker, 25.0))
    driven.tick(15, BreakerCounts(answered=3))
    rates.append(send_rate(POLICY, driven.breaker, 25.0))
    for _ in range(5):
        driven.tick(10, BreakerCounts(answered=3))
        rates.append(send_rate(POLICY, driven.breaker, 25.0))
    assert rates == [0, 0.2, 1, 2, 4, 8, 16, 25]
    assert driven.breaker.is_unrestricted


def test_failures_on_the_ramp() -> None:
    """One failure extends the step; three in a row open the breaker again, for longer."""
    driven = Driven(POLICY, has_health=True)
    driven.tick(1, BreakerCounts(failed=10))
    driven.tick(30, BreakerCounts())
    driven.tick(15, BreakerCounts(healthy=3))
    driven.tick(10, BreakerCounts(answered=9, failed=1))
    assert driven.breaker.step == 0
    driven.tick(11, BreakerCounts(answered=3))
    assert driven.breaker.step == 1
    driven.tick(1, BreakerCounts(failed=3))
    assert driven.breaker.reason == "3 sends failed in a row; pause of 60 s"


def test_silence_is_ended_by_responses_only() -> None:
    """Opened for silence, neither health requests nor receipts close the breaker."""
    driven = Driven(POLICY, has_health=True, longest_deadline=60 * SECOND)
    driven.tick(1, BreakerCounts(answered=10, silent=10))
    assert driven.breaker.for_silence
    driven.tick(30, BreakerCounts(silent=5))
    driven.tick(20, BreakerCounts(silent=5))
    assert driven.breaker.state is BreakerState.HALF_OPEN, "those were sent before it opened"
    assert driven.breaker.trickle
    driven.tick(5, BreakerCounts(answered=3, healthy=3))
    assert driven.breaker.state is BreakerState.HALF_OPEN
    driven.tick(20, BreakerCounts(silent=1))
    assert driven.breaker.openings == 2, "this one was sent by the trickle"
    driven.tick(60, BreakerCounts())
    driven.tick(5, BreakerCounts(responded=3))
    assert driven.breaker.step == 0


def test_unclear_health_requests_are_replaced_by_single_sends() -> None:
    """A wrong health path does not keep the breaker open for ever."""
    driven = Driven(POLICY, has_health=True)
    driven.tick(1, BreakerCounts(failed=10))
    driven.tick(30, BreakerCounts())
    assert send_rate(POLICY, driven.breaker, None) == 0
    driven.tick(15, BreakerCounts(unclear=3))
    assert send_rate(POLICY, driven.breaker, None) == 0.2


def test_without_a_policy_only_an_operator_changes_it() -> None:
    """`breaker: null` in the file: it never opens by itself, and closes if it was open."""
    now = AT + SECOND
    evidence = BreakerWindow().with_counts(BreakerCounts(failed=100), now, 30 * SECOND)
    rules = BreakerRules(None)
    initial = BreakerStatus.initial(AT)
    assert next_status(rules, initial, evidence, now) is initial
    held = BreakerStatus.initial(AT).forced(BreakerState.OPEN, "ann", "maintenance", AT)
    assert send_rate(None, held, 25.0) == 0
    assert next_status(rules, held, evidence, now) is held
    assert next_status(rules, held.released("done", now), evidence, now).is_unrestricted


def test_openings_in_a_row_are_one_outage() -> None:
    """It begins with the failures that opened the breaker, and ends with the ramp."""
    driven = Driven(POLICY, has_health=True)
    driven.tick(100, BreakerCounts(failed=10))
    began = driven.now - POLICY.window
    for unhealthy in (1, 1):
        driven.tick(600, BreakerCounts())
        driven.tick(5, BreakerCounts(unhealthy=unhealthy))
        assert driven.breaker.opened_at == began
    driven.tick(600, BreakerCounts())
    driven.tick(15, BreakerCounts(healthy=3))
    assert (driven.breaker.step, driven.breaker.opened_at) == (0, began)
    driven.tick(1, BreakerCounts(failed=3))
    assert (driven.breaker.state, driven.breaker.opened_at) == (BreakerState.OPEN, began)
    driven.tick(600, BreakerCounts())
    driven.tick(15, BreakerCounts(healthy=3))
    for _ in range(6):
        driven.tick(10, BreakerCounts(answered=5))
    assert driven.breaker.is_unrestricted
    driven.tick(100, BreakerCounts(failed=10))
    assert driven.breaker.opened_at == driven.now - POLICY.window


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_the_outage_of_a_forced_breaker_begins_when_it_is_forced(state: BreakerState) -> None:
    """Maintenance after an outage is another outage; maintenance during one is not."""
    held = BreakerStatus.initial(AT).forced(state, "ann", "maintenance", AT + SECOND)
    assert held.opened_at == AT + SECOND
    closed = held.forced(BreakerState.CLOSED, "ann", "over", AT + 2 * SECOND)
    again = closed.forced(BreakerState.OPEN, "ann", "more", AT + 4 * SECOND)
    assert again.opened_at == AT + 4 * SECOND
    same = held.released("over", AT + 2 * SECOND).forced(BreakerState.OPEN, "bo", "no", AT)
    assert same.opened_at == AT + SECOND
