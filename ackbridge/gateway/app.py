"""The gateway's application: its parts put together, its health routes, and its server."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, Final

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp
from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog, build_redactors
from ackbridge.clock import Clock
from ackbridge.contracts.edge import EdgeLimits, Network
from ackbridge.errors import ConfigurationError, UnavailableError
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.callback_urls import callback_urls
from ackbridge.security.inbound import build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.stats.counters import Counters
from ackbridge.stats.reporter import report_stats
from ackbridge.telemetry.traces import is_tracing

from .asgi import CallbackEndpoint, UndecodedPaths
from .catch_up import CatchUpMonitor
from .connections import ConnectionLimiter
from .delivery import EventDelivery
from .forwarding import EventForwarder
from .http_protocol import BoundedProtocol
from .pipeline import CallbackPipeline, CallbackSource
from .rejections import NO_PROVIDER, Rejections
from .signal_batching import EngineClient, SignalBatcher
from .sweeper import Sweeper
from .traces import CallbackTraces

log = logging.getLogger(__name__)


def create_app(
    catalog: Catalog,
    secrets: Secrets,
    ledger: Ledger,
    client: Client,
    clock: Clock,
    *,
    signal_timeout: timedelta = timedelta(seconds=2),
    sweep_every: timedelta = timedelta(seconds=5),
    sweep_older_than: timedelta = timedelta(seconds=5),
    give_up_after: timedelta = timedelta(days=1),
    retry_after: timedelta = timedelta(seconds=5),
    recent_keys: int = 100_000,
    cover_every: timedelta = timedelta(seconds=30),
    away_for: timedelta = timedelta(minutes=2),
    counters: Counters | None = None,
    rejections: Rejections | None = None,
    codec: ASGIApp | None = None,
    api: FastAPI | None = None,
) -> ASGIApp:
    """Build the gateway. The caller opens and closes ledger and client.

    Args:
        client: may be lazy.
        clock: for signature timestamps and `received_at`.
        signal_timeout: of one request to the engine, before the inbox takes over.
        sweep_older_than: the age from which an event in the inbox is due.
        give_up_after: the age at which an event without a call is held for an operator.
        retry_after: sent with a 503.
        recent_keys: the number of event keys in memory that stop duplicates early.
        cover_every: how often it is stored that events were covered by a gateway.
        away_for: without a gateway for so long, the events that providers list are read.
        counters: where callbacks are counted; left out, nobody else reads them.
        rejections: shared with the server; see `build_config`.
        codec: the codec endpoint; None: not served.
        api: the calls API; None: not served.
    """
    engine = EngineClient(client, signal_timeout, CallbackTraces(client) if is_tracing() else None)
    counters = counters or Counters()
    forwarder = EventForwarder(engine, ledger, catalog)
    delivery = EventDelivery(SignalBatcher(engine), forwarder, ledger, counters, recent_keys)
    redactors = build_redactors(catalog, secrets)
    sources = {
        name: CallbackSource.build(
            integration,
            integration.callbacks,
            build_verifier(integration.callbacks.verify, secrets, clock),
            callback_urls(integration.callbacks.verify, name, secrets),
            redactors[name],
        )
        for name, integration in catalog.integrations.items()
        if integration.callbacks is not None
    }
    pipeline = CallbackPipeline(
        sources, delivery, clock, secrets, rejections or Rejections(counters), retry_after
    )
    sweeper = Sweeper(
        catalog,
        ledger,
        engine,
        delivery,
        forwarder,
        redactors,
        clock,
        every=sweep_every,
        older_than=sweep_older_than,
        give_up_after=give_up_after,
    )
    monitor = CatchUpMonitor(catalog, ledger, engine, clock, cover_every, away_for)
    app = FastAPI(
        title="Ackbridge gateway",
        lifespan=_lifespan(
            (sweeper.run, monitor.run),
            partial(report_stats, counters, ledger.stats, clock),
            partial(api.router.lifespan_context, api) if api else nullcontext,
        ),
        openapi_url=None,  # the gateway is public: it publishes no description of itself
        # FastAPI's spans would start before the signature is verified, in a trace of the sender's.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(health_routes(engine, ledger))
    if codec is not None:
        app.mount("/codec", codec)
    if api is not None:
        # Last: it answers whatever no other route does.
        app.mount("/", api)
        app.add_middleware(UndecodedPaths)
    return CallbackEndpoint(pipeline, app)


def build_config(
    app: Any,
    *,
    limits: EdgeLimits | None = None,
    trusted_proxies: Sequence[Network] = (),
    rejections: Rejections | None = None,
    **options: Any,
) -> uvicorn.Config:
    """The gateway's server: compiled parser and loop, bounded connections, no access log.

    Args:
        trusted_proxies: whose `X-Forwarded-For` says who the client is.
        rejections: where clients that are turned away are counted.
        options: uvicorn's.
    """
    connections = ConnectionLimiter(
        limits or EdgeLimits(),
        tuple(trusted_proxies),
        partial(rejections.note, NO_PROVIDER) if rejections else _ignore,
    )
    return uvicorn.Config(
        app,
        # uvicorn calls it with keyword arguments only.
        http=partial(BoundedProtocol, connections=connections),  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=[str(network) for network in trusted_proxies],
        # What is accepted at once must not take the last files either.
        backlog=min(_BACKLOG, connections.most),
        **options,
    )


async def serve_until_stopped(
    config: uvicorn.Config,
    before_shutdown: Callable[[], None] | None = None,
    when_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM, and until the responses that have begun are sent.

    Args:
        before_shutdown: ends responses that would not end by themselves.
        when_ready: called once connections are accepted.

    Raises:
        ConfigurationError: it cannot listen there.
    """
    await _Server(config, before_shutdown, when_ready).serve()


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        before_shutdown: Callable[[], None] | None,
        when_ready: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            # The exit status would mean something else.
            address = f"{self.config.host}:{self.config.port}"
            raise ConfigurationError(f"cannot serve at {address}; the log says why") from None
        if self._when_ready is not None:
            self._when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._before_shutdown is not None:
            self._before_shutdown()
        await super().shutdown(sockets)


_BACKLOG: Final = 2048
"""Connections that the kernel keeps until they are accepted."""


def _ignore(_source: str, _status: str, _reason: str) -> None:
    pass


def _lifespan(
    loops: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    reports: Callable[[], AbstractAsyncContextManager[None]],
    api: Callable[[], AbstractAsyncContextManager[Any]],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(loop()) for loop in loops]
        try:
            async with reports(), api():
                yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    return lifespan


def health_routes(engine: EngineClient, ledger: Ledger) -> APIRouter:
    """`/healthz`: the process runs. `/readyz`: the engine and the ledger answer, too."""
    routes = APIRouter()
    logged: dict[str, str] = {}

    @routes.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> JSONResponse:
        names = ("engine", "ledger")
        checks = await asyncio.gather(engine.ping(), ledger.ping(), return_exceptions=True)
        reasons = {
            name: _reason(result)
            for name, result in zip(names, checks, strict=True)
            if isinstance(result, BaseException)
        }
        if reasons != logged:
            log.log(logging.WARNING if reasons else logging.INFO, "not ready: %s", reasons or "-")
            logged.clear()
            logged.update(reasons)
        # The page is public: reasons may name hosts and paths, and are in the log.
        not_ready = dict.fromkeys(reasons, "does not answer")
        body = {"ready": not not_ready, "not_ready": not_ready}
        return JSONResponse(body, status_code=503 if not_ready else 200)

    return routes


def _reason(error: BaseException) -> str:
    # Texts of other errors may contain addresses and passwords.
    return str(error) if isinstance(error, UnavailableError) else type(error).__name__
