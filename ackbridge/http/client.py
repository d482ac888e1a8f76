"""The HTTP client for providers and subscribers, and one bounded exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import httpx

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import AckbridgeError
from ackbridge.workarounds.cookies import CookielessClient

from .aiohttp_transport import AiohttpTransport

USER_AGENT = f"ackbridge/{version('ackbridge')}"
CONNECT_TIMEOUT = timedelta(seconds=10)
MAX_CONNECTIONS = 200


class ResponseTooLargeError(AckbridgeError):
    """A response is longer than the limit; the text gives the limit in bytes."""


@dataclass(frozen=True)
class HttpResponse:
    """A complete response.

    Attributes:
        headers: by lower-case name; repeated ones are joined with a comma.
        body: after content decoding.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def client_options(timeout: timedelta, max_connections: int) -> dict[str, Any]:
    """Arguments of `httpx.AsyncClient`, also for libraries that build their own client."""
    return {
        # No compression: a small response must not expand into a large one.
        "headers": {"user-agent": USER_AGENT, "accept-encoding": "identity"},
        # All calls share one client: a cookie set in one call must not be sent in another.
        "cookies": CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        "timeout": httpx.Timeout(timeout.total_seconds()),
        "limits": httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=max_connections
        ),
        # A redirect would send the request, and its secrets, to a host that is not configured.
        "follow_redirects": False,
        # A stray HTTP_PROXY or SSL_CERT_FILE must not affect requests that carry secrets.
        "trust_env": False,
    }


def build_client(
    *,
    connect_timeout: timedelta = CONNECT_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
    around: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
) -> httpx.AsyncClient:
    """Build the HTTP client; close it with `aclose`.

    It follows no redirects, keeps no cookies, and ignores the process environment.

    Args:
        connect_timeout: to connect, and to wait for a free connection; `exchange` bounds the rest.
        max_connections: in total, idle ones included.
        around: wraps the transport, such as for traces.
    """
    options = client_options(connect_timeout, max_connections)
    transport: httpx.AsyncBaseTransport = AiohttpTransport(options["limits"])
    return CookielessClient(transport=around(transport) if around else transport, **options)


async def exchange(
    client: httpx.AsyncClient,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    auth: httpx.Auth | None,
    timeout: timedelta,  # noqa: ASYNC109 -- it bounds the whole exchange, body and token included
    max_bytes: int,
    truncate: bool = False,
) -> HttpResponse:
    """Send one request and read the response, within `timeout` and `max_bytes`. Logs nothing.

    Args:
        content: the encoded body.
        auth: as built by `ackbridge.security.outbound.build_auth`.
        timeout: for token, connection, request and response together.
        max_bytes: of the response body.
        truncate: return the first `max_bytes` of a longer body.

    Raises:
        InvalidInputError: the URL or a header is invalid; nothing was sent.
        TimeoutError: after `timeout`.
        httpx.HTTPError: a network error; after `ConnectError`, `ConnectTimeout` and `PoolTimeout`
            nothing was sent.
        ResponseTooLargeError: the body is longer than `max_bytes`.
        SecretError, TokenError: from `auth`; nothing was sent, or it was refused with 401.
    """
    request = _build_request(client, method, url, headers, content, timeout.total_seconds())
    async with asyncio.timeout(timeout.total_seconds()):
        response = await client.send(request, auth=auth, stream=True)
        try:
            body = await _read(response, max_bytes, truncate=truncate)
        finally:
            await response.aclose()
    return HttpResponse(response.status_code, dict(response.headers.items()), body)


def limit_body(response: httpx.Response, max_bytes: int) -> None:
    """Make an unread response raise `ResponseTooLargeError` when more than `max_bytes` are read."""
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _LimitedStream(response.stream, max_bytes)


class _LimitedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for chunk in self._stream:
            length += len(chunk)
            if length > self._max_bytes:
                raise _too_large(self._max_bytes)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _build_request(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    seconds: float,
) -> httpx.Request:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise InvalidInputError(
                f"headers.{name}: has characters that an HTTP header cannot carry"
            )
    # Connecting has its own, shorter timeout, which proves that nothing was sent.
    connect = client.timeout
    timeout = httpx.Timeout(seconds, connect=connect.connect, pool=connect.pool)
    try:
        return client.build_request(method, url, headers=headers, content=content, timeout=timeout)
    except httpx.InvalidURL:
        raise InvalidInputError("url: is not a valid URL") from None


async def _read(response: httpx.Response, max_bytes: int, *, truncate: bool) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            if truncate:
                break
            raise _too_large(max_bytes)
    return bytes(body[:max_bytes])


def _too_large(max_bytes: int) -> ResponseTooLargeError:
    return ResponseTooLargeError(f"the response is longer than {max_bytes} bytes")
