"""All integrations and subscribers of a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from ackbridge.contracts.control import WHOLE_PROVIDER, FlagState, FlagValue, IntegrationFlags
from ackbridge.errors import UnknownNameError
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets

from .model import Integration, Operation
from .subscribers import Subscriber


@dataclass(frozen=True)
class Catalog:
    """The integrations, by provider, and the subscribers, by name."""

    integrations: Mapping[str, Integration]
    subscribers: Mapping[str, Subscriber] = field(default_factory=dict)

    def integration(self, provider: str) -> Integration:
        """One provider's integration.

        Raises:
            UnknownNameError: listing the providers there are.
        """
        try:
            return self.integrations[provider]
        except KeyError:
            known = ", ".join(sorted(self.integrations))
            raise UnknownNameError(
                f"provider: there is no {provider!r}; there is {known}"
            ) from None

    def operation(self, provider: str, operation: str) -> Operation:
        """One operation of a provider.

        Raises:
            UnknownNameError: listing the names there are.
        """
        operations = self.integration(provider).operations
        try:
            return operations[operation]
        except KeyError:
            known = ", ".join(sorted(operations))
            raise UnknownNameError(
                f"operation: {provider} has no {operation!r}; it has {known}"
            ) from None

    def subscriber(self, name: str) -> Subscriber:
        """One subscriber.

        Raises:
            UnknownNameError: there is none of that name.
        """
        try:
            return self.subscribers[name]
        except KeyError:
            raise UnknownNameError(f"reply_to: no subscriber {name!r} is configured") from None


def next_batch(
    integration: Integration, operation: str, now: datetime, reason: str | None = None
) -> datetime | None:
    """When a call that is parked now is taken up again at the latest, by the schedule of its file.

    Args:
        reason: why it is parked, if that is known.
    """
    plan = integration.reprocess
    return None if plan is None else plan.takes_up(operation, now, reason)


def build_redactors(
    catalog: Catalog, secrets: Secrets, sessions: Mapping[str, httpx.Auth | None] | None = None
) -> dict[str, Redactor]:
    """By provider, what keeps its secrets out of its words.

    Args:
        sessions: by provider, what `build_auth` has made, where the process speaks to it.
    """
    held = sessions or {}
    return {
        name: Redactor(
            integration.auth,
            integration.callbacks.verify if integration.callbacks else None,
            secrets,
            held.get(name),
        )
        for name, integration in catalog.integrations.items()
    }


def check_payload(operation: Operation, payload: Any) -> None:
    """Check a payload against the operation's `payload_schema`.

    Raises:
        Invalid: naming the fields, never their values.
    """
    if operation.payload_schema is not None:
        operation.payload_schema.check(payload)


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
