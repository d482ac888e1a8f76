"""Requests within workflow tasks: each provider has a share of its own."""

from __future__ import annotations

from contextlib import ExitStack

from ackbridge.control.admission import RideLimiter


def riding(limiter: RideLimiter, provider: str) -> int:
    """How many requests ride, if nothing limits how many are made."""
    with ExitStack() as stack:
        return sum(stack.enter_context(limiter.ride(provider)) for _ in range(1000))


def test_a_provider_has_its_share() -> None:
    """Whatever rides of others; and the whole of it again when it has ended."""
    limiter = RideLimiter(4)
    with ExitStack() as stack:
        for _ in range(30):
            assert stack.enter_context(limiter.ride("b"))
        assert riding(limiter, "a") == limiter.share == 50
    assert riding(limiter, "b") == 50
