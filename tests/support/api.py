"""The calls API over a socket, and clients of it with one role each."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from temporalio.client import Client

from ackbridge.api.access import ApiParts
from ackbridge.api.app import build_api
from ackbridge.api.event_streams import Streams
from ackbridge.catalog.catalog import Catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.identity import AuthSettings, Role
from ackbridge.gateway.asgi import UndecodedPaths
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.http_auth import HttpAuth, new_api_key, write_api_keys

from .serving import serve

ENVIRONMENT = "dev"

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loading certificates for each client would cost more than its request."""


def write_keys(path: Path, *grants: str) -> dict[str, str]:
    """Write a file with one API key for each grant; returns the keys by grant."""
    expires = utc_now() + timedelta(days=1)
    made = {
        grant: new_api_key(f"key-{number}", f"who may {grant}", frozenset({grant}), expires)
        for number, grant in enumerate(grants)
    }
    write_api_keys(path, tuple(entry for _, entry in made.values()))
    return {grant: key for grant, (key, _) in made.items()}


@dataclass(frozen=True)
class ServedApi:
    """Requests to a served API.

    Attributes:
        keys: by grant.
    """

    url: str
    keys: dict[str, str]

    def client(self, grant: str | None = None) -> httpx.AsyncClient:
        """A client with the key of a grant; without one: no credential."""
        headers = {"Authorization": f"Bearer {self.keys[grant]}"} if grant else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, verify=_NO_TLS)

    async def request(
        self, method: str, path: str, grant: str | None = Role.CONFIGURE, **options: Any
    ) -> httpx.Response:
        async with self.client(grant) as client:
            return await client.request(method, path, **options)


@contextmanager
def serve_api(
    folder: Path,
    client: Client,
    ledger: Ledger,
    catalog: Catalog,
    *grants: str,
    streams: Streams | None = None,
    tokens: Mapping[str, str] | None = None,
) -> Iterator[ServedApi]:
    """Serve the API from a thread of its own.

    Args:
        client: lazy, so that it connects in that thread.
        ledger: for that thread alone.
        grants: those besides every role.
        tokens: of `AuthSettings`, where tokens are accepted, too.
    """
    keys = write_keys(folder / "api-keys.json", *Role, *grants)
    settings = AuthSettings.model_validate({**(tokens or {}), "api_keys": folder / "api-keys.json"})
    auth = HttpAuth(settings, utc_now)
    calls = AckbridgeClient(client)
    parts = ApiParts(client, calls, ledger, catalog, auth, utc_now, ENVIRONMENT, streams)
    served = build_api(parts)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with served.router.lifespan_context(served):
            yield
        await auth.aclose()

    outer = FastAPI(lifespan=lifespan, openapi_url=None)
    outer.mount("/", served)
    outer.add_middleware(UndecodedPaths)
    with serve(outer) as url:
        yield ServedApi(url, keys)
