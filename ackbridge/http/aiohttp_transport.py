"""aiohttp below httpx: the same interface at a fraction of its CPU.

`httpx-aiohttp` does the same, but calls a connection that broke while the answer was awaited a
`ConnectTimeout`, which says that nothing was sent; and it rewrites escapes in the path, over which
a signature may have been made.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
from yarl import URL

_CHUNK = 16 * 1024
"""Bytes."""


class Transport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=...)`, which closes it.

    It keeps no cookies, follows no redirects, does not decompress (httpx does), and does not look
    at the process environment.
    """

    def __init__(self, limits: httpx.Limits, tls: ssl.SSLContext | None = None) -> None:
        """Choose the limits; connections are made when they are needed.

        Args:
            tls: which certificates are trusted and shown; None for the usual ones.
        """
        self._limits = limits
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is read already; the answer's is not.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: nothing was sent.
            httpx.TransportError: of another kind; nobody knows what has arrived.
        """
        session = self._session = self._session or self._open()
        timeout = request.extensions.get("timeout", {})
        with _translated():
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers,
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            request=request,
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode(),
            },
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        limits = self._limits
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.max_connections or 0,
                keepalive_timeout=limits.keepalive_expiry or 0,
                ssl=self._tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._response.content.iter_chunked(_CHUNK):
                yield chunk

    async def aclose(self) -> None:
        # What was not read to its end cannot be used again, and is closed.
        self._response.release()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        raise _kind(error)(f"{type(error).__name__}: {error}") from error


def _kind(error: aiohttp.ClientError) -> type[httpx.TransportError]:
    """What httpx calls it. Only the first three prove that nothing was sent."""
    match error:
        case aiohttp.NonHttpUrlClientError() | aiohttp.InvalidUrlClientError():
            return httpx.UnsupportedProtocol
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout
        case aiohttp.ClientOSError() | aiohttp.ClientPayloadError():
            return httpx.ReadError
        case _:
            return httpx.RemoteProtocolError
