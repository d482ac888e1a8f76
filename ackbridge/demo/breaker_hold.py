"""An operator holds the breaker closed while the provider misbehaves on purpose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ackbridge.contracts.breaker import BreakerState, ForceBreaker

from .caller_scripts import OPERATOR
from .records import PROVIDER, Archive


@asynccontextmanager
async def breaker_held(archive: Archive) -> AsyncIterator[None]:
    """Keep the breaker out of it: two dozen sends in vain would open it, and then nothing is sent.

    Raises:
        EngineUnavailable: the engine does not answer.
    """
    control = archive.calls.control(PROVIDER)
    await control.force_breaker(
        ForceBreaker(state=BreakerState.CLOSED, by=OPERATOR, reason="its faults are played")
    )
    try:
        yield
    finally:
        await control.force_breaker(
            ForceBreaker(state=None, by=OPERATOR, reason="the demo is over")
        )
