"""Authenticate requests to providers, and sign notices to subscribers."""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from datetime import datetime

import httpx
from standardwebhooks import Webhook

from ackbridge.clock import Clock
from ackbridge.errors import SecretError

from .oauth2 import ClientCredentials
from .secrets import Secrets
from .specs import AuthSpec, BasicAuth, BearerAuth, HeaderAuth, OAuth2Auth


def build_auth(
    spec: AuthSpec | None,
    secrets: Secrets,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.Auth | None:
    """Build the authentication of one integration; share it between its requests.

    Secrets are resolved for every request, so that a rotation takes effect at once. A request whose
    secret does not resolve fails with `SecretError` before anything is sent. OAuth 2 tokens are
    requested through `transport`, or else httpx's own; the caller closes it.
    """
    match spec:
        case None:
            return None
        case HeaderAuth():
            return _HeaderSecret(secrets, spec.value, spec.name, spec.prefix)
        case BearerAuth():
            return _HeaderSecret(secrets, spec.token, "Authorization", "Bearer ")
        case BasicAuth():
            return _BasicCredentials(spec, secrets)
        case OAuth2Auth():
            return ClientCredentials(spec, secrets, clock, transport=transport)


class _HeaderSecret(httpx.Auth):
    def __init__(self, secrets: Secrets, ref: str, name: str, prefix: str) -> None:
        self._secrets = secrets
        self._ref = ref
        self._name = name
        self._prefix = prefix

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        value = self._secrets.resolve(self._ref)
        if not (value.isascii() and value.isprintable()):
            # httpx's own error would contain the value.
            raise SecretError(f"{self._ref}: has characters an HTTP header cannot carry")
        request.headers[self._name] = self._prefix + value
        yield request


class _BasicCredentials(httpx.Auth):
    def __init__(self, spec: BasicAuth, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        username = self._secrets.text(self._spec.username)
        password = self._secrets.resolve(self._spec.password)
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        request.headers["Authorization"] = f"Basic {credentials}"
        yield request


def sign_notice(
    secrets: Secrets, refs: Sequence[str], event_id: str, at: datetime, body: str
) -> dict[str, str]:
    """Sign a notice by Standard Webhooks (standardwebhooks.com), and return its headers.

    Each of `refs` signs: during a rotation there are two. `at` is the time of sending in UTC, and
    `body` exactly what is sent. Raises `SecretError` as `Secrets.webhook_key`.
    """
    keys = [secrets.webhook_key(ref) for ref in refs]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(key).sign(event_id, at, body) for key in keys),
    }
