"""All integrations of a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ackbridge.errors import UnknownName

from .operation import Operation
from .schema import Integration


@dataclass(frozen=True)
class Catalog:
    """The integrations, by provider."""

    integrations: Mapping[str, Integration]

    def integration(self, provider: str) -> Integration:
        """One provider's integration.

        Raises:
            UnknownName: listing the providers there are.
        """
        try:
            return self.integrations[provider]
        except KeyError:
            known = ", ".join(sorted(self.integrations))
            raise UnknownName(f"provider: there is no {provider!r}; there is {known}") from None

    def operation(self, provider: str, operation: str) -> Operation:
        """One operation of a provider.

        Raises:
            UnknownName: listing the names there are.
        """
        operations = self.integration(provider).operations
        try:
            return operations[operation]
        except KeyError:
            known = ", ".join(sorted(operations))
            raise UnknownName(
                f"operation: {provider} has no {operation!r}; it has {known}"
            ) from None


def check_payload(operation: Operation, payload: Any) -> None:
    """Check a payload against the operation's `payload_schema`.

    Raises:
        Invalid: naming the fields, never their values.
    """
    if operation.payload_schema is not None:
        operation.payload_schema.check(payload)
