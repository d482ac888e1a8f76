"""Which calls a breaker lets through: all when closed, none when open, a few half open."""

from __future__ import annotations

import time
from collections.abc import Callable

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.control import ControlSnapshot


class HalfOpenLimiter:
    """Of one worker. All workers together are bounded by the rate of the provider's queue."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Let the first one through.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._let_through: dict[str, float] = {}

    def admits(self, snapshot: ControlSnapshot) -> bool:
        """Whether a call may be sent; half open, its send may be one that tells."""
        state = snapshot.breaker.state
        if state is BreakerState.CLOSED:
            return True
        rate = snapshot.rate.per_second if snapshot.rate else None
        if state is BreakerState.OPEN or not snapshot.breaker.trickle or not rate:
            return False
        now = self._clock()
        last = self._let_through.get(snapshot.provider)
        if last is not None and now - last < 1 / rate:
            return False
        self._let_through[snapshot.provider] = now
        return True
