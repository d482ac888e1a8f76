"""Whether this process lives, and whether it can do its work."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ackbridge.errors import UnavailableError
from ackbridge.ledger.ledger import Ledger

from .calls import Calls


def health_routes(calls: Calls, ledger: Ledger) -> APIRouter:
    """`GET /healthz` and `GET /readyz`."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process is alive."""
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ledger and engine answer; if not, 503 and which of them, and why."""
        names = ("engine", "ledger")
        checks = await asyncio.gather(calls.ping(), ledger.ping(), return_exceptions=True)
        not_ready = {
            name: _why(result)
            for name, result in zip(names, checks, strict=True)
            if isinstance(result, BaseException)
        }
        body = {"ready": not not_ready, "not_ready": not_ready}
        return JSONResponse(body, status_code=503 if not_ready else 200)

    return routes


def _why(error: BaseException) -> str:
    # Only our own texts are known to be free of addresses and passwords.
    return str(error) if isinstance(error, UnavailableError) else type(error).__name__
