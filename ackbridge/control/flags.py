"""What a flag says about one call. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import FlagState, FlagValue

INTERNAL = "internal"
"""The audience of calls that a flag of the same name lets through."""


@dataclass(frozen=True)
class Target:
    """The call that a flag is asked about."""

    provider: str
    operation: str
    key: str
    audience: str | None
    environment: str

    @classmethod
    def of(cls, request: CallRequest, environment: str) -> Target:
        """The call of a request."""
        return cls(request.provider, request.operation, request.key, request.audience, environment)


def place(provider: str, key: str) -> float:
    """Where a key stands among all keys of a provider: from 0, always below 100.

    It depends on nothing else: raising a percentage only ever adds keys, all operations of a
    provider agree about a key, and another provider's first keys are others.
    """
    number = int.from_bytes(hashlib.sha256(f"{provider}\n{key}".encode()).digest()[:6])
    return number * 100 / 2**48


def allows(value: FlagValue, target: Target) -> bool:
    """Whether a flag lets a call through."""
    if value.state is FlagState.INTERNAL:
        return target.audience == INTERNAL
    if value.percentage is not None:
        return place(target.provider, target.key) < value.percentage
    return value.state is FlagState.ON
