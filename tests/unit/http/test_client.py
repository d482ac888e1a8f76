"""The HTTP client, against well-behaved and faulty servers."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.http.client import (
    BROKEN_OFF,
    USER_AGENT,
    HttpResponse,
    Pool,
    build_client,
    exchange,
)
from activities.support.retry import network_failure
from tests.support.serving import serve, serve_raw

LONG = timedelta(seconds=30)
LIMIT = 1024


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client as a worker builds it."""
    async with build_client() as client:
        yield client


async def fetch(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
    timeout: timedelta = LONG,  # noqa: ASYNC109 -- handed on to what is tested
    pool: str = "",
) -> HttpResponse:
    """An exchange with default arguments."""
    return await exchange(
        client,
        method="POST",
        url=url,
        headers=headers or {},
        content=content,
        auth=None,
        timeout=timeout,
        max_bytes=LIMIT,
        pool=pool,
    )


async def test_pools_share_no_connections() -> None:
    """While all connections of one pool wait for a slow server, another pool has its own."""
    app = echo()

    @app.post("/slow")
    async def wait() -> Response:
        await asyncio.sleep(5)
        return Response()

    with serve(app) as url:
        async with build_client(max_connections=1, pools={"a": Pool(2)}) as client:
            waiting = [
                asyncio.create_task(fetch(client, f"{url}/slow", pool="a")) for _ in range(2)
            ]
            await asyncio.sleep(0.1)
            with pytest.raises(httpx.ConnectTimeout):
                await fetch(client, f"{url}/echo", pool="a", timeout=timedelta(seconds=0.3))
            assert (await fetch(client, f"{url}/echo", pool="b")).status == 202
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def echo() -> FastAPI:
    """A server that echoes, sets a cookie, redirects, and compresses without being asked."""
    app = FastAPI()

    @app.post("/echo")
    async def _echo(request: Request) -> Response:
        reply = Response(await request.body(), status_code=202)
        reply.headers["X-Seen-Agent"] = request.headers["user-agent"]
        reply.headers["X-Seen-Cookie"] = request.headers.get("cookie", "none")
        reply.set_cookie("session", "of-one-call")
        return reply

    @app.post("/away")
    async def _away() -> Response:
        return Response(status_code=307, headers={"location": "/echo"})

    @app.post("/bomb")
    async def _bomb() -> Response:
        return Response(gzip.compress(bytes(100 * LIMIT)), headers={"content-encoding": "gzip"})

    return app


async def test_an_exchange_returns_status_headers_and_body(client: httpx.AsyncClient) -> None:
    """The response has the status, lower-case header names and the bytes."""
    with serve(echo()) as url:
        reply = await fetch(client, f"{url}/echo", content=b"\x00raw")

    assert (reply.status, reply.body) == (202, b"\x00raw")
    assert reply.headers["x-seen-agent"] == USER_AGENT


async def test_the_repr_of_a_response_hides_its_content() -> None:
    """Neither headers nor body are in the repr."""
    assert "secret" not in repr(HttpResponse(200, {"set-cookie": "secret"}, b"secret"))


async def test_cookies_are_not_kept(client: httpx.AsyncClient) -> None:
    """A cookie set in one call is not sent in another."""
    with serve(echo()) as url:
        await fetch(client, f"{url}/echo")
        reply = await fetch(client, f"{url}/echo")

    assert reply.headers["x-seen-cookie"] == "none"


async def test_redirects_are_not_followed(client: httpx.AsyncClient) -> None:
    """A redirect is returned as the response."""
    with serve(echo()) as url:
        reply = await fetch(client, f"{url}/away")

    assert reply.status == 307


async def test_proxy_variables_are_ignored(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client ignores HTTP_PROXY and ALL_PROXY."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with serve(echo()) as url:
        async with build_client() as under_proxy:
            reply = await fetch(under_proxy, f"{url}/echo")

    assert reply.status == 202


async def test_the_limit_applies_after_decompression(client: httpx.AsyncClient) -> None:
    """A small compressed body that expands is too large."""
    with serve(echo()) as url:
        reply = await fetch(client, f"{url}/bomb")

    assert (reply.status, reply.body) == (200, b"")
    assert reply.problem == "the response is longer than 1024 bytes"


async def test_an_endless_body_is_too_large(client: httpx.AsyncClient) -> None:
    """An endless body is cut off at the limit."""

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * LIMIT)
            await writer.drain()

    async with serve_raw(pour) as url:
        reply = await fetch(client, url)

    assert reply.problem == "the response is longer than 1024 bytes"


async def test_a_slow_body_ends_with_the_total_timeout(client: httpx.AsyncClient) -> None:
    """Bytes that keep arriving do not extend the timeout."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serve_raw(drip) as url:
        reply = await fetch(client, url, timeout=timedelta(seconds=0.2))

    assert (reply.status, reply.problem) == (200, BROKEN_OFF)


async def test_a_silent_server_times_out(client: httpx.AsyncClient) -> None:
    """A server that accepts and never answers times out."""

    async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve_raw(silence) as url:
        with pytest.raises((TimeoutError, httpx.ReadTimeout)):
            await fetch(client, url, timeout=timedelta(seconds=0.2))


async def test_a_long_operation_outlives_the_connect_timeout() -> None:
    """The connect timeout does not bound the response time."""

    async def think(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    async with (
        build_client(connect_timeout=timedelta(seconds=0.1)) as client,
        serve_raw(think) as url,
    ):
        reply = await fetch(client, url)

    assert reply.status == 204


async def test_a_closed_port_proves_that_nothing_was_sent(client: httpx.AsyncClient) -> None:
    """Without a listener the error is a ConnectError, unlike after a lost response."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(httpx.ConnectError):
        await fetch(client, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("value", ["a\r\nInjected: b", "grüß", "\x00"])
async def test_an_impossible_header_is_named_and_not_quoted(
    client: httpx.AsyncClient, value: str
) -> None:
    """An invalid header is an input error, and its value is not in the message."""
    with pytest.raises(InvalidInputError, match=r"headers\.x-note") as refused:
        await fetch(client, "http://127.0.0.1:1/", headers={"x-note": value})

    assert value not in str(refused.value)


async def test_an_impossible_url_is_invalid(client: httpx.AsyncClient) -> None:
    """A URL that does not parse is invalid input, not a network failure."""
    with pytest.raises(InvalidInputError, match="url"):
        await fetch(client, "http://host:port/")


async def test_a_connection_that_breaks_is_no_proof_that_nothing_was_sent(
    client: httpx.AsyncClient,
) -> None:
    """A server that closes the connection may have processed the request."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serve_raw(hang_up) as url:
        with pytest.raises(httpx.TransportError) as broken:
            await fetch(client, url)

    assert network_failure(broken.value).reached


async def test_a_truncated_body_is_a_problem(client: httpx.AsyncClient) -> None:
    """Of a body shorter than its Content-Length nothing is used; the status is known."""

    async def stop_short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    async with serve_raw(stop_short) as url:
        reply = await fetch(client, url)

    assert (reply.status, reply.body, reply.problem) == (200, b"", BROKEN_OFF)


async def test_another_protocol_is_a_transport_error(client: httpx.AsyncClient) -> None:
    """A server that does not speak HTTP causes a transport error."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async with serve_raw(babble) as url:
        with pytest.raises(httpx.TransportError) as broken:
            await fetch(client, url)

    assert network_failure(broken.value).reached


async def test_escapes_in_the_path_are_not_rewritten(client: httpx.AsyncClient) -> None:
    """A signature may cover them."""
    app = FastAPI()
    seen: list[bytes] = []

    @app.post("/{path:path}")
    async def _note(request: Request) -> None:
        seen.extend((request.scope["raw_path"], request.scope["query_string"]))

    with serve(app) as url:
        await fetch(client, f"{url}/a%2Fb/%7Ec?x=%20y&z=%2B")

    assert seen == [b"/a%2Fb/%7Ec", b"x=%20y&z=%2B"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_request_on_a_connection_that_breaks_is_sent_once(
    client: httpx.AsyncClient, method: str
) -> None:
    """It may have arrived: only the caller may send it again."""
    arrived = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await reader.readuntil(b"\r\n\r\n")
            arrived += 1

    async with serve_raw(handler) as url:
        assert (await client.request(method, url)).status_code == 200
        with pytest.raises(httpx.TransportError):
            await client.request(method, url)
    assert arrived == 2
