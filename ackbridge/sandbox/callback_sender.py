"""Carries the provider's signed events to whoever asked for them, and insists."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import httpx

from ackbridge.clock import Clock
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.http.client import ResponseTooLargeError, build_client, exchange

from .event_log import EventLog
from .provider_dialect import ProviderDialect

CALLBACK_TIMEOUT = timedelta(seconds=10)
MAX_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Persistence:
    """How often a callback is tried, and the pause after its first try, doubled each time."""

    tries: int = 8
    pause: timedelta = timedelta(milliseconds=200)


@dataclass(frozen=True)
class OutgoingCallback:
    """One event on its way.

    Attributes:
        url: where it goes.
        event_id, body: every try and every copy carries the same.
        about: what the journal says about it.
        lost: so many tries of each copy never leave.
        forgery: which of the speech's forgeries proves it, in place of its signature.
    """

    url: str
    event_id: str
    body: bytes
    about: dict[str, Any] = field(default_factory=dict)
    lost: int = 0
    forgery: str | None = None


class CallbackSender:
    """Delivers letters; an asynchronous context manager, which drops what is left at its end."""

    def __init__(
        self, speech: ProviderDialect, journal: EventLog, clock: Clock, persistence: Persistence
    ) -> None:
        """Prepare; nothing is connected."""
        self._speech = speech
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

    async def deliver(self, letter: OutgoingCallback, copies: int = 1) -> None:
        """Send a letter so many times at the same instant, each on a connection of its own.

        Returns when every copy was answered or has failed once; further tries come later.
        """
        taken = await asyncio.gather(*(self._try(letter, copy, 1) for copy in range(copies)))
        for copy, is_taken in enumerate(taken):
            if not is_taken:
                self.later(self._insist(letter, copy))

    async def drop_in(self, letter: OutgoingCallback) -> None:
        """Send a letter once, whatever becomes of it: nobody insists on what is false."""
        await self._try(letter, 0, 1)

    async def _insist(self, letter: OutgoingCallback, copy: int) -> None:
        pause = self._persistence.pause.total_seconds()
        for attempt in range(2, self._persistence.tries + 1):
            await asyncio.sleep(pause)
            if await self._try(letter, copy, attempt):
                return
            pause *= 2
        self._journal.note("callback_given_up", **letter.about)

    async def _try(self, letter: OutgoingCallback, copy: int, attempt: int) -> bool:
        about = {**letter.about, "copy": copy, "attempt": attempt}
        if attempt <= letter.lost:
            self._journal.note("callback_lost", **about)
            return False
        self._journal.note("callback", **about)
        status, trouble = await self._post(letter)
        self._journal.note("callback_reply", status=status, trouble=trouble, **about)
        return status is not None and 200 <= status < 300

    async def _post(self, letter: OutgoingCallback) -> tuple[int | None, str | None]:
        if self._client is None:
            raise RuntimeError("the courier works inside its `async with` only")
        try:
            reply = await exchange(
                self._client,
                method="POST",
                url=letter.url,
                headers=self._proof(letter),
                content=letter.body,
                auth=None,
                timeout=CALLBACK_TIMEOUT,
                max_bytes=MAX_REPLY_BYTES,
            )
        except (httpx.HTTPError, TimeoutError, ResponseTooLargeError, InvalidInputError) as error:
            return None, type(error).__name__
        return reply.status, None

    def _proof(self, letter: OutgoingCallback) -> dict[str, str]:
        """Made for every try: time is signed."""
        of = (letter.body, letter.event_id, self._clock())
        if letter.forgery is None:
            return self._speech.sign(*of)
        return self._speech.forge(*of)[letter.forgery]
