"""The flags of an integration file, as the control of its provider knows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ackbridge.contracts.control import WHOLE_PROVIDER, FlagState, FlagValue, IntegrationFlags

from .schema import Integration


def configured_flags(integration: Integration) -> IntegrationFlags:
    """What the file says of its provider and of every operation, in each environment it names."""
    written: dict[str, Mapping[str, str | float]] = {WHOLE_PROVIDER: integration.flag}
    written |= {name: operation.flag for name, operation in integration.operations.items()}
    flags: dict[str, dict[str, FlagValue]] = {}
    for name, by_environment in sorted(written.items()):
        for environment, flag in sorted(by_environment.items()):
            flags.setdefault(environment, {})[name] = _value(flag)
    return IntegrationFlags(flags=flags, operations=tuple(sorted(integration.operations)))


def _value(flag: str | float) -> FlagValue:
    if isinstance(flag, str):
        return FlagValue(state=FlagState(flag))
    return FlagValue(state=FlagState.PERCENTAGE, percentage=flag)
