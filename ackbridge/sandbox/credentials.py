"""Authentication of clients by a provider: the counterpart of `ackbridge.security.outbound`."""

from __future__ import annotations

import hmac
import secrets as random_tokens
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, unquote

from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import (
    AuthSpec,
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    OAuth2Auth,
    SignAuth,
)

from .provider_dialect import DialectReply, IncomingRequest, json_reply
from .signing import basic

TOKEN_LIFE = 3600
"""Seconds."""


class Credentials:
    """Checks the credentials of requests, and issues OAuth 2 tokens at `token_path`.

    Of signatures and assertions it only checks that they are there.
    """

    def __init__(self, specs: Sequence[AuthSpec], secrets: Secrets, token_path: str | None) -> None:
        self._specs = specs
        self._oauth2 = next((spec for spec in specs if isinstance(spec, OAuth2Auth)), None)
        self._secrets = secrets
        self._tokens: set[str] = set()
        self.token_path = token_path if self._oauth2 is not None else None

    def check(self, headers: Mapping[str, str]) -> str | None:
        """Why a request's credentials are rejected; None when they are valid."""
        problems = (self._check(spec, headers) for spec in self._specs)
        return next((problem for problem in problems if problem is not None), None)

    def _check(self, spec: AuthSpec, headers: Mapping[str, str]) -> str | None:
        match spec:
            case BearerAuth(token=ref):
                return _check_header(
                    "authorization", f"Bearer {self._secrets.resolve(ref)}", headers
                )
            case HeaderAuth(name=name, value=ref, prefix=prefix):
                return _check_header(name, prefix + self._secrets.resolve(ref), headers)
            case BasicAuth(username=username, password=ref):
                wanted = basic(self._secrets.text(username), self._secrets.resolve(ref))
                return _check_header("authorization", wanted["authorization"], headers)
            case SignAuth():
                name = spec.header or "Signature"
                return None if name.lower() in headers else f"header {name} is missing"
            case OAuth2Auth():
                token = headers.get("authorization", "").removeprefix("Bearer ")
                return None if token in self._tokens else "unknown bearer token"

    def issue_token(self, request: IncomingRequest) -> DialectReply:
        spec = self._oauth2
        if spec is None:
            return json_reply(404, {"error": "invalid_request"})
        form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return json_reply(400, {"error": "unsupported_grant_type"})
        if not self._is_client(spec, request, form):
            return json_reply(401, {"error": "invalid_client"})
        for name in ("scope", "audience"):
            if form.get(name) != getattr(spec, name):
                return json_reply(400, {"error": "invalid_scope"})
        token = random_tokens.token_urlsafe(24)
        self._tokens.add(token)
        return json_reply(
            200, {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE}
        )

    def _is_client(
        self, spec: OAuth2Auth, request: IncomingRequest, form: Mapping[str, str]
    ) -> bool:
        client = self._secrets.text(spec.client_id)
        if spec.client_secret is None:
            return bool(form.get("client_assertion"))
        secret = self._secrets.resolve(spec.client_secret)
        if spec.auth_method == "client_secret_post":
            return form.get("client_id") == client and form.get("client_secret") == secret
        given = unquote(request.headers.get("authorization", ""))
        return given == basic(client, secret)["authorization"]


def _check_header(name: str, wanted: str, headers: Mapping[str, str]) -> str | None:
    given = headers.get(name.lower())
    if given is None:
        return f"header {name} is missing"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        return f"header {name} has another value"
    return None
