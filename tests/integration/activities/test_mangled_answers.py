"""Whatever bytes a provider answers with: no false success, and nothing sent again for them."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from ackbridge.contracts.messages import MessageKind
from ackbridge.contracts.steps import SendStep, Sent
from activities.send import Send

from . import world as made
from .world import Script, World, attempt, failed

gzipped = partial(gzip.compress, mtime=0)

RETRIED = (408, 425, 429, 500, 503)
STATUSES = (200, 201, 202, 204, 302, 400, 404, 409, 422, *RETRIED)
OPERATIONS = ("ponder", "quote", "order")
"""Without anything that is needed of the answer; with a reference; with a callback."""

MANGLINGS = ("none", "none", "cut", "insert", "mislabel", "lengths", "chunks", "surplus")

MIB = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What a provider sends.

    Attributes:
        document: what the body means; None where there is no body.
        is_whole: nothing is wrong with it that matters.
        status_bytes: so many have to be read before the status is known.
    """

    status: int
    packets: tuple[bytes, ...]
    document: Any
    is_whole: bool
    status_bytes: int

    @property
    def has_status(self) -> bool:
        """Whether the provider has sent its status."""
        return sum(map(len, self.packets)) >= self.status_bytes


def packed(body: bytes, coding: str) -> bytes:
    """A body in a content coding."""
    match coding:
        case "gzip" | "X-Gzip":
            return gzipped(body)
        case "deflate":
            return zlib.compress(body)
        case "x-pack":
            return bytes(byte ^ 0xA5 for byte in body)
        case _:
            return body


ODD_LINES = st.one_of(
    st.just(b"no colon here"),
    st.binary(min_size=1, max_size=30).map(lambda junk: junk.translate(None, b"\r\n:")),
    st.integers(1, 30_000).map(lambda size: b"X-Long: " + b"x" * size),
    st.integers(1, 300).map(lambda count: b"\r\n".join([b"X-Many: v"] * count)),
    st.binary(max_size=20).map(lambda junk: b"X-Junk: " + junk.translate(None, b"\r\n")),
)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """An answer that is as it should be, or not."""
    status = draw(st.sampled_from(STATUSES))
    mangling = draw(st.sampled_from(MANGLINGS))
    eol = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    coding = draw(st.sampled_from(["", "", "gzip", "X-Gzip", "deflate", "utf-8"]))
    charset = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "iso-8859-1"]))
    text = draw(st.text(st.characters(max_codepoint=255, exclude_categories=["Cs"]), max_size=60))
    document = {"id": "r-1", "text": text}
    plain = json.dumps(document, ensure_ascii=False).encode(charset)
    body = packed(plain, coding)
    is_whole = True
    if mangling == "insert" and coding != "deflate":
        position = draw(st.integers(0, len(body)))
        # Neither JSON nor a compressed file may have it anywhere but behind the end.
        body = body[:position] + b"\x00" + body[position:]
        is_whole = False
    if mangling == "mislabel":
        coding = draw(st.sampled_from(["x-pack", "br", "gzip, gzip"]))
        body, is_whole = packed(plain, "x-pack"), False
    lines = [b"Content-Type: application/json; charset=" + charset.encode()]
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    framing = draw(st.sampled_from(["length", "length twice", "chunked", "until the end"]))
    if mangling == "lengths":
        lines += [b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 1)]
        is_whole = False
    elif mangling == "chunks" or framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 50))
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        if mangling == "chunks":
            chunks[draw(st.integers(0, len(chunks) - 1))] += b"??"
            is_whole = False
        sizes = [min(size, len(body) - start) for start in range(0, len(body), size)]
        framed = (b"%x\r\n%b\r\n" % pair for pair in zip(sizes, chunks, strict=True))
        body = b"".join(framed) + b"0\r\n\r\n"
    elif framing != "until the end":
        lines += [b"Content-Length: %d" % len(body)] * (2 if framing == "length twice" else 1)
    lines += draw(st.lists(ODD_LINES, max_size=3))
    # A line that begins with a blank would continue the one before.
    lines = draw(st.permutations([line for line in lines if line.strip() == line]))
    lines = (
        [*lines, *draw(st.sampled_from([[], [b" folded"]]))] if lines[-1][:2] == b"X-" else lines
    )
    reason = draw(st.binary(max_size=9)).translate(None, b"\r\n")
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    first = version + b" %d " % status + reason + eol
    whole = first + eol.join(lines) + eol + eol + body
    if mangling == "surplus" and framing != "until the end":
        whole += draw(st.sampled_from([b"\r\n", b"junk", b"HTTP/1.1 200 OK\r\n\r\n{}"]))
    elif mangling == "cut":
        whole = whole[: draw(st.integers(0, len(whole) - 1))]
        is_whole = False
    cuts = sorted({0, len(whole), *draw(st.lists(st.integers(0, len(whole)), max_size=3))})
    packets = tuple(whole[start:end] for start, end in pairwise(cuts))
    event(mangling)
    return Answer(status, packets, None if status == 204 else document, is_whole, len(first))


class Provider:
    """Answers every request with the same bytes, and closes the connection.

    Attributes:
        requests: how many it got.
        taken: bytes that the client has taken of an endless answer.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.taken = 0
        self._play: Callable[[asyncio.StreamWriter], Any] = self._send
        self._packets: tuple[bytes, ...] = ()

    def answers(self, packets: tuple[bytes, ...]) -> None:
        """Send these packets."""
        self._packets, self._play = packets, self._send

    def pours(self, first: bytes, endless: bytes) -> None:
        """Send something, and then something else for ever."""
        self._packets, self._play = (first, endless), self._pour

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self._play(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        for packet in self._packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0)

    async def _pour(self, writer: asyncio.StreamWriter) -> None:
        first, endless = self._packets
        writer.write(first)
        while self.taken < 64 * MIB:
            writer.write(endless)
            await writer.drain()
            self.taken += len(endless)


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Provider, World]]:
    """A provider, and the dependencies of a worker that calls it."""
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, made.world(folder, Script(), url) as world:
        yield provider, world


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def staged(
    runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Provider, World]]:
    """One stage for all examples."""
    entered = stage(tmp_path_factory.mktemp("mangled"))
    yield runner.run(entered.__aenter__())
    runner.run(entered.__aexit__(None, None, None))


async def send(world: World, operation: str) -> Sent | ApplicationError:
    """One attempt."""
    step = SendStep(request=world.request(operation), cycle=1)
    try:
        return await attempt().run(Send(world.deps).send, step)
    except ApplicationError as error:
        return error


@settings(max_examples=400, derandomize=True)
@given(answer=answers(), operation=st.sampled_from(OPERATIONS))
def test_mangled_answers(
    runner: asyncio.Runner, staged: tuple[Provider, World], answer: Answer, operation: str
) -> None:
    """One request; the status counts once it was sent; a response is what the provider meant."""
    provider, world = staged
    provider.answers(answer.packets)
    provider.requests = 0

    result = runner.run(send(world, operation))

    assert provider.requests == 1
    is_accepted = 200 <= answer.status < 300
    if isinstance(result, Sent):
        assert is_accepted
        responses = [one for one in result.messages if one.kind is MessageKind.RESPONSE]
        assert all(one.data == answer.document for one in responses)
        assert result.reference in (None, "r-1")
    elif answer.has_status:
        assert result.non_retryable is (answer.status not in RETRIED)
    else:
        assert (result.type, result.non_retryable) == ("NoReceipt", False)
    if answer.is_whole and is_accepted:
        # And what is only odd is understood.
        assert isinstance(result, Sent)
        assert operation == "order" or result.messages


BOMB = gzipped(bytes(20 * MIB))


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        (b"", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X-Part: v\r\n" * 5000),
        (b"HTTP/1.1 200 OK\r\nX-Part: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nX-Part: a\r\n", b" b\r\n" * 9000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 500),
        (b"", b"\r\n" * 9000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"a\r\n0123456789\r\n" * 5000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: v\r\n" * 9000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: ", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + BOMB, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip,gzip\r\n\r\n" + gzipped(BOMB), b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x" * 65536),
    ],
)
def test_memory_is_bounded(
    runner: asyncio.Runner, staged: tuple[Provider, World], first: bytes, endless: bytes
) -> None:
    """Before, during and after decoding."""
    provider, world = staged
    provider.taken = 0
    if endless:
        provider.pours(first, endless)
    else:
        provider.answers((first,))
    tracemalloc.start()
    try:
        error = runner.run(failed(attempt().run(Send(world.deps).send, step(world))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * MIB
    assert error.type in ("NoReceipt", "Unreadable")


def step(world: World) -> SendStep:
    """The first attempt of a call that needs the reference in the answer."""
    return SendStep(request=world.request("book"), cycle=1)
