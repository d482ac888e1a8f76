"""Sends the provider's signed callbacks, and retries them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import httpx

from ackbridge.clock import Clock
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.http.client import Pool, build_client, exchange
from ackbridge.http.egress import ANYWHERE

from .event_log import EventLog
from .provider_dialect import ProviderDialect

CALLBACK_TIMEOUT = timedelta(seconds=10)
MAX_REPLY_BYTES = 64 * 1024


@dataclass(frozen=True)
class CallbackRetries:
    """How often a callback is sent; `backoff` follows the first attempt, and doubles each time."""

    attempts: int = 8
    backoff: timedelta = timedelta(milliseconds=200)


@dataclass(frozen=True)
class OutgoingCallback:
    """A callback; `event_id` and `body` are the same for every attempt and every copy.

    Attributes:
        fields: of its events in the log.
        lost: this many attempts of each copy are not sent.
        forgery: signed with this one of the dialect's forgeries; None: signed correctly.
        is_void: whether its job was called off; it is not sent again then.
    """

    url: str
    event_id: str
    body: bytes
    fields: dict[str, Any] = field(default_factory=dict)
    lost: int = 0  # this many attempts of each copy are not sent
    # Signed with this one of the dialect's forgeries; None: signed correctly.
    forgery: str | None = None
    is_void: Callable[[], bool] = lambda: False


class CallbackSender:
    """An async context manager; callbacks that are not accepted yet at its end are dropped."""

    def __init__(
        self, dialect: ProviderDialect, event_log: EventLog, clock: Clock, retries: CallbackRetries
    ) -> None:
        self._dialect = dialect
        self._event_log = event_log
        self._clock = clock
        self._retries = retries
        self._client = build_client(others=Pool(egress=ANYWHERE))
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until it ends, or until the sender is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send(self, callback: OutgoingCallback, copies: int = 1) -> None:
        """Send copies at the same instant, each on its own connection; retry in the background."""
        accepted = await asyncio.gather(
            *(self._attempt(callback, copy, 1) for copy in range(copies))
        )
        for copy, is_accepted in enumerate(accepted):
            if not is_accepted:
                self.run_in_background(self._retry(callback, copy))

    async def send_once(self, callback: OutgoingCallback) -> None:
        await self._attempt(callback, 0, 1)

    async def _retry(self, callback: OutgoingCallback, copy: int) -> None:
        backoff = self._retries.backoff.total_seconds()
        for attempt in range(2, self._retries.attempts + 1):
            await asyncio.sleep(backoff)
            if callback.is_void():
                break
            if await self._attempt(callback, copy, attempt):
                return
            backoff *= 2
        self._event_log.record("callback_given_up", **callback.fields)

    async def _attempt(self, callback: OutgoingCallback, copy: int, attempt: int) -> bool:
        fields = {**callback.fields, "copy": copy, "attempt": attempt}
        if attempt <= callback.lost:
            self._event_log.record("callback_lost", **fields)
            return False
        self._event_log.record("callback", **fields)
        status, error = await self._post(callback)
        self._event_log.record("callback_reply", status=status, trouble=error, **fields)
        return status is not None and 200 <= status < 300

    async def _post(self, callback: OutgoingCallback) -> tuple[int | None, str | None]:
        method, url = self._dialect.target(callback.url, callback.event_id)
        try:
            reply = await exchange(
                self._client,
                method=method,
                url=url,
                headers=self._signature(callback),
                content=callback.body or None,
                auth=None,
                timeout=CALLBACK_TIMEOUT,
                max_bytes=MAX_REPLY_BYTES,
            )
        except (httpx.HTTPError, TimeoutError, InvalidInputError) as error:
            return None, type(error).__name__
        return reply.status, None

    def _signature(self, callback: OutgoingCallback) -> dict[str, str]:
        # New for every attempt: the time is part of what is signed.
        signed = (callback.body, callback.event_id, self._clock())
        if callback.forgery is None:
            return self._dialect.sign(*signed)
        return self._dialect.forge(*signed)[callback.forgery]
