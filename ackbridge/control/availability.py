"""Whether a provider, or some of its operations, are closed to batches. Pure."""

from __future__ import annotations

from ackbridge.contracts.breaker import BreakerState
from ackbridge.contracts.control import (
    WHOLE_PROVIDER,
    ControlSnapshot,
    FlagState,
    IntegrationFlags,
)


def why_closed(
    snapshot: ControlSnapshot | None, configured: IntegrationFlags, environment: str
) -> str | None:
    """Why no parked call may be taken up now; None: they may.

    A batch fights no breaker: not an open one, nor one that is feeling its way.

    Args:
        snapshot: of the provider's control; None: the integration file holds.
        configured: what the integration file says.
    """
    if snapshot is not None and snapshot.breaker.state is not BreakerState.CLOSED:
        state = snapshot.breaker.state.replace("_", "-")
        return f"until the breaker closes, which is {state}: {snapshot.breaker.reason}"
    if _is_off(snapshot, configured, environment, WHOLE_PROVIDER):
        return f"until the provider is switched on in {environment}"
    return None


def closed_operations(
    snapshot: ControlSnapshot | None, configured: IntegrationFlags, environment: str
) -> frozenset[str]:
    """The operations that are switched off, whose calls a batch leaves alone."""
    named = set(configured.flags.get(environment, {}))
    if snapshot is not None:
        named |= set(snapshot.flags.get(environment, {}))
    return frozenset(
        operation
        for operation in named - {WHOLE_PROVIDER}
        if _is_off(snapshot, configured, environment, operation)
    )


def _is_off(
    snapshot: ControlSnapshot | None,
    configured: IntegrationFlags,
    environment: str,
    operation: str,
) -> bool:
    said = snapshot.override(environment, operation) if snapshot is not None else None
    flag = said or configured.flag(environment, operation)
    return flag.state is FlagState.OFF
