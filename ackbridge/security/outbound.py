"""Authenticate requests to providers, and sign notices to subscribers."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Generator, Sequence
from datetime import datetime

import httpx
from standardwebhooks import Webhook

from ackbridge.clock import Clock
from ackbridge.errors import SecretError

from .oauth2 import ClientCredentials
from .secrets import Secrets
from .signing import RequestSigner
from .specs import AuthSpec, BasicAuth, BearerAuth, HeaderAuth, OAuth2Auth, SignAuth


def build_auth(
    specs: Sequence[AuthSpec],
    secrets: Secrets,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
    pool: str = "",
) -> httpx.Auth | None:
    """Build the authentication of one integration; share it between its requests.

    Several are used together; at most one of them is OAuth 2.

    Secrets are resolved for every request, so that a rotation takes effect at once. A request whose
    secret does not resolve fails with `SecretError` before anything is sent. OAuth 2 tokens are
    requested through `transport`, as requests of `pool`, or else by a client of their own.
    """
    parts = [_build(spec, secrets, clock, transport, pool) for spec in specs]
    if len(parts) <= 1:
        return parts[0] if parts else None
    return CombinedAuth(parts)


def _build(
    spec: AuthSpec,
    secrets: Secrets,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None,
    pool: str,
) -> httpx.Auth:
    match spec:
        case HeaderAuth():
            return _HeaderSecret(secrets, spec.value, spec.name, spec.prefix)
        case BearerAuth():
            return _HeaderSecret(secrets, spec.token, "Authorization", "Bearer ")
        case BasicAuth():
            return _BasicCredentials(spec, secrets)
        case SignAuth():
            return RequestSigner(spec, secrets, clock)
        case OAuth2Auth():
            return ClientCredentials(spec, secrets, clock, transport=transport, pool=pool)


class CombinedAuth(httpx.Auth):
    """Several authentications at once.

    OAuth 2 may send a request twice, and signatures cover what the others add, so they come last.
    """

    def __init__(self, parts: Sequence[httpx.Auth]) -> None:
        self.session = next((one for one in parts if isinstance(one, ClientCredentials)), None)
        self._signers = [part for part in parts if isinstance(part, RequestSigner)]
        self._headers = [
            part for part in parts if not isinstance(part, ClientCredentials | RequestSigner)
        ]

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        for part in self._headers:
            request = next(part.sync_auth_flow(request))
        if self.session is None:
            yield self._signed(request)
            return
        flow = self.session.async_auth_flow(request)
        request = await anext(flow)
        while True:
            response = yield self._signed(request)
            try:
                request = await flow.asend(response)
            except StopAsyncIteration:
                return

    def _signed(self, request: httpx.Request) -> httpx.Request:
        for signer in self._signers:
            request = signer.sign(request)
        return request


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
