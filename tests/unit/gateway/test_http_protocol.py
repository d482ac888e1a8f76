"""What one client may take of the gateway, over sockets: every attack ends, and others get in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
import uvicorn

from ackbridge.contracts.edge import EdgeLimits
from ackbridge.gateway.app import build_config
from ackbridge.gateway.connections import most_connections
from ackbridge.gateway.rejections import Rejections
from ackbridge.stats.counters import Count, Counters

KIB = 1024
MIB = 1024 * KIB
SHORT = timedelta(milliseconds=200)
GET = b"GET / HTTP/1.1\r\nHost: gateway\r\n"
POST = b"POST / HTTP/1.1\r\nHost: gateway\r\n"


@dataclass
class App:
    """Answers with the body that it read, and the headers that it saw then."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        self.headers.append(list(scope["headers"]))
        self.sources.append(scope["client"][0])
        content = b"x" * 8 * MIB if scope["path"] == "/large" else b"ok"
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@dataclass
class Edge:
    """A server with bounds."""

    port: int
    app: App
    counters: Counters
    server: uvicorn.Server

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, request: bytes) -> bytes:
        """What comes back until the connection is closed."""
        reader, writer = await self.connect()
        writer.write(request)
        try:
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()

    async def flood(self, head: bytes, piece: bytes, number: int) -> tuple[bytes, int]:
        """Send `number` pieces after a head; what came back, and how many were sent."""
        reader, writer = await self.connect()
        writer.write(head)
        sent = 0
        try:
            async with asyncio.timeout(30):
                for _ in range(number):
                    writer.write(piece)
                    await writer.drain()
                    sent += 1
        except ConnectionError:
            pass
        try:
            return await reader.read(), sent
        except ConnectionError:
            return b"", sent
        finally:
            writer.close()

    async def genuine(self) -> int:
        async with httpx.AsyncClient(timeout=5) as http:
            reply = await http.post(f"http://127.0.0.1:{self.port}/", content=b"genuine")
        return reply.status_code


@asynccontextmanager
async def edge(trusted: str = "", **limits: Any) -> AsyncIterator[Edge]:
    """Serve the application with these limits."""
    app, counters = App(), Counters()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = build_config(
            app,
            limits=EdgeLimits(**limits),
            trusted_proxies=[ip_network(trusted)] if trusted else [],
            rejections=Rejections(counters),
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        try:
            yield Edge(listener.getsockname()[1], app, counters, server)
        finally:
            server.should_exit = True
            await serving


def status_of(reply: bytes) -> int:
    found = re.match(rb"HTTP/1.1 (\d{3})", reply)
    return int(found[1]) if found else 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- what is waited for sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (GET, b"X-Padding: " + b"a" * 64 * KIB + b"\r\n"),
        (GET, b"a: b\r\n" * 10_000),
        (GET + b"X: ", b"a" * 64 * KIB),
        (GET + b"", b"a" * 64 * KIB),
        (b"GET /", b"a" * 64 * KIB),
        (b"", b"\r\n" * 32 * KIB),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: " + b"a" * 64 * KIB + b"\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 64 * KIB),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 10_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"a" * 64 * KIB),
    ],
)
async def test_what_is_not_a_body_is_bounded(head: bytes, piece: bytes) -> None:
    """Heads, URLs, header names and values, trailers, chunk extensions, and empty lines."""
    async with edge() as at:
        reply, _ = await at.flood(head, piece, 100)
        assert status_of(reply) == 431
        assert b"connection: close" in reply
        assert at.app.bodies == []
        assert await at.genuine() == 200
        assert at.counters.totals()["", ""][Count.TURNED_AWAY] == 1


async def test_a_client_that_never_stops_is_cut_off() -> None:
    """What is sent after a refusal is discarded for a while, so that the reply is read."""
    async with edge() as at:
        before = _peak_memory()
        _, sent = await at.flood(GET, b"X-Padding: " + b"a" * MIB + b"\r\n", 600)
        assert sent < 100
        assert _peak_memory() - before < 25 * MIB
        await until(lambda: at.connections == 0)


async def test_usual_heads_and_trailers_are_fine() -> None:
    """Trailers are read and dropped: they are not headers."""
    long_head = GET + b"X-Long: " + b"a" * 16 * KIB + b"\r\n"
    trailers = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Signature: forged\r\n\r\n"
    async with edge() as at:
        replies = [
            await at.exchange(long_head + b"Connection: close\r\n\r\n"),
            await at.exchange(POST + b"Connection: close\r\n" + trailers),
        ]
        assert [status_of(reply) for reply in replies] == [200, 200]
        assert at.app.bodies == [b"", b"hi"]
        assert b"x-signature" not in dict(at.app.headers[1])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (POST + b"Content-Length: 5001\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1389\r\n" + b"a" * 5001, 413),
        (b"\x16\x03\x01\x02\x00 not HTTP at all\r\n\r\n", 400),
        (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_a_refused_request_closes_its_connection(
    request_: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The reply says why, in JSON, and the connection ends."""
    async with edge(body_bytes=5000) as at:
        reply = await at.exchange(request_)
        assert status_of(reply) == code
        assert set(json.loads(reply.partition(b"\r\n\r\n")[2])) == {"status", "reason"}
        await until(lambda: at.connections == 0)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 0),
        (b"POST / HT", 408),
        (POST + b"Content-Length: 10\r\n\r\nhalf", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", 408),
    ],
)
async def test_silent_connections_are_closed(sent: bytes, code: int) -> None:
    """What says nothing gets nothing; what began gets a 408."""
    async with edge(head_timeout=SHORT, body_timeout=SHORT) as at:
        reply = await at.exchange(sent)
        assert status_of(reply) == code
        await until(lambda: at.connections == 0)


@pytest.mark.parametrize("head", [GET + b"X-Slow: ", POST + b"Content-Length: 1000\r\n\r\n"])
async def test_dripping_does_not_extend_the_time(head: bytes) -> None:
    """The time runs from the first byte, not from the last one."""
    async with edge(head_timeout=SHORT, body_timeout=SHORT) as at:
        reader, writer = await at.connect()
        writer.write(head)
        async with asyncio.timeout(5):
            while not (reader.at_eof() or at.connections == 0):
                writer.write(b"a")
                await asyncio.sleep(0.05)
                if reader._buffer:  # type: ignore[attr-defined]  # what has arrived, without waiting
                    break
            assert status_of(await reader.read()) == 408
        writer.close()


async def test_idle_connections_are_closed_and_kept_for_a_while() -> None:
    """Between two requests a connection may rest."""
    async with edge(idle_timeout=SHORT) as at:
        reader, writer = await at.connect()
        for _ in range(2):
            writer.write(GET + b"\r\n")
            assert await reader.readuntil(b"ok")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_reply_that_nobody_reads_is_given_up() -> None:
    """A client that asks and does not read holds neither memory nor a descriptor for long."""
    async with edge(write_timeout=SHORT) as at:
        with socket.create_connection(("127.0.0.1", at.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: at.connections == 1)
            await until(lambda: at.connections == 0)


@pytest.mark.parametrize(
    "said", [b"", b"POST / HTTP/1.1\r\n", POST + b"Content-Length: 9\r\n\r\n", GET + b"\r\n"]
)
async def test_connections_that_wait_make_room_for_others(said: bytes) -> None:
    """Silent, dripping, half sent and idle ones: genuine requests get in, however many wait."""
    async with edge(connections=20) as at:
        greedy = [await at.connect() for _ in range(60)]
        for _, writer in greedy:
            writer.write(said)
        assert [await at.genuine() for _ in range(5)] == [200] * 5
        assert at.connections <= 21
        for _, writer in greedy:
            writer.close()


async def test_a_source_makes_room_for_itself() -> None:
    """One source has a share of the connections; its oldest silent one goes."""
    async with edge(connections_per_source=5) as at:
        greedy = [await at.connect() for _ in range(30)]
        await until(lambda: at.connections <= 6)
        assert await at.genuine() == 200
        for _, writer in greedy:
            writer.close()


async def test_bodies_that_do_not_arrive_hold_little_memory() -> None:
    """All incomplete bodies together are bounded; the oldest goes."""
    async with edge(pending_bytes=MIB) as at:
        greedy = [await at.connect() for _ in range(8)]
        for _, writer in greedy:
            writer.write(POST + b"Content-Length: 400000\r\n\r\n" + b"x" * 300_000)
        await until(lambda: at.connections <= 4)
        assert await at.genuine() == 200
        for _, writer in greedy:
            writer.close()


async def test_pipelined_requests_are_answered_up_to_a_number() -> None:
    """Some clients send a few at once; thousands would be objects before they are work."""
    async with edge() as at:
        few = await at.exchange((GET + b"\r\n") * 3 + GET + b"Connection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await at.exchange((GET + b"\r\n") * 10_000)
        assert few.count(b"HTTP/1.1 200 ") == 4
        assert len(at.app.bodies) < 30


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nmore", 200),
        (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", 200),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_other_protocols_are_not_spoken(request_: bytes, code: int) -> None:
    """An upgrade is ignored, and the connection closed after the reply."""
    async with edge() as at:
        reply = await at.exchange(request_)
        assert status_of(reply) == code
        assert b"connection: close" in reply
        await until(lambda: at.connections == 0)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "source"),
    [
        ("", "192.0.2.1", "127.0.0.1"),
        ("127.0.0.0/8", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.0/8", "203.0.113.9, 192.0.2.1, 127.0.0.2", "192.0.2.1"),
    ],
)
async def test_only_trusted_proxies_say_where_a_request_comes_from(
    trusted: str, forwarded: str, source: str
) -> None:
    """Anybody can send the header; the last address that is no proxy of ours counts."""
    async with edge(trusted) as at:
        async with httpx.AsyncClient() as http:
            await http.get(f"http://127.0.0.1:{at.port}/", headers={"X-Forwarded-For": forwarded})
        assert at.app.sources == [source]


@pytest.mark.parametrize(
    ("files", "connections"),
    [(128, 32), (1024, 256), (5000, 1250), (20_000, 15_904), (resource.RLIM_INFINITY, 16_000)],
)
def test_files_stay_free(monkeypatch: pytest.MonkeyPatch, files: int, connections: int) -> None:
    """With few descriptors there are fewer connections: ledger and engine need some, too."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (files, files))
    assert most_connections(16_000) == connections


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
