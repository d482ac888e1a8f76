"""What the activities of one worker share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx

from ackbridge.catalog.catalog import Catalog, secret_refs
from ackbridge.catalog.model import Integration
from ackbridge.clock import Clock
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, texts_at
from ackbridge.control.admission import Admission, RideLimiter
from ackbridge.control.snapshots import Snapshots
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.callback_urls import CallbackUrls
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import Credential, UrlVerify
from ackbridge.stats.counters import Counters

_PATTERNS_ONLY = Redactor()


@dataclass(frozen=True)
class Dependencies:
    """Built once by the worker; activities read no settings and build no clients.

    Attributes:
        auths: how requests are authenticated, by provider.
        clock: for timestamps; deadlines use the workflow's clock.
        public_url: where providers reach the gateway.
        snapshots: the latest state of the providers' controls.
        has_search_attributes: whether ours are registered with the engine.
        secrets: resolves the secret references of subscribers.
        redactors: remove secrets from a provider's texts, by provider; without one only what
            looks like a secret is removed.
        rides: bounds requests within workflow tasks.
    """

    catalog: Catalog
    ledger: Ledger
    http: httpx.AsyncClient
    auths: Mapping[str, httpx.Auth | None]
    clock: Clock
    public_url: str
    snapshots: Snapshots
    admission: Admission
    has_search_attributes: bool
    secrets: Secrets = field(default_factory=lambda: Secrets({}, Path()))
    redactors: Mapping[str, Redactor] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    rides: RideLimiter = field(default_factory=RideLimiter)

    @cached_property
    def credentials(self) -> Mapping[str, Sequence[Credential]]:
        """The references to users and secrets that each provider's requests need."""
        return {
            name: (
                *(used for spec in one.auth for used in spec.credentials()),
                *(("", ref) for ref in secret_refs(one)),
                *_url_credentials(one),
            )
            for name, one in self.catalog.integrations.items()
        }

    def redactor(self, request: CallRequest) -> Redactor:
        """Removes the secrets of the provider, and what is sensitive in the call's payload."""
        redactor = self.redactors.get(request.provider, _PATTERNS_ONLY)
        integration = self.catalog.integrations.get(request.provider)
        operation = integration and integration.operations.get(request.operation)
        if not operation or not operation.sensitive:
            return redactor
        return redactor.hiding(texts_at({"payload": request.payload}, operation.sensitive))

    def provider_redactor(self, provider: str) -> Redactor:
        """Removes the secrets of the provider, where no call is known."""
        return self.redactors.get(provider, _PATTERNS_ONLY)

    def template_context(
        self, request: CallRequest, cycle: int, **known: object
    ) -> dict[str, object]:
        """The values that templates of an integration file can refer to.

        Args:
            known: what is known besides the request: reference, kept, response, reason.
        """
        return {
            "payload": request.payload,
            "metadata": dict(request.metadata),
            "call": {
                "id": request.call_id,
                "short": names.short_call_id(request.call_id),
                "provider": request.provider,
                "operation": request.operation,
                "key": request.key,
                "cycle": cycle,
                "idempotency_key": names.idempotency_key(request.call_id, cycle),
            },
            "callback_url": self._callback_url(request),
            "reference": None,
            "kept": {},
            "response": None,
            "reason": None,
            **known,
        }

    def _callback_url(self, request: CallRequest) -> str:
        """Where the provider calls back: a URL of the call's own where that proves it."""
        url = f"{self.public_url.rstrip('/')}/callbacks/{request.provider}"
        callbacks = self.catalog.integration(request.provider).callbacks
        if callbacks is None or not isinstance(callbacks.verify, UrlVerify):
            return url
        urls = CallbackUrls(callbacks.verify, request.provider, self.secrets)
        return f"{url}/{urls.token(request.call_id)}"


def _url_credentials(integration: Integration) -> Sequence[Credential]:
    verify = integration.callbacks.verify if integration.callbacks is not None else None
    return verify.credentials() if isinstance(verify, UrlVerify) else ()
