"""Which calls a worker admits, by the state of the breaker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ackbridge.contracts.breaker import BreakerState, BreakerStatus, SendRate
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.control.admission import HalfOpenLimiter

AT = datetime(2026, 1, 1, tzinfo=UTC)


def snapshot(
    state: BreakerState, *, trickle: bool = False, order: BreakerState = BreakerState.CLOSED
) -> ControlSnapshot:
    """A control whose breakers have these states; half open, with one send in five seconds."""
    breaker = BreakerStatus(state=state, since=AT, reason="r", trickle=trickle)
    own = BreakerStatus(
        state=order, since=AT, reason="r", trickle=True, probe_every=timedelta(seconds=5)
    )
    return ControlSnapshot(
        provider="acme",
        version=1,
        at=AT,
        breaker=breaker,
        breakers={"order": own},
        rate=SendRate(per_second=0.2 if trickle else 0),
    )


def test_the_half_open_limiter() -> None:
    """Closed, all calls pass; open, none; half open, one per interval if sends are the probes."""
    now = 0.0
    limiter = HalfOpenLimiter(lambda: now)
    assert limiter.admits(snapshot(BreakerState.CLOSED), "order")
    assert not limiter.admits(snapshot(BreakerState.OPEN), "order")
    assert not limiter.admits(snapshot(BreakerState.HALF_OPEN), "order")
    probing = snapshot(BreakerState.HALF_OPEN, trickle=True)
    assert limiter.admits(probing, "order")
    assert not limiter.admits(probing, "quote")
    now = 4.9
    assert not limiter.admits(probing, "order")
    now = 5.0
    assert limiter.admits(probing, "quote")


def test_the_breaker_of_an_operation_limits_only_its_calls() -> None:
    """Each operation has probes of its own; open, it also sends none for the provider's."""
    now = 0.0
    limiter = HalfOpenLimiter(lambda: now)
    opened = snapshot(BreakerState.CLOSED, order=BreakerState.OPEN)
    assert not limiter.admits(opened, "order")
    assert limiter.admits(opened, "quote")
    probing = snapshot(BreakerState.CLOSED, order=BreakerState.HALF_OPEN)
    assert limiter.admits(probing, "order")
    assert not limiter.admits(probing, "order")
    assert limiter.admits(probing, "quote")
    now = 5.0
    assert limiter.admits(probing, "order")
    now = 50.0
    both = snapshot(BreakerState.HALF_OPEN, trickle=True, order=BreakerState.OPEN)
    assert not limiter.admits(both, "order")
    assert limiter.admits(both, "quote")


def test_an_operators_breaker_of_the_provider_is_above_those_of_operations() -> None:
    """Held closed, everything is sent."""
    failing = snapshot(BreakerState.CLOSED, order=BreakerState.OPEN)
    held = failing.breaker.forced(BreakerState.CLOSED, "ann", "send all the same", AT)
    assert HalfOpenLimiter().admits(failing.model_copy(update={"breaker": held}), "order")
