"""The simulated provider over HTTP: requests, receipts, acknowledgements, and what it remembers.

It speaks what `integrations/sandbox.yaml` describes, in memory only.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ackbridge.clock import Clock, utc_now

from .behaviour import Rates
from .courier import Courier, Persistence
from .desk import Answer, Desk, OrderRequest, ShipmentRequest
from .journal import Journal

IdempotencyKey = Annotated[str, Header(min_length=1, max_length=1000)]


class QuoteRequest(BaseModel):
    """The body of `POST /v1/quotes`."""

    model_config = ConfigDict(extra="forbid")

    amount: int = Field(gt=0)
    currency: str


class AcknowledgementRequest(BaseModel):
    """The body of `POST /v1/orders/{id}/acknowledgements`."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["success", "failed"]
    call_id: str | None = None
    reason: str | None = None


def create_provider(
    api_key: str,
    webhook_secret: str,
    rates: Rates | None = None,
    *,
    clock: Clock = utc_now,
    persistence: Persistence | None = None,
) -> FastAPI:
    """The provider as an HTTP application.

    Args:
        api_key: what requests must bear.
        webhook_secret: what callbacks are signed with.
        rates: what orders do that say nothing themselves.
        clock: what the signatures' timestamps and the journal go by.
        persistence: how it insists on a callback that is not taken.
    """
    journal = Journal(clock)
    courier = Courier(webhook_secret, journal, clock, persistence or Persistence())
    desk = Desk(rates or Rates(), journal, courier, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with courier:
            yield

    app = FastAPI(title="Ackbridge sandbox", lifespan=lifespan)
    bearer = [Depends(_bearing(api_key))]
    app.include_router(_work_routes(desk, journal), dependencies=bearer)
    app.include_router(_quote_routes(journal), dependencies=bearer)
    app.include_router(_memory_routes(desk, journal))
    return app


def _work_routes(desk: Desk, journal: Journal) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    async def take(
        kind: Literal["order", "shipment"], key: str, request: OrderRequest | ShipmentRequest
    ) -> JSONResponse:
        who = {"call_id": getattr(request, "call_id", None), "idempotency_key": key}
        journal.note("request", work=kind, **who)
        answer = await desk.take(kind, key, request)
        journal.note("receipt", order=answer.document.get("id"), status=answer.status, **who)
        return _reply(answer)

    @routes.post("/orders")
    async def order(request: OrderRequest, idempotency_key: IdempotencyKey) -> JSONResponse:
        return await take("order", idempotency_key, request)

    @routes.post("/shipments")
    async def ship(request: ShipmentRequest, idempotency_key: IdempotencyKey) -> JSONResponse:
        return await take("shipment", idempotency_key, request)

    @routes.get("/{kind}s/{work_id}")
    async def look(kind: Literal["order", "shipment"], work_id: str) -> dict[str, Any]:
        work = desk.find(kind, work_id)
        if work is None:
            raise HTTPException(404, f"no such {kind}")
        return work.public()

    @routes.post("/orders/{work_id}/acknowledgements")
    async def acknowledge(
        work_id: str, request: AcknowledgementRequest, idempotency_key: IdempotencyKey
    ) -> JSONResponse:
        work = desk.find("order", work_id)
        if work is None:
            raise HTTPException(404, "no such order")
        answer = desk.acknowledge(work, request.status)
        journal.note(
            "acknowledgement",
            order=work_id,
            call_id=work.call_id,
            idempotency_key=idempotency_key,
            acknowledged=request.status,
            status=answer.status,
        )
        return _reply(answer)

    return routes


def _quote_routes(journal: Journal) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    # An answer is kept for each key, as with orders.
    given: dict[str, dict[str, Any]] = {}

    @routes.post("/quotes")
    async def quote(request: QuoteRequest, idempotency_key: IdempotencyKey) -> dict[str, Any]:
        journal.note("quote", idempotency_key=idempotency_key)
        made = {"id": f"quote_{len(given) + 1}", "total": request.amount * 2}
        return given.setdefault(idempotency_key, {**made, "currency": request.currency})

    return routes


def _memory_routes(desk: Desk, journal: Journal) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}

    @routes.get("/_events")
    async def events(order: str | None = None, call_id: str | None = None) -> list[dict[str, Any]]:
        return journal.entries(order=order, call_id=call_id)

    @routes.get("/_summary")
    async def summary() -> dict[str, Any]:
        return desk.summary()

    return routes


def _bearing(api_key: str) -> Any:
    expected = f"Bearer {api_key}".encode()

    async def check(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), expected):
            raise HTTPException(401, "the API key is missing or wrong")

    return check


def _reply(answer: Answer) -> JSONResponse:
    return JSONResponse(answer.document, answer.status)
