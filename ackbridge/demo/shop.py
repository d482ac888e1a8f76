"""`python -m ackbridge.demo.shop`: an example shop, whose page shows what happens to its calls.

Its backend speaks to the calls API alone, and hands its page a token for each of its calls.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Annotated, Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx
import uvicorn
from fastapi import Cookie, FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from ackbridge.local.ports import HOST

TIMEOUT: Final = 10.0
"""Seconds, of one request to the API."""

MAX_VISITORS: Final = 1000
MAX_BOOKINGS: Final = 50
"""Of one visitor; older ones are forgotten."""

SCENARIOS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "fine": ("create_booking", {}),
    "slow": ("create_booking", {"delay_ms": 4000}),
    "delayed": ("create_booking", {"resets": 5}),
    "failed": ("create_booking", {"fail": 1, "reason": "the room is taken"}),
    "unknown": ("create_order", {"closed_receipts": 5, "stuck": True}),
}
"""The operation, and how the simulated provider behaves; keys are those of the page."""


class BookingBody(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid")

    room: Annotated[str, Field(min_length=1, max_length=40)]
    scenario: Annotated[str, Field(pattern=f"^({'|'.join(SCENARIOS)})$")]


class Booking(BaseModel):
    """One booking, as the page gets it.

    Attributes:
        id: the key of the call.
        url: of the call's stream of events.
    """

    id: str
    call_id: str
    room: str
    scenario: str
    url: str


@dataclass
class Shop:
    """Bookings by visitor, and the API that makes them.

    Attributes:
        api: the URL at which the page reaches the API, and the client of the backend.
    """

    url: str
    api: httpx.AsyncClient
    bookings: dict[str, dict[str, Booking]] = field(default_factory=dict)

    async def book(self, visitor: str, body: BookingBody) -> Booking:
        """Start a call. A browser that repeats its request makes another booking: it is a demo."""
        operation, behaviour = SCENARIOS[body.scenario]
        key = f"shop-{uuid4().hex}"
        payload: dict[str, Any] = {"room": body.room, "nights": 1}
        if operation == "create_order":
            payload = {"amount": 12000, "currency": "EUR"}
        call = {
            "provider": "sandbox",
            "operation": operation,
            "payload": payload | {"behaviour": dict(behaviour)},
        }
        await self._post("/calls", json=call, headers={"Idempotency-Key": key})
        call_id = f"sandbox.{operation}.{key}"
        url = f"{self.url}/calls/{quote(call_id, safe='')}/events"
        booking = Booking(id=key, call_id=call_id, room=body.room, scenario=body.scenario, url=url)
        self._remember(visitor, booking)
        return booking

    async def event_token(self, booking: Booking) -> str:
        """A token with which the page follows this booking, and nothing else."""
        reply = await self._post(f"/calls/{quote(booking.call_id, safe='')}/event-tokens", json={})
        return str(reply["token"])

    async def reprocess(self, booking: Booking) -> None:
        """What an operator does with a parked call."""
        await self._post(f"/calls/{quote(booking.call_id, safe='')}/reprocess")

    def booking(self, visitor: str | None, key: str) -> Booking:
        """A booking of this visitor; answers 404."""
        found = self.bookings.get(visitor or "", {}).get(key)
        if found is None:
            raise HTTPException(404, "no such booking of yours")
        return found

    def _remember(self, visitor: str, booking: Booking) -> None:
        known = self.bookings.pop(visitor, {})
        known[booking.id] = booking
        self.bookings[visitor] = dict(list(known.items())[-MAX_BOOKINGS:])
        while len(self.bookings) > MAX_VISITORS:
            del self.bookings[next(iter(self.bookings))]

    async def _post(self, path: str, **options: Any) -> dict[str, Any]:
        try:
            reply = await self.api.post(path, **options)
        except httpx.HTTPError:
            raise HTTPException(503, "the calls API does not answer") from None
        if reply.is_error:
            raise HTTPException(502, f"the calls API answered {reply.status_code}: {reply.text}")
        document: dict[str, Any] = reply.json()
        return document


Visitor = Annotated[str | None, Cookie(alias="shop_visitor")]


def build_shop(api_url: str, api_key: str) -> FastAPI:
    """The shop's application."""
    headers = {"Authorization": f"Bearer {api_key}"}
    api = httpx.AsyncClient(base_url=api_url, headers=headers, timeout=TIMEOUT, trust_env=False)
    shop = Shop(api_url, api)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with api:
            yield

    app = FastAPI(title="Ackbridge shop", lifespan=lifespan, openapi_url=None)

    @app.get("/")
    async def page(visitor: Visitor = None) -> Response:
        html = files(__package__).joinpath("shop.html").read_bytes()
        reply = Response(html, media_type="text/html")
        if visitor is None:
            reply.set_cookie("shop_visitor", uuid4().hex, httponly=True, samesite="strict")
        return reply

    @app.get("/ackbridge-events.js")
    async def module() -> Response:
        code = files("ackbridge.web").joinpath("ackbridge-events.js").read_bytes()
        return Response(code, media_type="text/javascript")

    @app.get("/bookings")
    async def bookings(visitor: Visitor = None) -> list[Booking]:
        return list(shop.bookings.get(visitor or "", {}).values())

    @app.post("/bookings", status_code=201)
    async def book(body: BookingBody, visitor: Visitor = None) -> Booking:
        if visitor is None:
            raise HTTPException(400, "open the page first")
        return await shop.book(visitor, body)

    @app.post("/bookings/{key}/event-token")
    async def event_token(key: str, visitor: Visitor = None) -> dict[str, str]:
        return {"token": await shop.event_token(shop.booking(visitor, key))}

    @app.post("/bookings/{key}/reprocess", status_code=202)
    async def reprocess(key: str, visitor: Visitor = None) -> dict[str, str]:
        await shop.reprocess(shop.booking(visitor, key))
        return {}

    return app


def main() -> int:
    """Serve until SIGTERM. Exit 2 when a variable is not set."""
    parser = argparse.ArgumentParser(prog="python -m ackbridge.demo.shop", description=__doc__)
    parser.add_argument("--host", default=HOST, help="the address to listen on")
    parser.add_argument("--port", type=int, default=8081)
    options = parser.parse_args()
    url, key = os.environ.get("SHOP_API_URL"), os.environ.get("SHOP_API_KEY")
    if not url or not key:
        print("the shop needs SHOP_API_URL and SHOP_API_KEY in its environment", file=sys.stderr)
        return 2
    uvicorn.run(
        build_shop(url.rstrip("/"), key),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
