"""The gateway's application, put together from what its caller hands in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp
from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog, build_redactors
from ackbridge.clock import Clock
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.inbound import build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.stats.counters import Observations
from ackbridge.stats.reporter import reporting
from ackbridge.telemetry.traces import is_tracing

from .asgi import Edge
from .calls import Calls
from .delivery import EventDelivery
from .health import health_routes
from .pipeline import CallbackPipeline
from .recent_keys import RecentKeys
from .signal_batching import SignalBatcher
from .sweeper import Sweeper
from .traces import CallbackTraces


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
    read_within: timedelta = timedelta(seconds=15),
    retry_after: timedelta = timedelta(seconds=5),
    recent_keys: int = 100_000,
) -> ASGIApp:
    """Build the gateway. Ledger and client stay the caller's, to open and to close.

    Args:
        catalog: the integrations whose callbacks are taken.
        secrets: what the verification's references stand for.
        ledger: correlations, inbox and the log of duplicates.
        client: of the engine; may be lazy.
        clock: for the replay window and for `received_at`.
        signal_timeout: of one request to the engine, before the inbox takes over.
        sweep_every: how often the inbox is looked through.
        sweep_older_than: the age from which a letter in the inbox is tried again.
        give_up_after: the age at which a letter without a call is held for people instead.
        read_within: how long a body may take to come.
        retry_after: what a 503 tells the provider.
        recent_keys: how many event keys are remembered to stop duplicates early.
    """
    calls = Calls(client, signal_timeout, CallbackTraces(client) if is_tracing() else None)
    observations = Observations()
    handover = EventDelivery(SignalBatcher(calls), ledger, observations)
    verifiers = {
        name: build_verifier(integration.callbacks.verify, secrets, clock)
        for name, integration in catalog.integrations.items()
        if integration.callbacks is not None
    }
    redactors = build_redactors(catalog, secrets)
    pipeline = CallbackPipeline(
        catalog,
        verifiers,
        redactors,
        handover,
        RecentKeys(recent_keys),
        clock,
        read_within=read_within,
        retry_after=retry_after,
    )
    sweeper = Sweeper(
        catalog,
        ledger,
        calls,
        handover,
        redactors,
        clock,
        every=sweep_every,
        older_than=sweep_older_than,
        give_up_after=give_up_after,
    )
    app = FastAPI(
        title="Ackbridge gateway",
        lifespan=_living(sweeper, partial(reporting, observations, ledger, clock)),
        openapi_url=None,  # providers call in from outside: nothing is described to them
        # Its own would begin before the signature is checked, in whatever trace a stranger names.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(health_routes(calls, ledger))
    return Edge(pipeline, app)


def _living(
    sweeper: Sweeper, reports: Callable[[], AbstractAsyncContextManager[None]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweeper.run(), name="inbox sweeper")
        try:
            async with reports():
                yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping

    return lifespan
