"""The breakers' state machines: their transitions and their invariants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ackbridge.contracts.breaker import (
    NO_COUNTS,
    BreakerCounts,
    BreakerPolicy,
    BreakerState,
    BreakerStatus,
    MonitorState,
    SendRamp,
)
from ackbridge.control.breaker import NEWS_WITHIN, BreakerRules, evaluate, send_rate
from ackbridge.stats.counters import Count

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = BreakerPolicy()
OUTCOMES = ("answered", "failed", "responded", "silent")
HEALTH = (None, Count.HEALTHY, Count.UNHEALTHY, Count.UNCLEAR)

TALLIES = st.builds(BreakerCounts, **{name: st.integers(0, 12) for name in OUTCOMES})
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
TICKS = st.lists(st.tuples(st.integers(1, 30), TALLIES, st.sampled_from(HEALTH)), max_size=60)


class Driven:
    """The breakers of a provider, driven as by the control loop; operations report at each tick."""

    def __init__(
        self,
        policy: BreakerPolicy | None = POLICY,
        *,
        has_health: bool = False,
        limit: float | None = None,
        extendable: tuple[str, ...] = (),
    ) -> None:
        self.rules = BreakerRules(policy, limit=limit, health_every=SECOND if has_health else None)
        self.now = AT
        self.provider = BreakerStatus.initial(AT)
        self.breakers: dict[str, BreakerStatus] = {}
        self.extendable = extendable
        self.extended: list[tuple[str, bool]] = []
        self._monitor = MonitorState()

    def tick(
        self, seconds: float, health: Count | None = None, **counts: BreakerCounts
    ) -> tuple[BreakerStatus, BreakerStatus]:
        """Advance the time, report counts by operation.

        Returns:
            The provider's breaker before and after.
        """
        self.now += timedelta(seconds=seconds)
        before, report = self.provider, self.now.isoformat()
        found = evaluate(
            self.rules,
            before,
            self.breakers,
            self._monitor,
            {name: {report: tally} for name, tally in counts.items()},
            health,
            self.now,
            extendable=self.extendable,
        )
        self.provider, self._monitor = found.breaker, found.monitor
        self.breakers.update(found.breakers)
        self.extended += found.to_extend.items()
        return before, self.provider

    def state(self, operation: str) -> BreakerState:
        """The state of an operation's own breaker."""
        found = self.breakers.get(operation)
        return found.state if found else BreakerState.CLOSED


def failed(number: int = 1, **more: int) -> BreakerCounts:
    return BreakerCounts(failed=number, **more)


def answered(number: int = 1) -> BreakerCounts:
    """Calls that were answered, and got their response."""
    return BreakerCounts(answered=number, responded=number)


def silent(number: int = 1) -> BreakerCounts:
    """Calls that got a receipt, and no response."""
    return BreakerCounts(answered=number, silent=number)


@given(policy=POLICIES, ticks=TICKS, has_health=st.booleans(), limit=st.none() | st.floats(0, 50))
@settings(max_examples=200)
def test_invariants(
    policy: BreakerPolicy, ticks: Any, has_health: bool, limit: float | None
) -> None:
    """It closes only from half open, keeps its pauses, and never exceeds the limit."""
    driven = Driven(policy, has_health=has_health, limit=limit)
    for seconds, tally, health in ticks:
        own_before = driven.state("order")
        before, after = driven.tick(seconds, health if has_health else None, order=tally)
        for steps in ((before.state, after.state), (own_before, driven.state("order"))):
            assert steps != (BreakerState.OPEN, BreakerState.CLOSED)
            assert steps != (BreakerState.CLOSED, BreakerState.HALF_OPEN)
        assert (before.state is after.state) is (before.since == after.since)
        if (before.state, after.state) == (BreakerState.OPEN, BreakerState.HALF_OPEN):
            assert driven.now - before.since >= min(policy.open_for, policy.pause(1))
            assert before.until is not None
            assert before.until <= driven.now
        if after.state is BreakerState.OPEN:
            assert after.until is not None
            assert after.until - after.since == policy.pause(after.openings)
        if after.state is BreakerState.OPEN and before.state is not BreakerState.OPEN:
            assert after.openings == before.openings + 1
        rate = send_rate(policy, after, limit)
        assert (rate == 0) if after.state is BreakerState.OPEN else (rate is None or rate >= 0)
        assert limit is None or rate is None or rate <= limit
        assert not after.is_unrestricted or rate == limit


@given(policy=POLICIES, ticks=TICKS, state=st.sampled_from(BreakerState))
@settings(max_examples=50)
def test_a_forced_breaker_stays(policy: BreakerPolicy, ticks: Any, state: Any) -> None:
    """No counts change a forced breaker until it is released."""
    driven = Driven(policy)
    driven.provider = held = driven.provider.forced(state, "ann", "maintenance", AT)
    driven.breakers["order"] = held
    for seconds, tally, _ in ticks:
        driven.tick(seconds, order=tally)
    assert driven.provider is held
    assert driven.breakers["order"] is held
    released = held.released("done", driven.now)
    assert released.forced_by is None
    assert released.is_unrestricted is (state is BreakerState.CLOSED)


@given(ticks=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 50)), max_size=60))
@settings(max_examples=50)
def test_success_alone_changes_nothing(ticks: Any) -> None:
    """Without failures the breakers stay closed, and none is published for an operation."""
    driven = Driven()
    for seconds, number in ticks:
        driven.tick(seconds, order=answered(number))
    assert driven.provider == BreakerStatus.initial(AT)
    assert driven.breakers == {}


@given(policy=POLICIES, ticks=TICKS, limit=st.none() | st.floats(1, 50))
@settings(max_examples=25)
def test_they_recover_from_any_state(
    policy: BreakerPolicy, ticks: Any, limit: float | None
) -> None:
    """With nothing but successes all end up closed, without a ramp."""
    driven = Driven(policy, has_health=True, limit=limit)
    for seconds, tally, health in ticks:
        driven.tick(seconds, health, order=tally)
    for _ in range(150):
        driven.tick(10, Count.HEALTHY, order=answered(3))
    assert driven.provider.is_unrestricted
    assert driven.state("order") is BreakerState.CLOSED
    assert send_rate(policy, driven.provider, limit) == limit


@pytest.mark.parametrize(
    ("tally", "is_open", "reason"),
    [
        (failed(13, answered=7), False, ""),
        (failed(14, answered=6), True, "14 of 20 calls failed within 30 s; pause of 30 s"),
        (failed(165, answered=135), True, "165 of 300 calls failed within 30 s; pause of 30 s"),
        (failed(9), False, ""),
        (failed(10), True, "10 calls failed in a row; pause of 30 s"),
        (
            BreakerCounts(answered=50, responded=5, silent=15),
            True,
            "15 of 20 calls timed out within 30 s; pause of 30 s",
        ),
    ],
)
def test_what_opens_a_breaker(tally: BreakerCounts, is_open: bool, reason: str) -> None:
    """A clear error rate at a minimum volume, or a streak; receipts do not offset silences."""
    driven = Driven()
    driven.tick(1, order=tally)
    assert (driven.state("order") is BreakerState.OPEN) is is_open
    assert driven.provider.state is driven.state("order")
    assert not is_open or driven.provider.reason == driven.breakers["order"].reason == reason


def test_old_failures_do_not_count() -> None:
    """The window slides: older counts are dropped."""
    driven = Driven()
    driven.tick(1, order=failed(9, answered=1))
    driven.tick(31, order=failed(9, answered=9))
    assert driven.state("order") is BreakerState.CLOSED


def test_health_requests_alone_open_nothing() -> None:
    driven = Driven(has_health=True)
    for _ in range(50):
        driven.tick(1, Count.UNHEALTHY)
    assert driven.provider.is_unrestricted


def test_one_operation_does_not_stop_the_others() -> None:
    """Its own breaker opens, closes by its own successes, and leaves the queue's rate alone."""
    driven = Driven()
    for _ in range(10):
        driven.tick(2, refund=failed(1), order=answered(8))
    assert driven.state("refund") is BreakerState.OPEN
    assert driven.provider.is_unrestricted
    driven.tick(30, order=answered(8))
    assert driven.state("refund") is BreakerState.HALF_OPEN
    assert driven.breakers["refund"].probe_every == POLICY.probe_every
    driven.tick(2, Count.HEALTHY, order=answered(8))
    assert driven.state("refund") is BreakerState.HALF_OPEN, "others say nothing about it"
    driven.tick(15, refund=answered(3))
    assert driven.state("refund") is BreakerState.CLOSED
    assert driven.provider.is_unrestricted


def test_the_provider_opens_when_most_operations_fail() -> None:
    """Of those in use; the reason names one."""
    driven = Driven()
    for _ in range(10):
        driven.tick(2, refund=failed(1), order=answered(8), quote=answered(1))
    assert driven.provider.is_unrestricted
    driven.tick(2, order=failed(10))
    assert driven.provider.state is BreakerState.OPEN
    expected = "2 of 3 operations fail; order: 10 calls failed in a row; pause of 30 s"
    assert driven.provider.reason == expected


def test_operations_out_of_use_have_no_say() -> None:
    """A quarter of an hour later, the one that is left is all of the provider."""
    driven = Driven()
    driven.tick(1, refund=answered(1), order=answered(1), quote=answered(1))
    driven.tick(16 * 60, order=failed(10))
    assert driven.provider.state is BreakerState.OPEN


def test_an_operation_that_has_failed_and_is_not_used_has_no_say() -> None:
    """Not even though its breaker stays half open until its next calls."""
    driven = Driven()
    driven.tick(1, order=answered(1), quote=answered(1), refund=answered(1))
    driven.tick(1, refund=failed(10))
    driven.tick(31, order=answered(1), quote=answered(1))
    driven.tick(16 * 60, order=answered(1), quote=answered(1))
    assert driven.state("refund") is BreakerState.HALF_OPEN
    driven.tick(2, order=failed(10), quote=answered(1))
    assert driven.state("order") is BreakerState.OPEN
    assert driven.provider.is_unrestricted


def test_health_closes_only_the_provider() -> None:
    """The operation is still probed with single sends."""
    driven = Driven(has_health=True)
    driven.tick(1, order=failed(10))
    driven.tick(30)
    assert driven.provider.state is driven.state("order") is BreakerState.HALF_OPEN
    assert send_rate(POLICY, driven.provider, None) == 0, "the health request goes first"
    driven.tick(0, Count.HEALTHY)
    assert send_rate(POLICY, driven.provider, None) == 0.2
    driven.tick(5, Count.HEALTHY)
    driven.tick(5, Count.HEALTHY)
    assert driven.provider.step == 0
    assert driven.state("order") is BreakerState.HALF_OPEN
    driven.tick(5, order=answered(3))
    assert driven.state("order") is BreakerState.CLOSED


def test_a_failing_health_request_costs_no_pause() -> None:
    """It goes on every interval, and recovery is seen with the next one."""
    driven = Driven(has_health=True)
    driven.tick(1, order=failed(10))
    driven.tick(30)
    for _ in range(5):
        driven.tick(5, Count.UNHEALTHY)
    assert driven.provider.state is BreakerState.HALF_OPEN
    assert send_rate(POLICY, driven.provider, None) == 0
    driven.tick(5, Count.HEALTHY)
    assert send_rate(POLICY, driven.provider, None) == 0.2


def test_a_broken_health_page_keeps_no_calls_back_for_ever() -> None:
    """After as long as the pause was, single sends show whether the provider is well again."""
    driven = Driven(has_health=True)
    driven.tick(1, order=failed(10))
    driven.tick(30)
    for _ in range(6):
        driven.tick(5, Count.UNHEALTHY)
    assert send_rate(POLICY, driven.provider, None) == 0.2
    driven.tick(15, Count.UNHEALTHY, order=answered(3))
    assert driven.provider.state is driven.state("order") is BreakerState.CLOSED


def test_unclear_health_requests_are_replaced_by_single_sends() -> None:
    """A wrong health path does not keep the breaker open for ever."""
    driven = Driven(has_health=True)
    driven.tick(1, order=failed(10))
    driven.tick(30)
    assert send_rate(POLICY, driven.provider, None) == 0
    driven.tick(5, Count.UNCLEAR)
    assert send_rate(POLICY, driven.provider, None) == 0.2


def test_pauses_grow_until_a_recovery() -> None:
    """By half, up to the longest; so the last one is at most half of the outage before it."""
    driven = Driven()
    driven.tick(1, order=failed(10))
    pauses = []
    for _ in range(7):
        breaker = driven.breakers["order"]
        assert breaker.until is not None
        pauses.append((breaker.until - breaker.since).total_seconds())
        driven.tick(pauses[-1])
        assert driven.state("order") is driven.provider.state is BreakerState.HALF_OPEN
        driven.tick(15, order=failed(3))
    assert pauses == [30, 45, 67.5, 101.25, 120, 120, 120]
    driven.tick(120)
    driven.tick(15, order=answered(3))
    steps = [driven.tick(10, order=answered(5))[1].step for _ in range(6)]
    assert steps == [1, 2, 3, 4, 5, None]
    assert driven.breakers["order"].step is None
    driven.tick(1, order=failed(10))
    assert driven.provider.reason.endswith("pause of 30 s")


def test_one_bad_probe_does_not_open_it_again() -> None:
    """As many failures as successes are needed: the call may be to blame."""
    driven = Driven()
    driven.tick(1, order=failed(10))
    driven.tick(30)
    driven.tick(5, order=failed(2))
    assert driven.state("order") is BreakerState.HALF_OPEN
    driven.tick(15, order=answered(3))
    assert driven.state("order") is driven.provider.state is BreakerState.CLOSED


def test_the_ramp_of_sends() -> None:
    """No sends while open, single sends while half open, then twice as many in every step."""
    driven = Driven(limit=25.0)
    driven.tick(1, order=failed(10))
    rates = [send_rate(POLICY, driven.provider, 25.0)]
    driven.tick(30)
    rates.append(send_rate(POLICY, driven.provider, 25.0))
    driven.tick(15, order=answered(3))
    rates.append(send_rate(POLICY, driven.provider, 25.0))
    for _ in range(5):
        driven.tick(10, order=answered(3))
        rates.append(send_rate(POLICY, driven.provider, 25.0))
    assert rates == [0, 0.2, 1, 2, 4, 8, 16, 25]
    assert driven.provider.is_unrestricted


def test_failures_on_the_ramp() -> None:
    """Most failing extends the step, some do not; three in a row open it again."""
    driven = Driven()
    driven.tick(1, order=failed(10))
    driven.tick(30)
    driven.tick(15, order=answered(3))
    driven.tick(10, order=failed(1, answered=9))
    assert driven.provider.step == 1
    driven.tick(11, order=failed(6, answered=5))
    assert driven.provider.step == 1
    driven.tick(11, order=answered(3))
    assert driven.provider.step == 2
    driven.tick(1, order=failed(3))
    assert driven.provider.reason == "3 calls failed in a row; pause of 30 s"


def test_silence_is_ended_by_responses_only() -> None:
    """Opened for silence, neither health requests nor receipts close the breaker."""
    driven = Driven(has_health=True)
    driven.tick(1, order=silent(10))
    assert driven.provider.for_silence
    driven.tick(30)
    assert driven.provider.trickle
    driven.tick(5, Count.HEALTHY, order=BreakerCounts(answered=3))
    driven.tick(5, Count.HEALTHY, order=BreakerCounts(answered=3))
    assert driven.provider.state is driven.state("order") is BreakerState.HALF_OPEN
    driven.tick(600, order=BreakerCounts(silent=3))
    assert driven.breakers["order"].openings == 2
    driven.tick(60)
    driven.tick(5, order=BreakerCounts(responded=3))
    assert driven.provider.step == 0
    assert driven.extended == [("order", True)], "what was learned of it was wrong"


def test_a_learned_deadline_is_extended_before_the_breaker_opens() -> None:
    """Slower, or silent? The first silences may be of a deadline that is too short now."""
    driven = Driven(extendable=("order",))
    driven.tick(1, order=silent(10))
    assert driven.state("order") is BreakerState.CLOSED
    assert driven.extended == [("order", False)]
    assert driven.breakers["order"].judged_from == driven.now
    driven.extendable = ()
    driven.tick(2, order=silent(10))
    assert driven.state("order") is BreakerState.CLOSED, "reported by the old deadline"
    driven.tick(NEWS_WITHIN / SECOND, order=silent(10))
    assert driven.state("order") is BreakerState.OPEN


def test_without_a_policy_only_an_operator_changes_it() -> None:
    """`breaker: null` in the file: it never opens by itself, and closes if it was open."""
    driven = Driven(None)
    driven.tick(1, order=failed(100))
    assert driven.provider.is_unrestricted
    assert driven.breakers == {}
    driven.provider = held = driven.provider.forced(BreakerState.OPEN, "ann", "maintenance", AT)
    driven.tick(1, order=failed(100))
    assert driven.provider is held
    assert send_rate(None, held, 25.0) == 0
    driven.provider = held.released("done", driven.now)
    driven.tick(1, order=NO_COUNTS)
    assert driven.provider.is_unrestricted


def test_openings_in_a_row_are_one_outage() -> None:
    """It begins with the failures that opened the breaker, and ends with the ramp."""
    driven = Driven()
    driven.tick(100, order=failed(10))
    began = driven.now - POLICY.window
    for _ in range(2):
        driven.tick(600)
        driven.tick(15, order=failed(3))
        assert driven.provider.opened_at == driven.breakers["order"].opened_at == began
    driven.tick(600)
    driven.tick(15, order=answered(3))
    assert (driven.provider.step, driven.provider.opened_at) == (0, began)
    driven.tick(1, order=failed(3))
    assert (driven.provider.state, driven.provider.opened_at) == (BreakerState.OPEN, began)
    driven.tick(600)
    driven.tick(15, order=answered(3))
    for _ in range(6):
        driven.tick(10, order=answered(5))
    assert driven.provider.is_unrestricted
    driven.tick(100, order=failed(10))
    assert driven.provider.opened_at == driven.now - POLICY.window
    assert driven.breakers["order"].opened_at == driven.now - POLICY.window


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


def test_an_outage_begins_with_the_first_silences() -> None:
    """Also if the breaker waited to know whether it is slower; not if it was only slower then."""
    driven = Driven(extendable=("order",))
    driven.tick(100, order=silent(20))
    began = driven.now - POLICY.window
    assert driven.breakers["order"].opened_at == began
    driven.tick(100, order=silent(20))
    driven.extendable = ()
    driven.tick(100, order=silent(20))
    assert driven.state("order") is BreakerState.OPEN
    assert driven.breakers["order"].opened_at == began

    driven = Driven(extendable=("order",))
    driven.tick(100, order=silent(20))
    driven.tick(100, order=answered(5))
    assert driven.breakers["order"].opened_at is None
