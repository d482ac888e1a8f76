"""The simulated provider as an HTTP application."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from ackbridge.clock import Clock, utc_now

from .callback_sender import CallbackRetries, CallbackSender
from .event_log import MAX_EVENTS, EventLog, key_fields
from .fault_rates import Rates
from .inspection_routes import INSPECTION_PREFIX, inspection_routes
from .job_runner import JobRunner, job_fields
from .outage_mode import OutageMode
from .provider_dialect import (
    AcknowledgementRequest,
    DirectReply,
    IncomingRequest,
    JobRequest,
    JobSelector,
    ProviderDialect,
    StatusRequest,
)
from .request_handler import BehaviourFor, RequestHandler
from .sandbox_api import SandboxApi
from .serving import HttpReply, read_request, send_reply

_LOGGED_HEADERS = ("content-type", "user-agent", "traceparent")
"""Any other header may have credentials."""


def create_provider(
    api_key: str,
    webhook_secret: str,
    rates: Rates | None = None,
    *,
    clock: Clock = utc_now,
    retries: CallbackRetries | None = None,
    max_events: int = MAX_EVENTS,
) -> ASGIApp:
    """The provider of `integrations/sandbox.yaml`; other arguments are as in `simulate`.

    Requests need `api_key` as their bearer token; `webhook_secret` signs callbacks.
    """
    dialect = SandboxApi(api_key, webhook_secret)
    return simulate(dialect, rates, clock=clock, retries=retries, max_events=max_events)


def simulate(
    dialect: ProviderDialect,
    rates: Rates | None = None,
    *,
    behaviour_for: BehaviourFor = lambda _request: None,
    clock: Clock = utc_now,
    retries: CallbackRetries | None = None,
    max_events: int = MAX_EVENTS,
) -> ASGIApp:
    """A provider with any API as an HTTP application.

    Its state is in memory. Serve it with `ackbridge.sandbox.serving.build_config`.

    Args:
        rates: the faults of requests for which neither they nor `behaviour_for` give a behaviour.
        behaviour_for: called once for each idempotency key, with its first request.
        clock: of signatures, events and `Retry-After`. Delays are real.
    """
    rates = rates or Rates()
    event_log = EventLog(clock, max_events)
    sender = CallbackSender(dialect, event_log, clock, retries or CallbackRetries())
    runner = JobRunner(dialect, event_log, sender, clock, rates.delay_ms)
    outage = OutageMode(behaviour_for)
    handler = RequestHandler(dialect, runner, rates, outage.behaviour_for, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with sender:
            yield

    # No OpenAPI pages: every path that is no inspection route belongs to the dialect.
    app = FastAPI(title="Ackbridge sandbox", lifespan=lifespan, openapi_url=None)
    app.include_router(inspection_routes(handler, event_log, outage))
    provider = _ProviderApp(dialect, handler, event_log, outage)
    app.mount("/", provider)
    return _past_the_framework(app, provider)


def _past_the_framework(app: ASGIApp, provider: ASGIApp) -> ASGIApp:
    """Pass on requests of the provider's API by themselves: the framework costs more than they."""

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_api = scope["type"] == "http" and not scope["path"].startswith(INSPECTION_PREFIX)
        await (provider if is_api else app)(scope, receive, send)

    return dispatch


@dataclass
class _ProviderApp:
    dialect: ProviderDialect
    handler: RequestHandler
    event_log: EventLog
    outage: OutageMode

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        incoming = await read_request(scope, receive)
        match self.dialect.parse(incoming):
            case JobRequest() as request:
                reply = await self._job(request, incoming)
            case StatusRequest() as request:
                reply = self._status(request)
            case AcknowledgementRequest() as request:
                reply = self._acknowledgement(request)
            case DirectReply(kind, direct):
                is_down = kind == "health" and self.outage.is_broken
                reply = self._unavailable() if is_down else HttpReply(direct)
                self.event_log.record(kind, path=incoming.path, status=reply.status)
        await send_reply(reply, scope, receive, send)

    async def _job(self, request: JobRequest, incoming: IncomingRequest) -> HttpReply:
        fields = {"operation": request.operation, **key_fields(request.key, request.call_id)}
        headers = {
            name: incoming.headers[name] for name in _LOGGED_HEADERS if name in incoming.headers
        }
        self.event_log.record("request", path=incoming.path, headers=headers, **fields)
        await self.outage.delay()
        if self.outage.is_broken:
            reply = self._unavailable()
        else:
            reply = await self.handler.handle_job(request, _fingerprint(incoming))
            job = self.handler.find(JobSelector(key=request.key))
            fields["work"] = job and job.id
        self._record_reply("receipt", reply, **fields)
        return reply

    def _unavailable(self) -> HttpReply:
        return HttpReply(self.dialect.error_reply(503, "service unavailable"), "error")

    def _status(self, request: StatusRequest) -> HttpReply:
        reply = self.handler.handle_status(request)
        job = self.handler.find(request.selector)
        fields = {"operation": request.operation, "call_id": request.selector.call_id}
        fields |= job_fields(job) if job else {}
        self._record_reply("status", reply, stands=job and job.status, **fields)
        return reply

    def _acknowledgement(self, request: AcknowledgementRequest) -> HttpReply:
        reply, is_new = self.handler.handle_acknowledgement(request)
        job = self.handler.find(request.selector)
        fields = {"operation": request.operation, "call_id": request.selector.call_id}
        fields |= job_fields(job) if job else {}
        fields |= {"idempotency_key": request.key, "body": request.body}
        self._record_reply(
            "acknowledgement", reply, acknowledged=request.verdict, counts=is_new, **fields
        )
        return reply

    def _record_reply(self, kind: str, reply: HttpReply, **fields: Any) -> None:
        self.event_log.counts[f"answered:{reply.fault or reply.status}"] += 1
        self.event_log.record(kind, status=reply.status, fault=reply.fault, **fields)


def _fingerprint(incoming: IncomingRequest) -> str:
    line = f"{incoming.method} {incoming.path}?{incoming.query}\n"
    return hashlib.sha256(line.encode() + incoming.body).hexdigest()
