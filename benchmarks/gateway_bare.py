"""The bare endpoint: reads a body and answers with it, served as the gateway is."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from ackbridge.gateway import build_config


async def echo(scope: Any, receive: Any, send: Any) -> None:
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


if __name__ == "__main__":
    uvicorn.Server(build_config(echo, port=int(sys.argv[1]), log_level="warning")).run()
