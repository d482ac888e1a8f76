"""HTTP to providers: the one place where the client is built, and one bounded exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import TypedDict

import httpx

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import AckbridgeError
from ackbridge.workarounds.cookies import CookielessClient

from .aiohttp_transport import Transport

USER_AGENT = f"ackbridge/{version('ackbridge')}"
BASE_TIMEOUT = timedelta(seconds=10)
MAX_CONNECTIONS = 200


class ResponseTooLargeError(AckbridgeError):
    """A provider's answer is longer than we read; the text gives the limit in bytes."""


@dataclass(frozen=True)
class HttpResponse:
    """What a provider answered.

    Attributes:
        status: the HTTP status.
        headers: by lower-case name; repeated ones are joined with a comma.
        body: as it is after content decoding.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class ClientOptions(TypedDict):
    """What every HTTP client of ours is built with."""

    headers: dict[str, str]
    cookies: CookieJar
    timeout: httpx.Timeout
    limits: httpx.Limits
    follow_redirects: bool
    trust_env: bool
    transport: httpx.AsyncBaseTransport | None


def client_options(
    *,
    base_timeout: timedelta,
    max_connections: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ClientOptions:
    """The options behind `build_client`, for libraries that insist on a client of their own."""
    return ClientOptions(
        # Plain bytes: a small compressed answer must not unfold into a large one.
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        # One client serves every call: what a provider sets in one must not reach another.
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(base_timeout.total_seconds()),
        limits=httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=max_connections
        ),
        # A redirect would carry the request, and its secrets, to a place nobody configured.
        follow_redirects=False,
        # Proxies and certificates are given with `transport` by whoever composes the process;
        # a stray HTTP_PROXY or SSL_CERT_FILE must not reroute or re-trust requests with secrets.
        trust_env=False,
        transport=transport,
    )


def build_client(
    *,
    base_timeout: timedelta = BASE_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
    transport: httpx.AsyncBaseTransport | None = None,
    around: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
) -> httpx.AsyncClient:
    """Build the HTTP client; close it with `aclose`.

    Redirects are not followed, cookies not kept, the process environment not consulted.

    Args:
        base_timeout: for connecting and for a free connection; `exchange` bounds the rest.
        max_connections: altogether, kept alive or not.
        transport: instead of ours: another HTTP stack, or one with a proxy or private
            certificates. `max_connections` is then its own business.
        around: puts something around the transport, such as traces.
    """
    options = client_options(
        base_timeout=base_timeout, max_connections=max_connections, transport=transport
    )
    inner = transport or Transport(options["limits"])
    options["transport"] = around(inner) if around is not None else inner
    return CookielessClient(**options)


async def exchange(
    client: httpx.AsyncClient,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    auth: httpx.Auth | None,
    timeout: timedelta,  # noqa: ASYNC109 -- it bounds the exchange as a whole, body and token included
    max_bytes: int,
    cut_off: bool = False,
) -> HttpResponse:
    """Send one request and read the whole answer, within `timeout` and `max_bytes`.

    Whatever the status is, it is an answer. Nothing is logged.

    Args:
        content: the encoded body, or None.
        auth: what authenticates the request, as `ackbridge.security.build_auth` makes it.
        timeout: for everything together: token, connection, request and answer.
        max_bytes: the longest body that is read.
        cut_off: be content with the beginning of a longer one.

    Raises:
        InvalidInputError: the URL or a header cannot be sent; nothing was.
        TimeoutError: the time was over.
        httpx.HTTPError: the network failed; `ConnectError`, `ConnectTimeout` and `PoolTimeout`
            prove that nothing was sent.
        ResponseTooLargeError: the answer is longer than `max_bytes`, and is not cut off.
        SecretError, TokenRefused: `auth` could not do its work; nothing was sent, or all that
            was sent was refused with 401.
    """
    request = _request(client, method, url, headers, content, timeout.total_seconds())
    async with asyncio.timeout(timeout.total_seconds()):
        response = await client.send(request, auth=auth, stream=True)
        try:
            body = await _read(response, max_bytes, cut_off=cut_off)
        finally:
            await response.aclose()
    return HttpResponse(response.status_code, dict(response.headers.items()), body)


class Capped(httpx.AsyncByteStream):
    """A stream that raises `ResponseTooLargeError` beyond `max_bytes`, for bodies that others read
    whole."""

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


def cap(response: httpx.Response, max_bytes: int) -> None:
    """Let an unread response end in `ResponseTooLargeError` rather than in a full memory."""
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = Capped(response.stream, max_bytes)


def _request(
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
    base = client.timeout
    # Connecting keeps the client's own bound, so that it ends as "nothing was sent".
    limits = httpx.Timeout(seconds, connect=base.connect, pool=base.pool)
    try:
        return client.build_request(method, url, headers=headers, content=content, timeout=limits)
    except httpx.InvalidURL:
        raise InvalidInputError("url: is not a valid URL") from None


async def _read(response: httpx.Response, max_bytes: int, *, cut_off: bool) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            if cut_off:
                break
            raise _too_large(max_bytes)
    return bytes(body[:max_bytes])


def _too_large(max_bytes: int) -> ResponseTooLargeError:
    return ResponseTooLargeError(f"the answer is longer than {max_bytes} bytes")
