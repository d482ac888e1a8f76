"""A network between a browser and a server: it can be cut, and it can fall silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Network:
    """Forwards connections to a port of this machine; a context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """Reset every connection, and accept none."""
        self._is_cut = True
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()

    def fall_silent(self) -> None:
        """Let nothing through, without closing anything."""
        self._flows.clear()

    def restore(self) -> None:
        """Work again; connections that fell silent stay lost."""
        self._is_cut = False
        if not self._flows.is_set():
            for writer in self._writers:
                writer.transport.abort()
            self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        both = {writer, inner_writer}
        self._writers |= both
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, inner_writer))
                group.create_task(self._forward(inner_reader, writer))
        finally:
            self._writers -= both
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
