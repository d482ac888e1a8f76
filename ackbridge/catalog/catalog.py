"""The integrations and subscribers that a process has loaded, and what others read from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from ackbridge.contracts.control import WHOLE_PROVIDER, FlagState, FlagValue, IntegrationFlags
from ackbridge.contracts.edge import Network
from ackbridge.errors import ConfigurationError, UnknownNameError, unknown_name
from ackbridge.http.client import Pool
from ackbridge.http.egress import Egress
from ackbridge.security.encryption import Encryption
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.tls import TlsContext

from .expressions import Expression
from .model import Integration, Operation
from .subscribers import Subscriber
from .templates import BodyTemplate, Template

Found = TypeVar("Found")


@dataclass(frozen=True)
class Catalog:
    """Integrations by provider, and subscribers by name."""

    integrations: Mapping[str, Integration]
    subscribers: Mapping[str, Subscriber] = field(default_factory=dict)

    def integration(self, provider: str) -> Integration:
        """Find a provider's integration.

        Raises:
            UnknownNameError: listing the known providers.
        """
        return _find("provider", provider, self.integrations)

    def operation(self, provider: str, operation: str) -> Operation:
        """Find an operation of a provider.

        Raises:
            UnknownNameError: listing the known providers, or the provider's operations.
        """
        operations = self.integration(provider).operations
        return _find("operation", operation, operations, f"{provider}: ")

    def subscriber(self, name: str) -> Subscriber:
        """Find a subscriber.

        Raises:
            UnknownNameError: listing the known subscribers.
        """
        return _find("subscriber", name, self.subscribers, "reply_to: ")


def _find(what: str, name: str, known: Mapping[str, Found], prefix: str = "") -> Found:
    if name not in known:
        raise UnknownNameError(prefix + unknown_name(what, name, known))
    return known[name]


def check_payload(operation: Operation, payload: Any) -> None:
    """Validate a payload against the operation's `payload_schema`.

    Raises:
        InvalidInputError: naming the fields, never their values.
    """
    if operation.payload_schema is not None:
        operation.payload_schema.check(payload)


def next_batch(
    integration: Integration, operation: str, now: datetime, reason: str | None = None
) -> datetime | None:
    """When a scheduled batch selects a call that is parked now, at the latest; None if none does.

    Args:
        reason: why the call is parked, if that is known.
    """
    schedule = integration.reprocess
    return None if schedule is None else schedule.selects_at(operation, now, reason)


def secret_refs(integration: Integration) -> tuple[str, ...]:
    """The references that expressions of an integration resolve with `secret()`."""
    refs = (ref for expression in _expressions_in(integration) for ref in expression.secrets)
    return tuple(dict.fromkeys(refs))


def _expressions_in(part: Any) -> Iterator[Expression]:
    match part:
        case Expression():
            yield part
        case Template() | BodyTemplate():
            yield from part.expressions
        case BaseModel():
            for name in type(part).model_fields:
                yield from _expressions_in(getattr(part, name))
        case dict():
            for inner in part.values():
                yield from _expressions_in(inner)
        case list() | tuple():
            for inner in part:
                yield from _expressions_in(inner)


def sensitive_fields(integration: Integration) -> tuple[str, ...]:
    """The sensitive fields of all operations, for messages of which no operation is known yet."""
    return tuple(path for one in integration.operations.values() for path in one.sensitive)


def require_keys(catalog: Catalog, encryption: Encryption | None) -> None:
    """Check that what operations declare as sensitive is encrypted.

    Raises:
        ConfigurationError: there are no keys.
    """
    if encryption is not None:
        return
    for provider, integration in sorted(catalog.integrations.items()):
        for name, operation in sorted(integration.operations.items()):
            if operation.sensitive:
                raise ConfigurationError(
                    f"{provider}.{name} has `sensitive` fields, which are stored encrypted:"
                    " set ACKBRIDGE_ENCRYPTION_KEYS"
                )


def build_redactors(
    catalog: Catalog, secrets: Secrets, auths: Mapping[str, httpx.Auth | None] | None = None
) -> dict[str, Redactor]:
    """Build each provider's redactor, which removes the provider's secrets from texts.

    Args:
        auths: by provider, the result of `build_auth`, in a process that sends requests.
    """
    known = auths or {}
    return {
        name: Redactor(
            integration.auth,
            integration.callbacks.verify if integration.callbacks else None,
            secrets,
            known.get(name),
            secret_refs(integration),
            integration.code.refs,
        )
        for name, integration in catalog.integrations.items()
    }


def connection_pool(
    part: Integration | Subscriber,
    secrets: Secrets,
    networks: Sequence[Network],
    connections: int | None = None,
) -> Pool:
    """The connections to a provider or a subscriber.

    Args:
        secrets: finds the files of `tls`.
        networks: that the deployment allows besides those of the file.
        connections: how many there may be; None: as many as usual.
    """
    tls = TlsContext(part.tls, secrets) if part.tls is not None else None
    return Pool(connections, Egress((*networks, *part.private_networks)), tls)


def configured_flags(integration: Integration) -> IntegrationFlags:
    """The flags that the file sets for its provider and each operation, by environment."""
    configured: dict[str, Mapping[str, str | float]] = {WHOLE_PROVIDER: integration.flag}
    configured |= {name: operation.flag for name, operation in integration.operations.items()}
    flags: dict[str, dict[str, FlagValue]] = {}
    for name, by_environment in sorted(configured.items()):
        for environment, flag in sorted(by_environment.items()):
            flags.setdefault(environment, {})[name] = _flag_value(flag)
    operations = sorted(integration.operations.items())
    return IntegrationFlags(
        flags=flags,
        operations=tuple(name for name, _ in operations),
        bulk=tuple(name for name, operation in operations if operation.lane == "bulk"),
    )


def _flag_value(flag: str | float) -> FlagValue:
    if isinstance(flag, str):
        return FlagValue(state=FlagState(flag))
    return FlagValue(state=FlagState.PERCENTAGE, percentage=flag)
