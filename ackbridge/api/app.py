"""The application of the calls API, and its description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ackbridge.gateway.app import health_routes
from ackbridge.gateway.asgi import UndecodedPaths
from ackbridge.gateway.signal_batching import EngineClient
from ackbridge.ledger.ledger import Ledger

from . import batches, calls, events, operators, providers
from .access import ApiParts
from .event_streams import EventStreamCors
from .problems import (
    DEFECT,
    FORBIDDEN,
    INVALID,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNREADABLE,
    InvalidField,
    ProblemDetails,
    documented,
    handle_problems,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    calls.router,
    events.router,
    providers.router,
    batches.router,
    operators.router,
)

_REFERENCE: Final = "#/components/schemas/{model}"


def build_api(parts: ApiParts | None = None) -> FastAPI:
    """Build the application; the caller opens and closes its parts.

    Args:
        parts: None: only to describe it.
    """
    app = FastAPI(
        title="Ackbridge calls API",
        # Its description is docs/reference/openapi.json; a running API gives away nothing.
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan(parts),
        responses=documented(
            UNREADABLE, UNAUTHENTICATED, FORBIDDEN, TOO_LARGE, INVALID, DEFECT, UNAVAILABLE
        ),
    )
    app.state.parts = parts
    for router in ROUTERS:
        app.include_router(router)
    handle_problems(app)
    app.add_middleware(UndecodedPaths)
    if parts is not None and parts.streams is not None:
        app.add_middleware(EventStreamCors, origins=parts.streams.origins)
    return app


def _lifespan(
    parts: ApiParts | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Pass on events as long as the application runs."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if parts is None or parts.streams is None:
            yield
            return
        running = asyncio.create_task(parts.streams.hub.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    return lifespan


def build_standalone(api: FastAPI, engine: EngineClient, ledger: Ledger) -> FastAPI:
    """The application of a process that serves nothing but the API, and its health."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with api.router.lifespan_context(api):
            yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(health_routes(engine, ledger))
    app.mount("/", api)
    app.add_middleware(UndecodedPaths)
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    document = get_openapi(
        title="Ackbridge calls API",
        version=version("ackbridge"),
        summary="Third-party API calls that always end in a known state.",
        routes=build_api().routes,
    )
    schemas = document["components"]["schemas"]
    _, own = models_json_schema(
        [(ProblemDetails, "serialization"), (InvalidField, "serialization")],
        ref_template=_REFERENCE,
    )
    schemas.update(own["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of `ackbridge api-key`, or a JSON Web Token.",
        }
    }
    document["security"] = [{"bearer": []}]
    return document
