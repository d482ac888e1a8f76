"""What all lanes share: the provider, our own stack, and processes that end with the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from temporalio.client import Client

from ackbridge.local.processes import ManagedProcess
from ackbridge.local.stack import Stack

from .checks import read_works
from .lanes import PAYLOAD

CHECKOUT = Path(__file__).resolve().parents[1]
STARTS_WITHIN = 60.0
"""Seconds."""
STOPS_WITHIN = timedelta(seconds=10)
_LOOK_EVERY = 0.05


class NotReadyError(Exception):
    """A process ended or took too long before it was ready; the text has the end of its log."""


@dataclass(frozen=True)
class Ground:
    """The processes that lanes share.

    Attributes:
        folder: for their files; gone after the run.
        stack: the tuned engine, the provider, our worker and our gateway.
        client: of that engine.
        http: with as many connections as there are calls in flight.
    """

    folder: Path
    stack: Stack
    client: Client
    http: aiohttp.ClientSession

    @property
    def provider_url(self) -> str:
        """The base URL of the provider."""
        return self.stack.addresses.sandbox

    async def works(self) -> list[dict[str, Any]]:
        """The works of the provider so far."""
        async with self.http.get(f"{self.provider_url}/_works") as reply:
            reply.raise_for_status()
            return read_works(await reply.read())

    async def post(self, url: str, document: dict[str, Any]) -> None:
        """Post, and wait for the answer, however long it takes.

        Raises:
            aiohttp.ClientError: it is no 2xx.
        """
        async with self.http.post(url, json=document) as reply:
            reply.raise_for_status()

    async def through_edge(self, url: str, key: str) -> str:
        """One call through the HTTP edge of a peer, to its end; gives the call's id."""
        await self.post(f"{url}/calls", {"key": key, "payload": PAYLOAD})
        return key

    @asynccontextmanager
    async def running(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: str,
        environ: dict[str, str] | None = None,
    ) -> AsyncIterator[ManagedProcess]:
        """A process in its own folder `name`, from the time it says so until the end.

        Args:
            ready: what its output contains once it is ready.
            environ: what it is given beside the environment of the stack.

        Raises:
            NotReadyError: it ended, or took too long.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        child = ManagedProcess(
            command,
            environ=self.stack.environment | {"PYTHONPATH": str(CHECKOUT)} | (environ or {}),
            log=folder / "output.log",
            folder=folder,
        )
        child.start()
        try:
            await _until_ready(name, child, ready)
            yield child
        finally:
            await asyncio.to_thread(child.stop, STOPS_WITHIN)


async def _until_ready(name: str, child: ManagedProcess, ready: str) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while ready not in child.output():
        if not child.is_running or time.monotonic() > until:
            raise NotReadyError(f"{name} did not start:\n{child.tail()}")
        await asyncio.sleep(_LOOK_EVERY)
