"""The callbacks' way in: plain ASGI in front of the application that answers all the rest.

A framework's routing, request and response objects cost more than all the steps of a callback
together; see docs/performance.md.
"""

from __future__ import annotations

import json
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .exchange import CallbackReply, Exchange
from .pipeline import CallbackPipeline

PREFIX = "/callbacks/"

_BODILESS = (204, 205, 304)
"""Codes an integration may choose whose responses have no body."""

_WRONG_METHOD = CallbackReply(405, "wrong method", "callbacks are sent with POST")


class Edge:
    """An ASGI application: `POST /callbacks/{provider}`, and everything else is the inner one's."""

    def __init__(self, pipeline: CallbackPipeline, inner: ASGIApp) -> None:
        """Take who answers callbacks, and who answers the rest."""
        self._pipeline = pipeline
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        provider = _provider(scope)
        if provider is None:
            await self._inner(scope, receive, send)
            return
        if scope["method"] == "POST":
            exchange = Exchange(provider, _headers(scope), scope["query_string"], receive)
            reply = await self._pipeline.receive(exchange)
        else:
            reply = _WRONG_METHOD
        start, body = _messages(reply)
        await send(start)
        await send(body)


def _provider(scope: Scope) -> str | None:
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    if not path.startswith(PREFIX):
        return None
    provider = path[len(PREFIX) :]
    return provider if provider and "/" not in provider else None


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; of those that come twice the first one counts."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


@lru_cache(maxsize=1024)
def _messages(reply: CallbackReply) -> tuple[Message, Message]:
    headers = []
    if reply.retry_after:
        headers.append((b"retry-after", b"%d" % reply.retry_after))
    content = b""
    if reply.code not in _BODILESS:
        said = {"status": reply.status, **({"reason": reply.reason} if reply.reason else {})}
        content = json.dumps(said, separators=(",", ":")).encode()
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(content)))
    start = {"type": "http.response.start", "status": reply.code, "headers": headers}
    return start, {"type": "http.response.body", "body": content}
