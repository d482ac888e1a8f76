"""Requests within workflow tasks: each provider has a share, a slow one has little of it."""

from __future__ import annotations

from contextlib import ExitStack

from ackbridge.control.admission import MIN_RIDES, SLOW_RIDE, RideLimiter


class Rides:
    """A limiter, and its clock."""

    def __init__(self, providers: int) -> None:
        self.now = 0.0
        self.limiter = RideLimiter(providers, lambda: self.now)

    def take(self, provider: str, seconds: float, times: int) -> None:
        """Requests one after the other."""
        for _ in range(times):
            with self.limiter.ride(provider):
                self.now += seconds

    def at_once(self, provider: str) -> int:
        """How many requests ride, if nothing limits how many are made."""
        with ExitStack() as stack:
            rides = (stack.enter_context(self.limiter.ride(provider)) for _ in range(1000))
            return sum(rides)


def test_a_provider_has_its_share() -> None:
    """Whatever rides of others; and the whole of it again when it has ended."""
    rides = Rides(4)
    with ExitStack() as stack:
        for _ in range(30):
            assert stack.enter_context(rides.limiter.ride("b"))
        assert rides.at_once("a") == rides.limiter.share == 50
    assert rides.at_once("b") == 50


def test_a_slow_provider_rides_less_until_it_is_quick_again() -> None:
    """Its neighbours keep theirs."""
    rides = Rides(1)
    rides.take("a", 5 * SLOW_RIDE, 20)
    assert rides.at_once("a") == MIN_RIDES
    assert rides.at_once("b") == rides.limiter.share
    rides.take("a", 0.1, 40)
    assert rides.at_once("a") == rides.limiter.share


def test_one_slow_request_changes_nothing() -> None:
    """Only an average of several does."""
    rides = Rides(1)
    rides.take("a", 0.1, 20)
    rides.take("a", 5 * SLOW_RIDE, 1)
    assert rides.at_once("a") == rides.limiter.share
