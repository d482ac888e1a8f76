"""An httpx transport over aiohttp: the same interface at a fraction of httpx's CPU time.

`httpx-aiohttp` reports a connection that breaks while the response is awaited as `ConnectTimeout`,
which would mean that nothing was sent, and it rewrites escapes in the path, which a signature may
cover.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx
from yarl import URL

_CHUNK = 16 * 1024
"""Bytes."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`, which closes it.

    It keeps no cookies, follows no redirects, does not decompress (httpx does), and ignores the
    process environment.
    """

    def __init__(self, limits: httpx.Limits) -> None:
        """Limit the connections, which are opened on demand."""
        self._limits = limits
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is in memory; the body of the response is not read.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: nothing was sent.
            httpx.TransportError: any other one; the request may have arrived.
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
        """Close all connections."""
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
        # A connection with unread data is closed instead of reused.
        self._response.release()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        raise _httpx_error(error)(f"{type(error).__name__}: {error}") from error


def _httpx_error(error: aiohttp.ClientError) -> type[httpx.TransportError]:
    """The equivalent of httpx. Only the first three prove that nothing was sent."""
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
