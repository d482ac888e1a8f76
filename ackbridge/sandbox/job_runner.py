"""Where the simulated provider's work is done, and told: late, twice, wrongly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ackbridge.clock import Clock

from .callback_sender import CallbackSender, OutgoingCallback
from .event_log import EventLog, whose
from .job import Job
from .provider_dialect import News, ProviderDialect

NOT_JSON = b'{"unfinished": '
"""What a malformed callback says."""

NOTHING = b"{}"
"""What another one says: JSON without anything that matters."""


class JobRunner:
    """Does works in their time, and hands what there is to tell to the courier."""

    def __init__(
        self,
        speech: ProviderDialect,
        journal: EventLog,
        courier: CallbackSender,
        clock: Clock,
        delay_ms: int,
    ) -> None:
        """Open.

        Args:
            delay_ms: how long work takes that says nothing else.
        """
        self._speech = speech
        self._journal = journal
        self._courier = courier
        self._clock = clock
        self._delay_ms = delay_ms
        self._waiting: dict[str, asyncio.Event] = {}

    async def begin(self, work: Job) -> None:
        """Take a work up; returns when its request can be answered."""
        behaviour = work.behaviour
        if behaviour.stuck or (behaviour.late and work.mode != "sync"):
            return
        if work.mode == "sync":
            await self._wait(work)
            await self._finish(work)
        elif behaviour.early and work.mode == "callback":
            self._journal.counts["early"] += 1
            await self._finish(work)
        else:
            self._courier.later(self._do(work))

    def given_up(self, work: Job) -> None:
        """A failed acknowledgement has come: that is what those wait for who are late."""
        if work.behaviour.late and not work.behaviour.stuck and not work.is_begun:
            work.is_begun = True
            self._courier.later(self._do_late(work))

    def hurry(self, work: Job) -> None:
        """End what a work waits for now: its delay, or the time it takes after an extension."""
        if work.id in self._waiting:
            self._waiting[work.id].set()

    async def _do(self, work: Job) -> None:
        await self._wait(work)
        behaviour = work.behaviour
        if behaviour.extend_ms:
            for number in range(1, behaviour.extensions + 1):
                await self._extend(work, number)
        await self._finish(work)

    async def _do_late(self, work: Job) -> None:
        await asyncio.sleep(work.behaviour.late_ms / 1000)
        await self._finish(work)

    async def _wait(self, work: Job) -> None:
        delay_ms = work.behaviour.delay_ms
        await self._pause(work, self._delay_ms if delay_ms is None else delay_ms)

    async def _extend(self, work: Job, number: int) -> None:
        behaviour = work.behaviour
        work.until = self._clock() + timedelta(milliseconds=behaviour.extend_ms)
        await self._tell(work, "extended", f"extended_{number}")
        wait_ms = behaviour.extend_wait_ms
        await self._pause(work, behaviour.extend_ms / 2 if wait_ms is None else wait_ms)

    async def _pause(self, work: Job, milliseconds: float) -> None:
        """Let time pass, or until somebody hurries."""
        hurried = self._waiting[work.id] = asyncio.Event()
        try:
            async with asyncio.timeout(milliseconds / 1000):
                await hurried.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[work.id]

    async def _finish(self, work: Job) -> None:
        work.status = "failed" if work.fails else "completed"
        work.until = None
        self._journal.note("done", result=work.status, **about(work))
        await self._mislead(work)
        for news in _told(work):
            await self._tell(work, news, news)

    async def _mislead(self, work: Job) -> None:
        """Send what nobody may believe, before what is true."""
        for letter in self._false_letters(work):
            await self._courier.drop_in(letter)

    def _false_letters(self, work: Job) -> Iterator[OutgoingCallback]:
        behaviour = work.behaviour
        if behaviour.forged:
            news: News = "completed" if work.fails else "failed"
            for forgery in self._speech.forge(b"", "", self._clock()):
                event_id = _event_id(work, f"forged_{forgery}")
                body = self._speech.event(work, news, event_id)
                yield from self._letters(work, event_id, body, f"forged_{forgery}", forgery)
        if behaviour.malformed:
            for kind, body in (("not_json", NOT_JSON), ("nothing", NOTHING)):
                yield from self._letters(work, _event_id(work, kind), body, f"malformed_{kind}")

    async def _tell(self, work: Job, news: News, name: str) -> None:
        event_id = _event_id(work, name)
        behaviour = work.behaviour
        body = self._speech.event(work, news, event_id)
        for letter in self._letters(work, event_id, body, news, lost=behaviour.lost_callbacks):
            self._journal.counts["duplicates"] += behaviour.duplicates
            await self._courier.deliver(letter, 1 + behaviour.duplicates)

    def _letters(
        self,
        work: Job,
        event_id: str,
        body: bytes,
        news: str,
        forgery: str | None = None,
        lost: int = 0,
    ) -> Iterator[OutgoingCallback]:
        """The letter, if there is anybody to write to."""
        if work.mode == "callback" and work.callback_url is not None and not work.behaviour.silent:
            told: dict[str, Any] = {"event_id": event_id, "news": news, **about(work)}
            yield OutgoingCallback(work.callback_url, event_id, body, told, lost, forgery)


def about(work: Job) -> dict[str, Any]:
    """What the journal says of a work."""
    return {"work": work.id, "operation": work.operation, **whose(work.key, work.call_id)}


def _told(work: Job) -> tuple[News, ...]:
    """What is told in the end: the truth, or both, whichever is true."""
    match work.behaviour.contradictory:
        case "completed":
            return ("completed", "failed")
        case "failed":
            return ("failed", "completed")
        case _:
            return ("failed",) if work.fails else ("completed",)


def _event_id(work: Job, name: str) -> str:
    return f"evt_{work.id}_{name}"
