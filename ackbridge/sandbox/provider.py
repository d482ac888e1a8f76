"""The simulated provider over HTTP: one door for every request, and a memory for tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from ackbridge.clock import Clock, utc_now

from .callback_sender import CallbackSender, Persistence
from .event_log import LONGEST, EventLog, whose
from .fault_rates import Rates
from .http_io import HttpReply, read, send_reply
from .inspection_routes import memory_routes
from .job_runner import JobRunner, about
from .outage_mode import OutageMode, mood_routes
from .provider_dialect import (
    Acknowledgement,
    Aside,
    Incoming,
    ProviderDialect,
    StatusRequest,
    Whose,
    WorkRequest,
)
from .request_handler import BehaviourFor, RequestHandler
from .sandbox_api import SandboxApi

_HEADERS_OF_INTEREST = ("content-type", "user-agent", "traceparent")
"""What the journal keeps of a request's headers. Credentials may be in any other one."""


def create_provider(
    api_key: str,
    webhook_secret: str,
    rates: Rates | None = None,
    *,
    clock: Clock = utc_now,
    persistence: Persistence | None = None,
    longest: int = LONGEST,
) -> FastAPI:
    """The provider of `integrations/sandbox.yaml` as an HTTP application.

    Args:
        api_key: what requests must bear.
        webhook_secret: what callbacks are signed with.
        rates, clock, persistence, longest: as `simulate` has them.
    """
    shop = SandboxApi(api_key, webhook_secret)
    return simulate(shop, rates, clock=clock, persistence=persistence, longest=longest)


def simulate(
    speech: ProviderDialect,
    rates: Rates | None = None,
    *,
    behaviour_for: BehaviourFor = lambda _request: None,
    clock: Clock = utc_now,
    persistence: Persistence | None = None,
    longest: int = LONGEST,
) -> FastAPI:
    """A provider that speaks in any way, as an HTTP application.

    It lives in memory. Serve it with `ackbridge.sandbox.serving.build_config`.

    Args:
        rates: what requests meet of which neither they nor `behaviour_for` say anything.
        behaviour_for: asked once for each idempotency key, when its first request comes.
        clock: what the signatures' timestamps, the journal and `Retry-After` go by. Delays are
            real ones.
        persistence: how it insists on a callback that is not taken.
        longest: entries that the journal keeps.
    """
    rates = rates or Rates()
    journal = EventLog(clock, longest)
    courier = CallbackSender(speech, journal, clock, persistence or Persistence())
    workshop = JobRunner(speech, journal, courier, clock, rates.delay_ms)
    mood = OutageMode(behaviour_for)
    desk = RequestHandler(speech, workshop, rates, mood.behaviour_for, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with courier:
            yield

    # No pages of its own: every path but those of its memory belongs to the speech.
    app = FastAPI(title="Ackbridge sandbox", lifespan=lifespan, openapi_url=None)
    app.include_router(memory_routes(desk, journal))
    app.include_router(mood_routes(mood))
    app.mount("/", _Door(speech, desk, journal, mood))
    return app


class _Door:
    """An ASGI application: what comes in is understood, written down, and answered."""

    def __init__(
        self, speech: ProviderDialect, desk: RequestHandler, journal: EventLog, mood: OutageMode
    ) -> None:
        self._mood = mood
        self._speech = speech
        self._desk = desk
        self._journal = journal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        incoming = await read(scope, receive)
        match self._speech.hear(incoming):
            case WorkRequest() as request:
                reply = await self._work(request, incoming)
            case StatusRequest() as request:
                reply = self._status(request)
            case Acknowledgement() as told:
                reply = self._acknowledgement(told)
            case Aside(kind, answer):
                reply = HttpReply(answer)
                if kind == "health" and self._mood.is_broken:
                    reply = self._broken()
                self._journal.note(kind, path=incoming.path, status=reply.status)
        await send_reply(reply, scope, receive, send)

    async def _work(self, request: WorkRequest, incoming: Incoming) -> HttpReply:
        who = {"operation": request.operation, **whose(request.key, request.call_id)}
        headers = {
            name: incoming.headers[name]
            for name in _HEADERS_OF_INTEREST
            if name in incoming.headers
        }
        self._journal.note("request", path=incoming.path, headers=headers, **who)
        await self._mood.linger()
        if self._mood.is_broken:
            reply = self._broken()
            self._note_reply("receipt", reply, **who)
            return reply
        reply = await self._desk.take(request, _fingerprint(incoming))
        work = self._desk.find(Whose(key=request.key))
        self._note_reply("receipt", reply, work=work and work.id, **who)
        return reply

    def _broken(self) -> HttpReply:
        return HttpReply(self._speech.trouble(503, "out of order"), "error")

    def _status(self, request: StatusRequest) -> HttpReply:
        reply = self._desk.look(request)
        work = self._desk.find(request.whose)
        who = {"operation": request.operation, "call_id": request.whose.call_id}
        stands = work and work.status
        self._note_reply("status", reply, stands=stands, **(about(work) if work else who))
        return reply

    def _acknowledgement(self, told: Acknowledgement) -> HttpReply:
        reply, counts = self._desk.hear(told)
        work = self._desk.find(told.whose)
        who = {"operation": told.operation, "call_id": told.whose.call_id}
        who |= about(work) if work else {}
        who |= {"idempotency_key": told.key}
        self._note_reply(
            "acknowledgement",
            reply,
            acknowledged=told.verdict,
            counts=counts,
            body=told.body,
            **who,
        )
        return reply

    def _note_reply(self, kind: str, reply: HttpReply, **what: Any) -> None:
        seen = reply.fault or reply.status
        self._journal.counts[f"answered:{seen}"] += 1
        self._journal.note(kind, status=reply.status, fault=reply.fault, **what)


def _fingerprint(incoming: Incoming) -> str:
    said = f"{incoming.method} {incoming.path}?{incoming.query}\n".encode() + incoming.body
    return hashlib.sha256(said).hexdigest()
