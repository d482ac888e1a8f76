"""Bare endpoints: they read a body and answer with it, served as the gateway is."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from ackbridge.gateway.app import build_config


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def framework() -> FastAPI:
    """The same, as most people would write it."""
    app = FastAPI(openapi_url=None)

    @app.post("/callbacks/{provider}")
    async def answer(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    return app


APPS = {"asgi": lambda: echo, "fastapi": framework}

if __name__ == "__main__":
    uvicorn.Server(
        build_config(APPS[sys.argv[1]](), port=int(sys.argv[2]), log_level="warning")
    ).run()
