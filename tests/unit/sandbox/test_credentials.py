"""The simulated provider authenticates the requests that we really send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from ackbridge.clock import utc_now
from ackbridge.sandbox.credentials import Credentials
from ackbridge.sandbox.provider_dialect import DialectReply, IncomingRequest, json_reply
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import AuthSpec

SPEC: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)
SECRETS = Secrets({"KEY": "s3cret/+ value", "OTHER": "another"}, Path("/nowhere"))
EVERY_KIND: list[dict[str, Any]] = [
    {"type": "bearer", "token": "env:KEY"},
    {"type": "header", "name": "X-Api-Key", "value": "env:KEY", "prefix": "key "},
    {"type": "basic", "username": "shop", "password": "env:KEY"},
    {"type": "oauth2", "client_id": "shop", "client_secret": "env:KEY"},
    {
        "type": "oauth2",
        "client_id": "shop",
        "client_secret": "env:KEY",
        "auth_method": "client_secret_post",
        "scope": "orders refunds",
        "audience": "https://api.example",
    },
]


async def request_with(asked: dict[str, Any], told: dict[str, Any]) -> httpx.Response:
    """The reply to a client with one set of credentials from a provider with another."""

    def spec(fields: dict[str, Any]) -> AuthSpec:
        where = {"token_url": "http://provider/token"} if fields["type"] == "oauth2" else {}
        return SPEC.validate_python({**fields, **where})

    credentials = Credentials((spec(told),), SECRETS, "/token")

    def provider(request: httpx.Request) -> httpx.Response:
        incoming = IncomingRequest(
            request.method,
            request.url.path,
            headers=dict(request.headers.items()),
            body=request.content,
        )
        if incoming.path == credentials.token_path:
            return _response(credentials.issue_token(incoming))
        refusal = credentials.check(incoming.headers)
        return _response(json_reply(200 if refusal is None else 401, refusal))

    transport = httpx.MockTransport(provider)
    auth = build_auth((spec(asked),), SECRETS, utc_now, transport)
    async with httpx.AsyncClient(transport=transport, auth=auth) as client:
        return await client.post("http://provider/orders")


def _response(answer: DialectReply) -> httpx.Response:
    return httpx.Response(answer.status, content=answer.body, headers=dict(answer.headers))


@pytest.mark.parametrize("spec", EVERY_KIND)
async def test_valid_credentials_pass(spec: dict[str, Any]) -> None:
    """For every kind of authentication, tokens included."""
    assert (await request_with(spec, spec)).status_code == 200


@pytest.mark.parametrize("spec", EVERY_KIND[:3])
async def test_wrong_credentials_are_rejected(spec: dict[str, Any]) -> None:
    """The error names the header, and does not repeat the secret."""
    other = {name: "env:OTHER" if value == "env:KEY" else value for name, value in spec.items()}
    refused = await request_with(spec, other)
    assert refused.status_code == 401
    assert "has another value" in refused.text
    assert "s3cret" not in refused.text
