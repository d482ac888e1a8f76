"""The callback endpoint, in plain ASGI in front of the application that serves everything else.

The routing, request and response objects of a framework cost more than all stages of a callback
together; see docs/performance.md.
"""

from __future__ import annotations

import json
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .pipeline import WRONG_METHOD, CallbackPipeline, CallbackReply, CallbackRequest

PREFIX = "/callbacks/"

LOCAL = "local"
"""The client of requests over a socket of the file system."""

_BODILESS = (204, 205, 304)
"""Status codes of responses without a body; integrations may choose them."""

_METHODS = ("POST", "GET", "HEAD", "OPTIONS")
"""All but POST are for providers whose file says so. CloudEvents ask by OPTIONS."""


class CallbackEndpoint:
    """Serves `/callbacks/{provider}`, with or without a token; other requests go to `app`."""

    def __init__(self, pipeline: CallbackPipeline, app: ASGIApp) -> None:
        self._pipeline = pipeline
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _provider_and_token(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        provider, token = found
        method = scope["method"]
        if method in _METHODS:
            headers, query = _headers(scope), scope["query_string"]
            client = scope["client"][0] if scope["client"] else LOCAL
            request = CallbackRequest(provider, method, headers, query, receive, client, token)
            reply = await self._pipeline.handle(request)
        else:
            reply = WRONG_METHOD
        start, body = _messages(reply) if reply.content is None else _own_messages(reply)
        await send(start)
        await send(body)


class UndecodedPaths:
    """Match paths as they were sent, so that an encoded slash is part of a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        await self._app(scope, receive, send)


def _provider_and_token(scope: Scope) -> tuple[str, str] | None:
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    if not path.startswith(PREFIX):
        return None
    provider, slash, token = path[len(PREFIX) :].partition("/")
    is_callback = provider and "/" not in token and bool(slash) == bool(token)
    return (provider, token) if is_callback else None


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; the first value of a repeated header counts."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


@lru_cache(maxsize=1024)
def _messages(reply: CallbackReply) -> tuple[Message, Message]:
    headers = []
    if reply.closes:
        headers.append((b"connection", b"close"))
    if reply.retry_after:
        headers.append((b"retry-after", b"%d" % reply.retry_after))
    content = b""
    if reply.code not in _BODILESS:
        fields = {"status": reply.status, **({"reason": reply.reason} if reply.reason else {})}
        content = json.dumps(fields, separators=(",", ":")).encode()
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(content)))
    return _response(reply.code, headers, content)


def _own_messages(reply: CallbackReply) -> tuple[Message, Message]:
    """A reply whose text the provider's file gives; part of it may be the sender's."""
    headers = [(name.encode(), value.encode()) for name, value in reply.headers]
    content = b""
    if reply.code not in _BODILESS:
        content = (reply.content or "").encode()
        headers.append((b"content-type", reply.content_type.encode()))
        headers.append((b"x-content-type-options", b"nosniff"))
        headers.append((b"content-length", b"%d" % len(content)))
    return _response(reply.code, headers, content)


def _response(
    code: int, headers: list[tuple[bytes, bytes]], content: bytes
) -> tuple[Message, Message]:
    start = {"type": "http.response.start", "status": code, "headers": headers}
    return start, {"type": "http.response.body", "body": content}
