"""Which calls a worker admits, by the state of the breaker."""

from __future__ import annotations

from datetime import UTC, datetime

from ackbridge.contracts.breaker import BreakerState, BreakerStatus, SendRate
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.control.admission import HalfOpenLimiter

AT = datetime(2026, 1, 1, tzinfo=UTC)


def snapshot(state: BreakerState, *, trickle: bool = False) -> ControlSnapshot:
    """A control whose breaker has this state; half open, with one send in five seconds."""
    breaker = BreakerStatus(state=state, since=AT, reason="r", trickle=trickle)
    rate = SendRate(per_second=0.2 if trickle else 0)
    return ControlSnapshot(provider="acme", version=1, at=AT, breaker=breaker, rate=rate)


def test_the_half_open_limiter() -> None:
    """Closed, all calls pass; open, none; half open, one per interval if sends are the probes."""
    now = 0.0
    limiter = HalfOpenLimiter(lambda: now)
    assert limiter.admits(snapshot(BreakerState.CLOSED))
    assert not limiter.admits(snapshot(BreakerState.OPEN))
    assert not limiter.admits(snapshot(BreakerState.HALF_OPEN))
    probing = snapshot(BreakerState.HALF_OPEN, trickle=True)
    assert limiter.admits(probing)
    assert not limiter.admits(probing)
    now = 4.9
    assert not limiter.admits(probing)
    now = 5.0
    assert limiter.admits(probing)
