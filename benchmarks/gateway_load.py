"""The load of the gateway's benchmark: a process of its own that sends requests made beforehand.

Raw sockets: an HTTP client would cost more than the servers that are measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop


@dataclass(frozen=True)
class Load:
    """What is sent where.

    Attributes:
        port: on the loopback interface.
        path: of every request.
        requests: headers and body of each.
        connections: each sends its next request when the last one is answered.
    """

    port: int
    path: str
    requests: list[tuple[dict[str, str], str]]
    connections: int


@dataclass(frozen=True)
class Answered:
    """What came of it.

    Attributes:
        seconds: from the first request to the last answer.
        cpu: seconds of this process in that time.
        codes: how often each HTTP status came.
        latencies: milliseconds, of every request.
    """

    seconds: float
    cpu: float
    codes: dict[str, int]
    latencies: list[float]


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, requests: Iterator[bytes], answered: Counter[str], took: list[float]):
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._answered = answered
        self._took = took
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def begin(self) -> None:
        """Send the first request."""
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < _content_length(head):
            return
        self._answered[head[9:12].decode()] += 1
        self._took.append((time.perf_counter() - self._sent) * 1000)
        self._received = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    return 0


def _raw(load: Load, headers: dict[str, str], body: str) -> bytes:
    content = body.encode()
    lines = [
        f"POST {load.path} HTTP/1.1",
        f"host: 127.0.0.1:{load.port}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


async def send(load: Load) -> Answered:
    """Send everything, and count the answers."""
    requests = iter([_raw(load, headers, body) for headers, body in load.requests])
    answered: Counter[str] = Counter()
    took: list[float] = []
    loop = asyncio.get_running_loop()
    connections = [
        (
            await loop.create_connection(
                lambda: _Connection(requests, answered, took), "127.0.0.1", load.port
            )
        )[1]
        for _ in range(load.connections)
    ]
    started, cpu = time.perf_counter(), _cpu()
    for connection in connections:
        connection.begin()
    await asyncio.gather(*(connection.done for connection in connections))
    return Answered(time.perf_counter() - started, _cpu() - cpu, dict(answered), took)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


def main() -> None:
    """Read a load from the file named, and print what came of it."""
    load = Load(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(asdict(uvloop.run(send(load)))))


if __name__ == "__main__":
    main()
