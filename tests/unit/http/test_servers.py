"""Responses as servers send them, byte by byte: whatever is odd, the status is known."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import httpx
import pytest

from ackbridge.http.client import BROKEN_OFF, HttpResponse, build_client, exchange
from tests.support.serving import serve_raw

gzipped = partial(gzip.compress, mtime=0)

LIMIT = 64 * 1024
OK = b'{"id": "r1"}'
LENGTH = b"Content-Length: %d\r\n" % len(OK)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client as a worker builds it."""
    async with build_client() as client:
        yield client


async def fetch(
    client: httpx.AsyncClient, url: str, method: str = "POST", max_bytes: int = LIMIT
) -> HttpResponse:
    """One exchange."""
    return await exchange(
        client,
        method=method,
        url=url,
        headers={},
        content=None,
        auth=None,
        timeout=timedelta(seconds=3),
        max_bytes=max_bytes,
    )


async def answered(
    client: httpx.AsyncClient, *parts: bytes, method: str = "POST", closes: bool = False
) -> HttpResponse:
    """What the client makes of these bytes, sent in so many packets."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005 if len(parts) > 1 else 0)
        if not closes:
            await asyncio.sleep(10)

    async with serve_raw(answer) as url:
        return await fetch(client, url, method)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + LENGTH,
        b"HTTP/1.1 200\r\n" + LENGTH,
        b"HTTP/1.1 200 \r\n" + LENGTH,
        b"HTTP/1.0 200 OK\r\n" + LENGTH,
        b"http/1.1  200  OK\r\n" + LENGTH,
        b"\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
        b"HTTP/1.1 200 Cr\xe9\xe9\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\n" + LENGTH.replace(b"\r", b""),
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: v\r\n" * 5000 + LENGTH,
        b"HTTP/1.1 200 OK\r\n" + LENGTH + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Length: 12, 12\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n: no name\r\nb\xe4d: 1\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Length : 12\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x00b\x7f\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: utf-8\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + LENGTH,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n"
        + LENGTH,
    ],
)
async def test_odd_heads_are_read(client: httpx.AsyncClient, head: bytes) -> None:
    """In one packet, or in several that end anywhere."""
    end = b"\n" if b"\r" not in head else b"\r\n"
    whole = head + end + OK
    middle = len(head) - 1

    for parts in ([whole], [whole[:7], whole[7:middle], whole[middle:-3], whole[-3:]]):
        reply = await answered(client, *parts)
        assert (reply.status, reply.body, reply.problem) == (200, OK, None)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"5\r\n%b\r\n7;x=y\r\n%b\r\n0\r\nT: 1\r\n\r\n"),
        (
            b"Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n",
            b"5\r\n%b\r\n7\r\n%b\r\n0\r\n\r\n",
        ),
        (b"transfer-encoding: chunked\r\n", b"05\r\n%b\r\n7 \r\n%b\r\n000\r\n\r\n"),
    ],
)
async def test_chunks_are_read(client: httpx.AsyncClient, head: bytes, body: bytes) -> None:
    """Also with a length beside them, which does not count."""
    whole = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body % (OK[:5], OK[5:])

    for parts in ([whole], [whole[n : n + 9] for n in range(0, len(whole), 9)]):
        reply = await answered(client, *parts)
        assert (reply.status, reply.body, reply.problem) == (200, OK, None)


async def test_a_body_may_last_until_the_end_of_the_connection(client: httpx.AsyncClient) -> None:
    """Where neither a length nor chunks are declared."""
    reply = await answered(client, b"HTTP/1.1 200 OK\r\n\r\n", OK, closes=True)

    assert (reply.status, reply.body, reply.problem) == (200, OK, None)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize(
    "rest",
    [
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        LENGTH + b"\r\n" + OK,
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: soon\r\n\r\n",
    ],
)
async def test_a_status_without_a_body_has_none(
    client: httpx.AsyncClient, status: bytes, rest: bytes
) -> None:
    """Whatever the server announces or sends."""
    reply = await answered(client, b"HTTP/1.1 " + status + b"\r\n" + rest)

    assert (reply.status, reply.body, reply.problem) == (int(status[:3]), b"", None)


async def test_the_answer_to_head_has_no_body(client: httpx.AsyncClient) -> None:
    """Its length is that of another answer."""
    reply = await answered(client, b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n", method="HEAD")

    assert (reply.status, reply.body, reply.problem) == (200, b"", None)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 12\r\nContent-Length: 13\r\n\r\n" + OK,
        b"Content-Length: +12\r\n\r\n" + OK,
        b"Content-Length: \r\n\r\n" + OK,
        b"Content-Length: 99999999999999999999\r\n\r\n" + OK,
        b"Content-Length: 50\r\n\r\n" + OK,
        b"Transfer-Encoding: chunked\r\n\r\nnothing\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + OK + b"\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"X-Unfinished: y",
        b"X-Endless: " + b"y" * 300_000,
    ],
)
async def test_the_status_of_a_broken_body_is_known(client: httpx.AsyncClient, rest: bytes) -> None:
    """Nothing is concluded from a body whose end is not known."""
    reply = await answered(client, b"HTTP/1.1 201 Created\r\nX-A: b\r\n" + rest, closes=True)

    assert (reply.status, reply.body, reply.problem) == (201, b"", BROKEN_OFF)
    assert reply.headers["x-a"] == "b"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 20",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"<html>\r\n\r\n",
        b"x" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_without_a_status_there_is_no_answer(client: httpx.AsyncClient, sent: bytes) -> None:
    """The request may have arrived."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await answered(client, sent, closes=True)


def raw_deflate(data: bytes) -> bytes:
    """Without the header of zlib."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzipped(OK)),
        ("X-GZip", gzipped(OK)),
        ("identity, gzip", gzipped(OK)),
        ("gzip", gzipped(OK[:5]) + gzipped(OK[5:]) + bytes(20)),
        ("deflate", zlib.compress(OK)),
        ("deflate", raw_deflate(OK)),
        ("none", OK),
    ],
)
async def test_codings_are_undone(client: httpx.AsyncClient, coding: str, body: bytes) -> None:
    """Although none was asked for."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    reply = await answered(client, head.encode() + body)

    assert (reply.body, reply.problem) == (OK, None)


@pytest.mark.parametrize(
    ("coding", "body", "problem"),
    [
        ("x-pack", b"\x80\x81", "the body has an unknown content coding: x-pack"),
        ("gzip", b"\x80\x81", "the body does not have its content coding"),
        ("gzip", gzipped(OK)[:-9], "the compressed body broke off"),
        ("br", b"\x80\x81", "the body has an unknown content coding: br"),
        ("gzip, gzip", gzipped(gzipped(OK)), "the body has more than one content coding"),
        ("<b>", b"\x80\x81", "the body has an unknown content coding: an impossible name"),
        ("gzip," * 5, b"\x80\x81", "the body has more than one content coding"),
        ("gzip", gzipped(bytes(LIMIT + 1)), f"the response is longer than {LIMIT} bytes"),
        ("gzip", gzipped(bytes(LIMIT)) * 9, f"the response is longer than {LIMIT} bytes"),
    ],
)
async def test_what_cannot_be_decoded_is_named(
    client: httpx.AsyncClient, coding: str, body: bytes, problem: str
) -> None:
    """And nothing of it is used; it is bounded before and after."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    reply = await answered(client, head.encode() + body)

    assert (reply.status, reply.body, reply.problem) == (200, b"", problem)


async def test_a_body_that_expands_too_much_is_not_decoded_further(
    client: httpx.AsyncClient,
) -> None:
    """Beyond what small bodies may decode to, by the ratio; and no longer than by the ratio."""
    bomb = gzipped(bytes(16 * 1024 * 1024))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + bomb)

    tracemalloc.start()
    async with serve_raw(answer) as url:
        reply = await fetch(client, url, max_bytes=64 * 1024 * 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (reply.body, reply.problem) == (b"", "the compressed body expands more than 100 times")
    assert peak < 8 * 1024 * 1024


async def test_a_declared_length_over_the_limit_is_not_read(client: httpx.AsyncClient) -> None:
    """The connection is closed at once."""
    reply = await answered(client, b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")

    assert (reply.status, reply.problem) == (200, f"the response is longer than {LIMIT} bytes")


@pytest.mark.parametrize(
    "surplus",
    [
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + OK + b"HTTP/1.1 500 Smuggled\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Smuggled\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"HTTP/1.1 500 Smuggled\r\n\r\n",
    ],
)
async def test_nothing_is_left_for_the_next_request(
    client: httpx.AsyncClient, surplus: bytes
) -> None:
    """A connection that brings more than one answer is not used again."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(surplus)
        while await reader.read(1000):
            writer.write(surplus)

    async with serve_raw(answer) as url:
        for _ in range(3):
            assert (await fetch(client, url)).status != 500

    assert connections == 3


async def test_connections_are_used_again(client: httpx.AsyncClient) -> None:
    """After an answer that ends where it says."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        whole = b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + OK
        writer.write(whole)
        while await reader.read(1000):
            writer.write(whole)

    async with serve_raw(answer) as url:
        for _ in range(3):
            assert (await fetch(client, url)).body == OK

    assert connections == 1
