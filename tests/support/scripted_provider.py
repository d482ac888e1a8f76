"""A provider that answers with exact bytes, for what no framework would send."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Data(BaseModel):
    """A part of a file of test data; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(Data):
    """One answer, in one of two ways.

    Attributes:
        head: the status line and the headers, one a line; `Content-Length` is added.
        body: what is encoded by `coding`.
        coding: a charset, `gzip`, or `base64`, which the body is written in here alone.
        delay: seconds before it is sent.
        hang: instead of an answer, seconds of silence, then a reset.
        after: this is the answer from when these routes have been asked so often, whatever stands
            beside it.
    """

    head: str = ""
    body: str = ""
    coding: str = "utf-8"
    delay: float = 0
    hang: float | None = None
    after: dict[str, int] | None = None

    def encoded(self) -> bytes:
        """The bytes on the wire."""
        body = self._encoded_body()
        head = spread(self.head).strip("\n").split("\n")
        lines = [*head, f"Content-Length: {len(body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def _encoded_body(self) -> bytes:
        match self.coding:
            case "base64":
                return base64.b64decode(self.body)
            case "gzip":
                return gzip.compress(self.body.encode())
            case charset:
                return self.body.encode(charset)


Answer = str | Reply
"""A text is sent as it is, one byte for each character, but `reset` resets the connection.

In it and in a head, `{{x*9000}}` is 9000 times x; a # in it is the number of the repetition.
"""


def spread(text: str) -> str:
    """Write out the repetitions of an answer."""

    def many(found: re.Match[str]) -> str:
        return "".join(found[1].replace("#", str(number)) for number in range(int(found[2])))

    return _REPEATED.sub(many, text)


_REPEATED = re.compile(r"\{\{(.*?)\*(\d+)\}\}", re.DOTALL)

NOT_FOUND = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
RESET = "reset"


@dataclass
class Request:
    """What the provider got.

    Attributes:
        route: method and path, without the case and the query: `POST /orders`.
        query: as it was sent.
        headers: by their names in lowercase.
        at, answered_at: by the clock of the event loop; None if it was not answered.
    """

    route: str
    query: str
    headers: Mapping[str, str]
    body: str
    at: float
    answered_at: float | None = None


class ScriptedProvider:
    """Answers the n-th request of a route with the n-th answer, then with the last one.

    The first segment of a path is the name of the script.
    """

    def __init__(self, scripts: Mapping[str, Mapping[str, Sequence[Answer]]]) -> None:
        """Take the scripts by name, the answers by route."""
        self._scripts = scripts
        self._requests: dict[str, list[Request]] = {name: [] for name in scripts}
        self._arrival = asyncio.Condition()

    def requests(self, script: str, route: str | None = None) -> list[Request]:
        """What has arrived, in its order."""
        every = self._requests[script]
        return [request for request in every if route in (None, request.route)]

    def _was_asked(self, script: str, counts: Mapping[str, int]) -> bool:
        return all(len(self.requests(script, route)) >= count for route, count in counts.items())

    async def wait_for(self, script: str, counts: Mapping[str, int]) -> None:
        """Wait until these routes have been asked so often."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: self._was_asked(script, counts))

    def _answer(self, script: str, route: str) -> Answer:
        answers = self._scripts[script].get(route, [NOT_FOUND])
        in_order = []
        for answer in answers:
            if isinstance(answer, str) or answer.after is None:
                in_order.append(answer)
            elif self._was_asked(script, answer.after):
                return answer
        return in_order[min(len(self.requests(script, route)), len(in_order)) - 1]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen; gives the base URL."""
        connections: set[asyncio.Task[Any]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                while await self._exchange(reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false if the connection is over."""
        script, request = await _read(reader)
        if script not in self._scripts:
            writer.write(NOT_FOUND.encode())
            return True
        async with self._arrival:
            self._requests[script].append(request)
            self._arrival.notify_all()
        answer = self._answer(script, request.route)
        if isinstance(answer, Reply):
            await asyncio.sleep(answer.delay if answer.hang is None else answer.hang)
        if answer == RESET or (isinstance(answer, Reply) and answer.hang is not None):
            writer.transport.abort()
            return False
        writer.write(
            answer.encoded() if isinstance(answer, Reply) else spread(answer).encode("latin-1")
        )
        await writer.drain()
        request.answered_at = asyncio.get_running_loop().time()
        return True


async def _read(reader: asyncio.StreamReader) -> tuple[str, Request]:
    """The name of the script, and the request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    at = asyncio.get_running_loop().time()
    method, target, _ = head[0].split(" ", 2)
    fields = (line.partition(":") for line in head[1:])
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    whole_path, _, query = target.partition("?")
    _, script, *path = whole_path.split("/", 2)
    route = f"{method} /{''.join(path)}"
    return script, Request(route, query, headers, body.decode(), at)
