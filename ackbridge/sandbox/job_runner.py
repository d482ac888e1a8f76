"""Does jobs and sends their callbacks: late, twice, wrong, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ackbridge.clock import Clock

from .callback_sender import CallbackSender, OutgoingCallback
from .event_log import EventLog, key_fields
from .provider_dialect import CallbackKind, Job, ProviderDialect

_MALFORMED = {"not_json": b'{"unfinished": ', "nothing": b"{}"}
"""Bodies of malformed callbacks."""


@dataclass
class JobRunner:
    dialect: ProviderDialect
    event_log: EventLog
    sender: CallbackSender
    clock: Clock
    delay_ms: int  # of jobs whose behaviour has none
    _delays: dict[str, asyncio.Event] = field(default_factory=dict)

    async def start(self, job: Job) -> None:
        """Start a job; returns when its request can be answered."""
        behaviour = job.behaviour
        if behaviour.stuck or (behaviour.late and job.mode != "sync"):
            return
        if job.mode == "sync":
            await self._delay(job)
            await self._finish(job)
        elif behaviour.early and job.mode == "callback":
            self.event_log.counts["early"] += 1
            await self._finish(job)
        else:
            self.sender.run_in_background(self._run(job))

    def start_late(self, job: Job) -> None:
        """Start a `late` job: a failed acknowledgement has arrived."""
        if job.behaviour.late and not job.behaviour.stuck and not job.is_late_started:
            job.is_late_started = True
            self.sender.run_in_background(self._run_late(job))

    def skip_delay(self, job: Job) -> None:
        """End the current delay of a job, also the one after an extension."""
        if job.id in self._delays:
            self._delays[job.id].set()

    async def _run(self, job: Job) -> None:
        await self._delay(job)
        if job.behaviour.extend_ms:
            for number in range(1, job.behaviour.extensions + 1):
                await self._extend(job, number)
        await self._finish(job)

    async def _run_late(self, job: Job) -> None:
        await self._wait(job, job.behaviour.late_ms)
        await self._finish(job)

    async def _delay(self, job: Job) -> None:
        delay_ms = job.behaviour.delay_ms
        await self._wait(job, self.delay_ms if delay_ms is None else delay_ms)

    async def _extend(self, job: Job, number: int) -> None:
        behaviour = job.behaviour
        if job.is_void:
            return
        job.extended_until = self.clock() + timedelta(milliseconds=behaviour.extend_ms)
        await self._send(job, "extended", f"extended_{number}")
        wait_ms = behaviour.extend_wait_ms
        await self._wait(job, behaviour.extend_ms / 2 if wait_ms is None else wait_ms)

    async def _wait(self, job: Job, milliseconds: float) -> None:
        skipped = self._delays[job.id] = asyncio.Event()
        try:
            async with asyncio.timeout(milliseconds / 1000):
                await skipped.wait()
        except TimeoutError:
            pass
        finally:
            del self._delays[job.id]

    async def _finish(self, job: Job) -> None:
        if job.is_void:
            return
        job.status = "failed" if job.fails else "completed"
        job.extended_until = None
        self.event_log.record("done", result=job.status, **job_fields(job))
        for callback in self._false_callbacks(job):
            await self.sender.send_once(callback)
        for kind in _results(job):
            await self._send(job, kind, kind)

    def _false_callbacks(self, job: Job) -> Iterator[OutgoingCallback]:
        """Callbacks that a receiver must reject; sent before the true one."""
        behaviour = job.behaviour
        if not _calls_back(job):
            return
        if behaviour.forged:
            kind: CallbackKind = "completed" if job.fails else "failed"
            for forgery in self.dialect.forge(b"", "", self.clock()):
                name = f"forged_{forgery}"
                body = self.dialect.callback_body(job, kind, _event_id(job, name))
                yield from _callbacks(job, name, body, name, forgery=forgery)
        if behaviour.malformed:
            for name, body in _MALFORMED.items():
                yield from _callbacks(job, name, body, f"malformed_{name}")

    async def _send(self, job: Job, kind: CallbackKind, name: str) -> None:
        behaviour = job.behaviour
        if not _calls_back(job):
            return
        body = self.dialect.callback_body(job, kind, _event_id(job, name))
        for callback in _callbacks(job, name, body, kind, lost=behaviour.lost_callbacks):
            self.event_log.counts["duplicates"] += behaviour.duplicates
            await self.sender.send(callback, 1 + behaviour.duplicates)


def job_fields(job: Job) -> dict[str, Any]:
    return {"work": job.id, "operation": job.operation, **key_fields(job.key, job.call_id)}


def _callbacks(
    job: Job, name: str, body: bytes, news: str, *, lost: int = 0, forgery: str | None = None
) -> Iterator[OutgoingCallback]:
    """One callback, or none for a job without a callback URL; `news` is its name in the log."""
    if job.callback_url is not None:
        event_id = _event_id(job, name)
        fields: dict[str, Any] = {"event_id": event_id, "news": news, **job_fields(job)}
        yield OutgoingCallback(
            job.callback_url, event_id, body, fields, lost, forgery, is_void=lambda: job.is_void
        )


def _calls_back(job: Job) -> bool:
    return job.mode == "callback" and job.callback_url is not None and not job.behaviour.silent


def _results(job: Job) -> tuple[CallbackKind, ...]:
    """The final callbacks: the true one, or both."""
    match job.behaviour.contradictory:
        case "completed":
            return ("completed", "failed")
        case "failed":
            return ("failed", "completed")
        case _:
            return ("failed",) if job.fails else ("completed",)


def _event_id(job: Job, name: str) -> str:
    return f"evt_{job.id}_{name}"
