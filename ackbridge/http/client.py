"""The HTTP client for providers and subscribers, and one bounded exchange."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, cast

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import AckbridgeError
from ackbridge.http.egress import PUBLIC, Egress, EgressError
from ackbridge.workarounds.http_clients import (
    CookielessClient,
    LenientResponseHandler,
    without_own_retries,
)

USER_AGENT = f"ackbridge/{version('ackbridge')}"
MAX_EXPANSION = 100
"""How many times its size a compressed body may decode to, beyond `FREE_EXPANSION`."""

FREE_EXPANSION = 64 * 1024
"""Bytes that any body may decode to: small ones compress well."""

MAX_MEMBERS = 1000
"""Of a gzip file."""

THREAD_FROM = 256 * 1024
"""Bytes of a body from which it is decoded and read off the event loop."""

_WINDOWS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_NO_CODINGS = frozenset({"", "identity", "none", "chunked", "utf-8", "utf8"})
_CODING = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_GZIP = b"\x1f\x8b"

CONNECT_TIMEOUT = timedelta(seconds=10)
MAX_CONNECTIONS = 200


class EgressRefusedError(httpx.ConnectError):
    """The host has no address that requests may go to; nothing was sent."""


class ResponseTooLargeError(AckbridgeError):
    """A response is longer than the limit; the text gives the limit in bytes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the response is longer than {max_bytes} bytes")


@dataclass(frozen=True)
class HttpResponse:
    """A response.

    Attributes:
        headers: by lower-case name; repeated ones are joined with a comma.
        body: after content decoding; empty if there is a problem with it.
        problem: why the body cannot be used, such as that it broke off.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    problem: str | None = None


def client_options(timeout: timedelta, max_connections: int) -> dict[str, Any]:
    """Arguments of `httpx.AsyncClient`, also for libraries that build their own client."""
    return {
        # Small answers are not worth it. Servers that compress all the same are understood.
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


@dataclass(frozen=True)
class Pool:
    """Connections that are shared by requests of one kind, such as those to one provider.

    Attributes:
        connections: how many there may be, idle ones included; None: as many as of any other pool.
        egress: the addresses that they may go to.
        tls: gives the TLS context of a new connection; None: the usual authorities, and no
            certificate of ours.
    """

    connections: int | None = None
    egress: Egress = PUBLIC
    tls: Callable[[], ssl.SSLContext] | None = None


ANY_POOL = Pool()


def build_client(
    *,
    connect_timeout: timedelta = CONNECT_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
    pools: Mapping[str, Pool] | None = None,
    others: Pool = ANY_POOL,
    around: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport] | None = None,
) -> CookielessClient:
    """Build the HTTP client; close it with `aclose`. `around` wraps its transport, as for traces.

    It follows no redirects, keeps no cookies, and ignores the process environment.
    `connect_timeout` is to connect, and to wait for a free connection; `exchange` bounds the rest.
    Requests of different pools share no connections, see `exchange`; a pool that is not in `pools`
    is as `others`, with `max_connections`.
    """
    options = client_options(connect_timeout, max_connections)
    transport: httpx.AsyncBaseTransport = AiohttpTransport(options["limits"], pools or {}, others)
    return CookielessClient(around(transport) if around else transport, **options)


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
    pool: str = "",
) -> HttpResponse:
    """Send one request and read the response, within `timeout` and `max_bytes`. Logs nothing.

    Once the status is known, nothing is raised: what is wrong with the body is in the response.

    Args:
        content: the encoded body.
        auth: as built by `ackbridge.security.outbound.build_auth`.
        timeout: for token, connection, request and response together.
        max_bytes: of the response body, before and after content decoding.
        pool: whose connections are used, such as the provider's: a slow one delays no other.

    Raises:
        InvalidInputError: the URL or a header is invalid; nothing was sent.
        TimeoutError: after `timeout`.
        httpx.HTTPError: a network error; after `ConnectError`, `ConnectTimeout` and `PoolTimeout`
            nothing was sent. `EgressRefusedError` is such a `ConnectError`.
        SecretError, TokenError: from `auth`; nothing was sent, or it was refused with 401.
    """
    request = _build_request(client, method, url, headers, content, timeout.total_seconds())
    request.extensions[_POOL] = pool
    connecting = request.extensions[_CONNECTING] = _Connecting()
    response, body, problem = None, b"", None
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            response = await client.send(request, auth=auth, stream=True)
            body = await read_body(response, max_bytes)
    except (httpx.HTTPError, TimeoutError, ResponseTooLargeError) as error:
        if connecting.is_pending and isinstance(error, TimeoutError):
            raise httpx.ConnectTimeout("not connected in time") from None
        if response is None:
            raise
        is_read = isinstance(error, httpx.DecodingError | ResponseTooLargeError)
        problem = str(error) if is_read else BROKEN_OFF
    headers = dict(response.headers.items())
    return HttpResponse(response.status_code, headers, body, problem)


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read and decode the body of a response, and close it.

    Args:
        max_bytes: of the body, before and after content decoding.

    Raises:
        httpx.DecodingError: it cannot be decoded, or expands too much.
        ResponseTooLargeError: it is longer than `max_bytes`.
    """
    try:
        raw = await _read(response, max_bytes)
    finally:
        await response.aclose()
    codings = _codings(response)
    if not codings or not raw:
        return raw
    if len(raw) * MAX_EXPANSION < THREAD_FROM:
        return decode_content(raw, codings, max_bytes)
    return await asyncio.to_thread(decode_content, raw, codings, max_bytes)


def decode_content(body: bytes, codings: Sequence[str], max_bytes: int) -> bytes:
    """Undo the content coding, whether it was asked for or not; JSON is taken as it is.

    More than one is refused: no server needs two, and each multiplies what a body expands to.

    Args:
        codings: in the order of encoding, in lower case.

    Raises:
        httpx.DecodingError: it cannot be decoded, or expands too much.
        ResponseTooLargeError: it is longer than `max_bytes` afterwards.
    """
    if not codings or not body or _is_json(body):
        return body
    if len(codings) > 1:
        raise httpx.DecodingError("the body has more than one content coding")
    coding = codings[0]
    if (window := _WINDOWS.get(coding)) is None:
        named = coding if _CODING.fullmatch(coding) else "an impossible name"
        raise httpx.DecodingError(f"the body has an unknown content coding: {named}")
    if coding == "deflate" and (body[0] & 0x0F) != zlib.DEFLATED:
        # Without the header that the standard asks for, as some servers send it.
        window = -zlib.MAX_WBITS
    expanded = FREE_EXPANSION + MAX_EXPANSION * len(body)
    try:
        return _inflate(body, window, min(expanded, max_bytes))
    except ResponseTooLargeError:
        if max_bytes <= expanded:
            raise
        raise httpx.DecodingError(
            f"the compressed body expands more than {MAX_EXPANSION} times"
        ) from None


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    whole = bytearray()
    for _ in range(MAX_MEMBERS):
        decompressor = zlib.decompressobj(window)
        try:
            whole += decompressor.decompress(body, max_bytes + 1 - len(whole))
        except zlib.error:
            raise httpx.DecodingError("the body does not have its content coding") from None
        if len(whole) > max_bytes:
            raise ResponseTooLargeError(max_bytes)
        if not decompressor.eof:
            raise httpx.DecodingError("the compressed body broke off")
        # What follows the last member is padding.
        body = decompressor.unused_data
        if not body.startswith(_GZIP):
            break
    return bytes(whole)


def _is_json(body: bytes) -> bool:
    """Whether a body is plain JSON, whatever is said of its coding, such as `utf-8`."""
    if not body.lstrip().startswith((b"{", b"[")):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


class BoundedTransport(httpx.AsyncBaseTransport):
    """Reads and decodes whole responses within a limit, for libraries that read them by httpx.

    httpx bounds neither what a body decodes to nor how often it is encoded. The transport below
    stays open.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, max_bytes: int, pool: str = "") -> None:
        """Send by `transport`, as requests of `pool`."""
        self._transport = transport
        self._max_bytes = max_bytes
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raises `ResponseTooLargeError` and `httpx.DecodingError` besides."""
        request.extensions[_POOL] = self._pool
        response = await self._transport.handle_async_request(request)
        body = await read_body(response, self._max_bytes)
        headers = [(k, v) for k, v in response.headers.multi_items() if k not in _FRAMING]
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)


_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def discard_body(response: httpx.Response, max_bytes: int) -> None:
    """Make an unread response have an empty body; at most `max_bytes` of it are received."""
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _DiscardedStream(response.stream, max_bytes)


class _DiscardedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        with suppress(httpx.TransportError):
            async for chunk in self._stream:
                length += len(chunk)
                if length > self._max_bytes:
                    break
        yield b""

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
    # Connecting has its own timeout, which proves that nothing was sent.
    own = client.timeout
    timeout = {
        "connect": min(own.connect or seconds, seconds),
        "pool": min(own.pool or seconds, seconds),
        "read": seconds,
        "write": seconds,
    }
    given = {name.lower().encode() for name in headers}
    usual = [(name, value) for name, value in client.headers.raw if name.lower() not in given]
    fields = [*usual, *((name.encode(), value.encode()) for name, value in headers.items())]
    try:
        # What `client.build_request` would do, without a base URL, parameters and cookies.
        return httpx.Request(
            method, url, headers=fields, content=content, extensions={"timeout": timeout}
        )
    except httpx.InvalidURL:
        raise InvalidInputError("url: is not a valid URL") from None


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and len(declared) < _MAX_DIGITS and int(declared) > max_bytes:
        raise ResponseTooLargeError(max_bytes)
    body = bytearray()
    async for chunk in cast("httpx.AsyncByteStream", response.stream):
        body += chunk
        if len(body) > max_bytes:
            raise ResponseTooLargeError(max_bytes)
    return bytes(body)


def _codings(response: httpx.Response) -> list[str]:
    """What the body is encoded with, in the order of encoding."""
    headers = response.headers
    names = (headers.get("content-encoding", ""), headers.get("transfer-encoding", ""))
    found = [name.strip().lower() for value in names for name in value.split(",")]
    return [name for name in found if name not in _NO_CODINGS]


_CHUNK = 16 * 1024
"""Bytes."""

_MAX_DIGITS = 18
"""Of a length that is read."""

BROKEN_OFF = "the answer broke off"


_CONNECTING = "ackbridge.connecting"
"""The extension of a request that has its `_Connecting`."""


_POOL = "ackbridge.pool"
"""The extension of a request that has the name of its pool."""


@dataclass
class _Connecting:
    """Whether a request waits for its connection, so that nothing of it was sent.

    The timeouts of aiohttp do not tell: they are rounded up to whole seconds, and that of the whole
    exchange may come first.
    """

    is_pending: bool = False


_current: ContextVar[_Connecting | None] = ContextVar("connecting", default=None)


class _Connector(aiohttp.TCPConnector):
    def __init__(self, egress: Egress, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(LenientResponseHandler, self._loop)
        self._egress = egress

    async def _resolve_host(
        self, host: str, port: int, traces: Any = None
    ) -> list[aiohttp.abc.ResolveResult]:
        """The addresses of a host, for a new connection, without those that are not allowed."""
        found = await super()._resolve_host(host, port, traces)
        allowed = [one for one in found if self._egress.allows(host, one["host"])]
        if found and not allowed:
            raise EgressError(f"{host} has no address that requests may go to")
        return allowed

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        connection = await super().connect(*arguments, **options)
        if (connecting := _current.get()) is not None:
            connecting.is_pending = False
        return connection


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`, which closes it.

    aiohttp needs a fraction of the CPU time of httpx's own transport. `httpx-aiohttp` is not used:
    it reports a connection that breaks while the response is awaited as `ConnectTimeout`, which
    would mean that nothing was sent, and it rewrites escapes in the path, which a signature may
    cover.

    It keeps no cookies, follows no redirects, does not decompress (httpx does), and ignores the
    process environment.
    """

    def __init__(
        self,
        limits: httpx.Limits,
        pools: Mapping[str, Pool],
        others: Pool = ANY_POOL,
    ) -> None:
        """Take the limits of any pool, and what is particular about some, and about all others."""
        self._limits = limits
        self._pools = pools
        self._others = others
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is in memory; the body of the response is not read.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: nothing was sent.
            httpx.TransportError: any other one; the request may have arrived.
        """
        name = request.extensions.get(_POOL, "")
        pool = self._pools.get(name, self._others)
        session = self._session(name, pool)
        timeout = request.extensions.get("timeout", {})
        connecting = request.extensions.get(_CONNECTING)
        if connecting is not None:
            connecting.is_pending = True
        _current.set(connecting)
        with _translated():
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=_fields_of(request),
                data=request.content or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
                server_hostname=request.extensions.get("sni_hostname"),
                ssl=pool.tls() if pool.tls and request.url.scheme == "https" else self._tls,
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            request=request,
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("ascii", "replace"),
            },
        )

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, name: str, pool: Pool) -> aiohttp.ClientSession:
        if name not in self._sessions:
            self._sessions[name] = self._open(pool)
        return self._sessions[name]

    def _open(self, pool: Pool) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=_Connector(
                pool.egress,
                limit=pool.connections or self._limits.max_connections or 0,
                keepalive_timeout=self._limits.keepalive_expiry or 0,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),
        )
        return without_own_retries(session)


def _fields_of(request: httpx.Request) -> CIMultiDict[str]:
    raw = request.headers.raw
    return CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)


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


_PROBLEMS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.PoolTimeout, "could not connect: all connections are in use"),
    (httpx.ConnectTimeout, "could not connect in time"),
    (httpx.ConnectError, "could not connect: refused, or no such host"),
    (httpx.WriteTimeout, "the request could not be sent in time"),
    (httpx.TimeoutException, "no answer in time"),
    (TimeoutError, "no answer in time"),
    (httpx.RemoteProtocolError, "no answer: the connection was closed, or it is no HTTP"),
    (httpx.NetworkError, "no answer: the connection broke"),
)


def network_problem(error: Exception) -> str:
    """What went wrong, without the error's own text, which may quote what was sent."""
    found = (text for kind, text in _PROBLEMS if isinstance(error, kind))
    return next(found, f"no answer: {type(error).__name__}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
            if isinstance(cause, EgressError):
                raise EgressRefusedError(str(cause)) from None
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
