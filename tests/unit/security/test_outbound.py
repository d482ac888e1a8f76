"""Authentication of requests, over a real socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import TypeAdapter

from ackbridge.clock import utc_now
from ackbridge.errors import SecretError
from ackbridge.http.client import build_client
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import AuthSpec
from tests.support.exchanges import get
from tests.support.serving import serve

SPEC: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that returns the request headers."""
    app = FastAPI()

    @app.get("/")
    async def _headers(request: Request) -> dict[str, str]:
        return dict(request.headers)

    with serve(app) as base:
        yield base


async def sent(url: str, spec: dict[str, Any] | None, environ: dict[str, str]) -> str:
    """The request headers, as one text."""
    return await sent_with(url, [] if spec is None else [spec], environ)


async def sent_with(url: str, specs: list[dict[str, Any]], environ: dict[str, str]) -> str:
    """The headers of a request with these authentications."""
    parsed = [SPEC.validate_python(spec) for spec in specs]
    auth = build_auth(parsed, Secrets(environ, Path()), utc_now)
    async with build_client() as client:
        return (await get(client, url, auth=auth)).body.decode()


async def test_a_header_carries_prefix_and_secret(url: str) -> None:
    """The provider's header has the prefix and the secret."""
    spec = {"type": "header", "name": "X-Api-Key", "value": "env:KEY", "prefix": "key "}

    assert '"x-api-key":"key abc"' in await sent(url, spec, {"KEY": "abc"})


async def test_a_bearer_token_is_sent(url: str) -> None:
    """In the Authorization header."""
    spec = {"type": "bearer", "token": "env:KEY"}

    assert '"authorization":"Bearer abc"' in await sent(url, spec, {"KEY": "abc"})


@pytest.mark.parametrize("username", ["shop", "env:USER"])
async def test_basic_credentials_are_sent(url: str, username: str) -> None:
    """With a plain or referenced user name, and a non-ASCII password."""
    spec = {"type": "basic", "username": username, "password": "env:KEY"}
    expected = base64.b64encode("shop:pä:ss".encode()).decode()

    seen = await sent(url, spec, {"USER": "shop", "KEY": "pä:ss"})

    assert f'"authorization":"Basic {expected}"' in seen


async def test_several_authentications_are_used_together(url: str) -> None:
    """Such as a key of the partner beside the token of the account."""
    specs = [
        {"type": "bearer", "token": "env:KEY"},
        {"type": "header", "name": "X-Partner", "value": "env:PARTNER"},
    ]
    seen = await sent_with(url, specs, {"KEY": "abc", "PARTNER": "def"})

    assert '"authorization":"Bearer abc"' in seen
    assert '"x-partner":"def"' in seen


async def test_oauth2_beside_a_header_renews_its_token() -> None:
    """After a 401 the request is sent once more, with the new token and the same header."""
    seen: list[tuple[str | None, str | None]] = []

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(200, json={"access_token": f"t-{len(seen)}"})
        seen.append((request.headers.get("authorization"), request.headers.get("x-partner")))
        return httpx.Response(401 if len(seen) == 1 else 200)

    specs = [
        SPEC.validate_python(
            {
                "type": "oauth2",
                "token_url": "https://id.example/token",
                "client_id": "us",
                "client_secret": "env:KEY",
            }
        ),
        SPEC.validate_python({"type": "header", "name": "X-Partner", "value": "env:PARTNER"}),
    ]
    transport = httpx.MockTransport(provider)
    secrets = Secrets({"KEY": "abc", "PARTNER": "def"}, Path())
    auth = build_auth(specs, secrets, utc_now, transport)
    async with httpx.AsyncClient(transport=transport, auth=auth) as client:
        reply = await client.post("https://api.example/x")

    assert reply.status_code == 200
    assert seen == [("Bearer t-0", "def"), ("Bearer t-1", "def")]


async def test_nothing_is_sent_without_a_spec(url: str) -> None:
    """An integration without auth sends no credentials."""
    assert "authorization" not in await sent(url, None, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [({}, "env:KEY: is not set"), ({"KEY": "a\nb"}, "env:KEY: has characters")],
)
async def test_an_unusable_secret_stops_the_request(environ: dict[str, str], message: str) -> None:
    """Nothing is sent if the secret is missing or invalid in a header."""
    with pytest.raises(SecretError, match=message):
        await sent("http://127.0.0.1:1/", {"type": "bearer", "token": "env:KEY"}, environ)
