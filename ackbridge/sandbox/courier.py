"""Carries the provider's signed events to whoever asked for them, and insists."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import httpx

from ackbridge.clock import Clock
from ackbridge.contracts import Invalid
from ackbridge.transport import TooLarge, build_client, exchange

from .journal import Journal

CALLBACK_TIMEOUT = timedelta(seconds=10)
MAX_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Persistence:
    """How often a callback is tried, and the pause after its first try, doubled each time."""

    tries: int = 8
    pause: timedelta = timedelta(milliseconds=200)


@dataclass(frozen=True)
class Letter:
    """One event on its way.

    Attributes:
        url: where it goes.
        event: its body; every try and every copy carries the same `event_id`.
        about: what the journal says about it.
    """

    url: str
    event: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)


class Courier:
    """Delivers letters; an asynchronous context manager, which drops what is left at its end."""

    def __init__(
        self, secret: str, journal: Journal, clock: Clock, persistence: Persistence
    ) -> None:
        """Prepare; nothing is connected.

        Args:
            secret: what callbacks are signed with.
        """
        self._secret = secret.encode()
        self._journal = journal
        self._clock = clock
        self._persistence = persistence
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._client = build_client()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something without anybody waiting for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def deliver(self, letter: Letter, copies: int) -> None:
        """Send a letter so many times at the same instant, each on a connection of its own.

        Returns when every copy was answered or has failed once; further tries come later.
        """
        taken = await asyncio.gather(*(self._try(letter, copy, 1) for copy in range(copies)))
        for copy, is_taken in enumerate(taken):
            if not is_taken:
                self.later(self._insist(letter, copy))

    async def _insist(self, letter: Letter, copy: int) -> None:
        pause = self._persistence.pause.total_seconds()
        for attempt in range(2, self._persistence.tries + 1):
            await asyncio.sleep(pause)
            if await self._try(letter, copy, attempt):
                return
            pause *= 2
        self._journal.note("callback_given_up", **letter.about)

    async def _try(self, letter: Letter, copy: int, attempt: int) -> bool:
        about = {**letter.about, "copy": copy, "attempt": attempt}
        self._journal.note("callback", **about)
        status, trouble = await self._post(letter)
        self._journal.note("callback_reply", status=status, trouble=trouble, **about)
        return status is not None and 200 <= status < 300

    async def _post(self, letter: Letter) -> tuple[int | None, str | None]:
        if self._client is None:
            raise RuntimeError("the courier works inside its `async with` only")
        body = json.dumps(letter.event).encode()
        try:
            reply = await exchange(
                self._client,
                method="POST",
                url=letter.url,
                headers=self._signed(body),
                content=body,
                auth=None,
                timeout=CALLBACK_TIMEOUT,
                max_bytes=MAX_REPLY_BYTES,
            )
        except (httpx.HTTPError, TimeoutError, TooLarge, Invalid) as error:
            return None, type(error).__name__
        return reply.status, None

    def _signed(self, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock().timestamp()))
        signed = timestamp.encode() + b"." + body
        return {
            "content-type": "application/json",
            "x-sandbox-timestamp": timestamp,
            "x-sandbox-signature": hmac.new(self._secret, signed, hashlib.sha256).hexdigest(),
        }
