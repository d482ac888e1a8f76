# ruff: noqa: ARG002 -- the signatures are OpenFeature's
"""Provider control as a provider of OpenFeature: its flags are what operators have said.

A flag's key is `<provider>` or `<provider>.<operation>`, its value whether a call may be sent. The
context is the call: `targetingKey` (the key), `provider`, `operation`, `audience`, `environment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from ackbridge.contracts.control import ControlSnapshot, FlagState

from .flags import Target, allows

CONTEXT = ("provider", "operation", "audience", "environment")
"""The attributes of the evaluation context, besides the targeting key."""

_REASONS = {
    FlagState.OFF: Reason.DISABLED,
    FlagState.ON: Reason.STATIC,
    FlagState.INTERNAL: Reason.TARGETING_MATCH,
    FlagState.PERCENTAGE: Reason.SPLIT,
}


def context_of(target: Target) -> EvaluationContext:
    """The evaluation context of a call."""
    attributes = {name: getattr(target, name) or "" for name in CONTEXT}
    return EvaluationContext(targeting_key=target.key, attributes=attributes)


class ControlProvider(AbstractProvider):
    """Answers from the last snapshot of a provider's control, at once and without I/O."""

    def __init__(self, latest: Callable[[str], ControlSnapshot | None]) -> None:
        super().__init__()
        self._latest = latest

    def get_metadata(self) -> Metadata:
        """Who answers."""
        return Metadata(name="AckbridgeControl")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether a call may be sent; the default where no operator has said anything."""
        provider, _, operation = flag_key.partition(".")
        target = _target(evaluation_context)
        snapshot = self._latest(provider)
        word = snapshot.override(target.environment, operation) if snapshot else None
        if word is None:
            return FlagResolutionDetails(default_value, reason=Reason.DEFAULT)
        return FlagResolutionDetails(
            allows(word, target),
            reason=_REASONS[word.state],
            variant=str(word),
            flag_metadata={"by": word.by, "reason": word.reason, "at": word.at.isoformat()},
        )

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """Not a flag of ours."""
        _refuse(flag_key)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """Not a flag of ours."""
        _refuse(flag_key)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """Not a flag of ours."""
        _refuse(flag_key)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """Not a flag of ours."""
        _refuse(flag_key)


def _target(context: EvaluationContext | None) -> Target:
    """The call of a context; what it does not say is empty."""
    known = context.attributes if context else {}
    texts = {name: str(known.get(name) or "") for name in CONTEXT}
    key = (context.targeting_key if context else None) or ""
    return Target(key=key, **texts)


def _refuse(flag_key: str) -> NoReturn:
    raise TypeMismatchError(f"{flag_key}: flags of providers are true or false")
