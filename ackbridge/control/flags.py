# ruff: noqa: ARG002 -- the signatures of `ControlProvider` are OpenFeature's
"""Flags: how they are evaluated for one call, and the OpenFeature providers that do so.

A flag's key is `<provider>` or `<provider>.<operation>`, its value whether a call may be sent. The
evaluation context is the call: `targetingKey` (the key), `provider`, `operation`, `audience`,
`environment`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, FeatureProvider, Metadata

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import ControlSnapshot, FlagState, FlagValue
from ackbridge.errors import ConfigurationError

INTERNAL: Final = "internal"
"""The audience of the calls that a flag in the state `internal` allows."""

CONTEXT_ATTRIBUTES: Final = ("provider", "operation", "audience", "environment")
"""The attributes of the evaluation context, besides the targeting key."""

_REASONS: Final = {
    FlagState.OFF: Reason.DISABLED,
    FlagState.ON: Reason.STATIC,
    FlagState.INTERNAL: Reason.TARGETING_MATCH,
    FlagState.PERCENTAGE: Reason.SPLIT,
}


@dataclass(frozen=True)
class FlagTarget:
    """The call for which a flag is evaluated."""

    provider: str
    operation: str
    key: str
    audience: str | None
    environment: str

    @classmethod
    def of(cls, request: CallRequest, environment: str) -> FlagTarget:
        """The target of a request."""
        return cls(request.provider, request.operation, request.key, request.audience, environment)


def percentile(provider: str, key: str) -> float:
    """The position of a key among all keys of a provider, from 0 to below 100.

    It depends on nothing else: raising a percentage only adds keys, all operations of a provider
    agree about a key, and providers differ in which keys come first.
    """
    number = int.from_bytes(hashlib.sha256(f"{provider}\n{key}".encode()).digest()[:6])
    return number * 100 / 2**48


def allows(flag: FlagValue, target: FlagTarget) -> bool:
    """Whether a flag allows a call."""
    if flag.state is FlagState.INTERNAL:
        return target.audience == INTERNAL
    if flag.percentage is not None:
        return percentile(target.provider, target.key) < flag.percentage
    return flag.state is FlagState.ON


def evaluation_context(target: FlagTarget) -> EvaluationContext:
    """The OpenFeature context of a call."""
    attributes = {name: getattr(target, name) or "" for name in CONTEXT_ATTRIBUTES}
    return EvaluationContext(targeting_key=target.key, attributes=attributes)


class ControlProvider(AbstractProvider):
    """Evaluates the flags that operators set, from the last snapshot of a control, without I/O."""

    def __init__(self, latest: Callable[[str], ControlSnapshot | None]) -> None:
        super().__init__()
        self._latest = latest

    def get_metadata(self) -> Metadata:
        return Metadata(name="AckbridgeControl")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether a call may be sent; the default where no operator has set the flag."""
        provider, _, operation = flag_key.partition(".")
        target = _target(evaluation_context)
        snapshot = self._latest(provider)
        override = snapshot.override(target.environment, operation) if snapshot else None
        if override is None:
            return FlagResolutionDetails(default_value, reason=Reason.DEFAULT)
        return FlagResolutionDetails(
            allows(override, target),
            reason=_REASONS[override.state],
            variant=str(override),
            flag_metadata={
                "by": override.by,
                "reason": override.reason,
                "at": override.at.isoformat(),
            },
        )

    def _refuse_type(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> NoReturn:
        raise TypeMismatchError(f"{flag_key}: flags of providers are boolean")

    resolve_string_details = _refuse_type
    resolve_integer_details = _refuse_type
    resolve_float_details = _refuse_type
    resolve_object_details = _refuse_type


def _target(context: EvaluationContext | None) -> FlagTarget:
    """The call of a context; missing attributes are empty."""
    known = context.attributes if context else {}
    texts = {name: str(known.get(name) or "") for name in CONTEXT_ATTRIBUTES}
    key = (context.targeting_key if context else None) or ""
    return FlagTarget(key=key, **texts)


def flagd() -> FeatureProvider:
    """The OpenFeature provider of flagd, configured by its own `FLAGD_*` variables.

    Raises:
        ConfigurationError: it is not installed, or not configured.
    """
    try:
        # An optional dependency: it brings gRPC.
        from openfeature.contrib.provider.flagd import FlagdProvider
    except ImportError:
        raise ConfigurationError(
            "ACKBRIDGE_FLAGS: flagd is not installed: pip install 'ackbridge[flagd]'"
        ) from None
    try:
        return FlagdProvider()
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(f"FLAGD_*: {error}") from None
