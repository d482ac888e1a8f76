"""How a provider knows its customers: the other side of `ackbridge.security.outbound`."""

from __future__ import annotations

import hmac
import json
import secrets as chance
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import AuthSpec, BasicAuth, BearerAuth, HeaderAuth, OAuth2Auth

from .provider_dialect import DialectReply, Incoming, in_json
from .signing import basic

TOKEN_LIFE = 3600
"""Seconds that a token lasts."""


class Credentials:
    """Checks the credentials of requests, and gives out tokens where they are tokens.

    Attributes:
        token_path: where tokens are given out; None where there are none.
    """

    def __init__(self, spec: AuthSpec | None, secrets: Secrets, token_path: str | None) -> None:
        """Take how the customer authenticates, and what its references stand for."""
        self._spec = spec
        self._secrets = secrets
        self._tokens: set[str] = set()
        self.token_path = token_path if isinstance(spec, OAuth2Auth) else None

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """What is wrong with a request's credentials, for people; None when nothing is."""
        match self._spec:
            case None:
                return None
            case BearerAuth(token=ref):
                return _compared("authorization", f"Bearer {self._secrets.resolve(ref)}", headers)
            case HeaderAuth(name=name, value=ref, prefix=prefix):
                return _compared(name, prefix + self._secrets.resolve(ref), headers)
            case BasicAuth(username=username, password=ref):
                wanted = basic(self._secrets.text(username), self._secrets.resolve(ref))
                return _compared("authorization", wanted["authorization"], headers)
            case OAuth2Auth():
                token = headers.get("authorization", "").removeprefix("Bearer ")
                return None if token in self._tokens else "the bearer token is not one of ours"

    def token(self, request: Incoming) -> DialectReply:
        """Answer a token request."""
        spec = self._spec
        if not isinstance(spec, OAuth2Auth):
            return in_json(404, {"error": "invalid_request"})
        form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return in_json(400, {"error": "unsupported_grant_type"})
        if not self._is_client(spec, request, form):
            return in_json(401, {"error": "invalid_client"})
        for name in ("scope", "audience"):
            if form.get(name) != getattr(spec, name):
                return in_json(400, {"error": "invalid_scope"})
        token = chance.token_urlsafe(24)
        self._tokens.add(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE}
        return DialectReply(200, json.dumps(answer).encode(), {"content-type": "application/json"})

    def _is_client(self, spec: OAuth2Auth, request: Incoming, form: Mapping[str, str]) -> bool:
        client, secret = (
            self._secrets.text(spec.client_id),
            self._secrets.resolve(spec.client_secret),
        )
        if spec.auth_method == "client_secret_post":
            return form.get("client_id") == client and form.get("client_secret") == secret
        given = unquote(request.headers.get("authorization", ""))
        return given == basic(client, secret)["authorization"]


def _compared(name: str, wanted: str, headers: Mapping[str, str]) -> str | None:
    given = headers.get(name.lower())
    if given is None:
        return f"header {name} is missing"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        return f"header {name} is not what it should be"
    return None
