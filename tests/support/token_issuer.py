"""A token endpoint with an API behind it, and a caller of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ackbridge.http.client import HttpResponse, build_client, exchange
from ackbridge.security.oauth2 import ClientCredentials
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import OAuth2Auth

from .serving import serve

SECRET = "s3cr3t-value"
START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Issuer:
    """A token endpoint and an API that takes its newest token only.

    `answer` replaces what the token endpoint says; `hold` keeps it from answering.
    """

    life: object = 3600
    answer: Callable[[], Response] | None = None
    hold: bool = False
    refusal: bytes = b"no"
    refusal_coding: str = "identity"
    tokens: list[str] = field(default_factory=list)
    forms: list[dict[str, Any]] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    accepts_nothing: bool = False

    def app(self) -> FastAPI:
        """The server of both."""
        app = FastAPI()
        app.post("/token")(self.token)
        app.post("/api")(self.api)
        return app

    async def token(self, request: Request) -> Response:
        """Issue the next token."""
        body = (await request.body()).decode()
        self.forms.append(dict(httpx.QueryParams(body)))
        self.credentials.append(request.headers.get("authorization"))
        while self.hold:  # noqa: ASYNC110 -- let go by another thread, where an Event does not reach
            await asyncio.sleep(0.01)
        if self.answer is not None:
            return self.answer()
        self.tokens.append(f"token-{len(self.tokens) + 1}")
        return JSONResponse(
            {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.life}
        )

    async def api(self, request: Request) -> Response:
        """Accept the newest token."""
        self.bodies.append(await request.body())
        valid = self.tokens and request.headers.get("authorization") == f"Bearer {self.tokens[-1]}"
        if valid and not self.accepts_nothing:
            return Response(self.tokens[-1])
        headers = {"content-encoding": self.refusal_coding}
        return Response(self.refusal, 401, headers)


@dataclass
class Caller:
    """Sends requests with one auth object, in a time of its own."""

    url: str
    auth: httpx.Auth
    client: httpx.AsyncClient
    now: list[datetime]

    async def call(self, timeout: float = 30) -> HttpResponse:  # noqa: ASYNC109 -- handed on
        """One request to the API."""
        return await exchange(
            self.client,
            method="POST",
            url=f"{self.url}/api",
            headers={},
            content=b"order",
            auth=self.auth,
            timeout=timedelta(seconds=timeout),
            max_bytes=1000,
        )

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now[0] += timedelta(seconds=seconds)


@asynccontextmanager
async def calling(issuer: Issuer, **changes: Any) -> AsyncIterator[Caller]:
    """Serve the issuer, and call it."""
    with serve(issuer.app()) as url:
        fields = {"client_id": "shop", "client_secret": "env:SECRET", **changes}
        timeout = fields.pop("token_timeout", timedelta(seconds=30))
        environ = fields.pop("environ", {"SECRET": SECRET})
        spec = OAuth2Auth.model_validate(
            {"type": "oauth2", "token_url": f"{url}/token?tenant=x", **fields}
        )
        now = [START]
        auth = ClientCredentials(
            spec, Secrets(environ, Path()), lambda: now[0], token_timeout=timeout
        )
        async with build_client() as client:
            yield Caller(url, auth, client, now)
