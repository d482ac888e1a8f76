"""Bodies that are too large are refused at once and never buffered."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta

from ackbridge.contracts.edge import EdgeLimits
from ackbridge.contracts.messages import BodyRef

from .world import Gateway, World, collected, new_call_id

MEGABYTE = 1024 * 1024
HEAD = "POST /callbacks/{} HTTP/1.1\r\nHost: gateway\r\n"


async def test_a_declared_size_is_refused_before_anything_is_sent(world: World) -> None:
    """With a Content-Length over the limit, the reply is sent before the body is read."""
    async with world.gateway() as gateway:
        status = await _status_after(gateway, f"Content-Length: {50 * MEGABYTE}\r\n\r\n".encode())

    assert status == 413


async def test_a_chunked_body_is_refused_at_the_limit(world: World) -> None:
    """Without a Content-Length, the reply is sent at the first byte over the limit."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    content = b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 16 + b"1\r\nx\r\n"
    async with world.gateway() as gateway:
        status = await _status_after(gateway, content)

    assert status == 413


async def test_the_limit_is_the_integrations(world: World) -> None:
    """Each provider has its own limit, and a body of exactly that size is accepted."""
    async with world.gateway() as gateway:
        codes = [
            (await gateway.send(b"x" * size, {"X-Token": "other-token"}, "other")).status_code
            for size in (1000, 1001)
        ]

    assert codes == [415, 413]


async def test_a_client_that_sends_50_megabytes_first_gets_its_reply(world: World) -> None:
    """A client that writes everything before it reads gets 413, and memory stays low."""
    async with world.gateway() as gateway:
        before = _peak_memory()
        codes = [
            await asyncio.to_thread(_post, gateway.url, name, chunked=chunked)
            for name in ("acme", "nobody")
            for chunked in (False, True)
        ]

    assert codes == [413] * 4
    assert _peak_memory() - before < 25 * MEGABYTE


async def test_a_message_that_is_too_large_is_refused(world: World) -> None:
    """A large body is accepted if the message taken from it is small enough, as JSON."""
    call_id = new_call_id("scan", "bulky")
    call = await world.start_call(call_id)
    headers = {"Authorization": "Basic " + b64encode(b"bulky:other-token").decode()}
    large = {"id": "evt_1", "call_id": call_id, "page": "x", "pixels": "x" * 5 * MEGABYTE}
    grows = f'{{"id": "evt_2", "call_id": "{call_id}", "page": [{"1e15," * 500_000}1]}}'
    async with world.gateway() as gateway:
        codes = [
            (await gateway.send(body, headers, "bulky")).status_code
            for body in (json.dumps(large).encode(), grows.encode())
        ]

    assert codes == [200, 413]
    assert [message["data"] for message in await collected(call)] == ["x"]


async def test_data_that_grows_as_json_is_passed_by_reference(world: World) -> None:
    """Numbers are written in another way: the signal would be over the engine's limit."""
    call_id = new_call_id("scan", "bulky")
    call = await world.start_call(call_id)
    headers = {"Authorization": "Basic " + b64encode(b"bulky:other-token").decode()}
    page = ",".join(["1e15"] * (MEGABYTE // 5))
    body = f'{{"id": "evt_1", "call_id": "{call_id}", "page": [{page}]}}'.encode()
    async with world.gateway() as gateway:
        code = (await gateway.send(body, headers, "bulky")).status_code

    assert code == 200
    (data,) = [message["data"] for message in await collected(call)]
    ref = BodyRef.of_data(data)
    assert ref is not None
    assert ref.bytes > 3 * MEGABYTE
    assert len(json.loads(await world.ledger.bodies.read(ref.id) or b"")) == MEGABYTE // 5


async def test_a_body_that_does_not_arrive_times_out(world: World) -> None:
    """A sender that stops in the middle of its body gets 408."""
    limits = EdgeLimits(body_timeout=timedelta(milliseconds=10))
    async with world.gateway(limits=limits) as gateway:
        status = await _status_after(gateway, b"Content-Length: 10\r\n\r\nhalf")

    assert status == 408


async def test_a_sender_that_disconnects_affects_no_other(world: World) -> None:
    """A connection that ends in the middle of a body leaves the gateway working."""
    async with world.gateway() as gateway:
        _, writer = await _connect(gateway)
        writer.write(HEAD.format("acme").encode() + b"Content-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await gateway.http.get("/healthz")).status_code == 200


async def _status_after(gateway: Gateway, rest: bytes) -> int:
    reader, writer = await _connect(gateway)
    try:
        writer.write(HEAD.format("acme").encode() + rest)
        line = await asyncio.wait_for(reader.readline(), 30)
        return int(line.split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def _connect(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))


def _post(url: str, provider: str, *, chunked: bool) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    headers = {} if chunked else {"Content-Length": str(50 * MEGABYTE)}
    try:
        connection.request(
            "POST",
            f"/callbacks/{provider}",
            body=_fifty_megabytes(),
            headers=headers,
            encode_chunked=chunked,
        )
        return connection.getresponse().status
    finally:
        connection.close()


def _fifty_megabytes() -> Iterator[bytes]:
    chunk = b"x" * 65536
    for _ in range(50 * 16):
        yield chunk


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
