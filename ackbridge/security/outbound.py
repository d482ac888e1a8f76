"""Authentication of what we send."""

from __future__ import annotations

import base64
from collections.abc import Generator

import httpx

from ackbridge.clock import Clock
from ackbridge.errors import SecretError

from .oauth2 import ClientCredentials
from .secrets import Secrets
from .specs import AuthSpec, BasicAuth, BearerAuth, HeaderAuth


def build_auth(
    spec: AuthSpec | None,
    secrets: Secrets,
    clock: Clock,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.Auth | None:
    """What authenticates the requests of one integration; build it once for each.

    Secrets are resolved for every request, so that a rotated one counts at once; a request whose
    secret does not resolve ends in `SecretError` before anything is sent.

    Args:
        clock: tells when an OAuth 2 token is due.
        transport: for OAuth 2 token requests, instead of httpx's own; it is never closed here.
    """
    match spec:
        case None:
            return None
        case HeaderAuth():
            return _Header(spec, secrets)
        case BearerAuth():
            return _Header(
                HeaderAuth(type="header", name="Authorization", value=spec.token, prefix="Bearer "),
                secrets,
            )
        case BasicAuth():
            return _Basic(spec, secrets)
        case _:
            return ClientCredentials(spec, secrets, clock, transport=transport)


class _Header(httpx.Auth):
    def __init__(self, spec: HeaderAuth, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        value = self._secrets.resolve(self._spec.value)
        if not (value.isascii() and value.isprintable()):
            # The HTTP library's own complaint would quote the value.
            raise SecretError(f"{self._spec.value}: has characters an HTTP header cannot carry")
        request.headers[self._spec.name] = self._spec.prefix + value
        yield request


class _Basic(httpx.Auth):
    def __init__(self, spec: BasicAuth, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        username = self._secrets.text(self._spec.username)
        password = self._secrets.resolve(self._spec.password)
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        request.headers["Authorization"] = f"Basic {credentials}"
        yield request
