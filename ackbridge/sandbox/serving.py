"""HTTP of simulated providers: served by uvicorn, with faults of the connection itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .behaviour import Fault
from .provider_dialect import DialectReply, IncomingRequest

_TRANSPORT = "ackbridge.sandbox.transport"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0."""


class _TransportProtocol(HttpToolsProtocol):
    """Adds the connection's transport to the state of each request."""

    # The argument is uvicorn's: narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # uvicorn hands one state to all connections; each connection needs its own.
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        super().connection_made(transport)


def build_config(app: Any, **options: Any) -> uvicorn.Config:
    """A configuration in which every fault can be injected; other options are uvicorn's."""
    return uvicorn.Config(app, http=_TransportProtocol, ws="none", access_log=False, **options)


@dataclass(frozen=True)
class HttpReply:
    """A reply, sent whole, half (`hung`), or not at all (`mute`, `closed`, `reset`)."""

    reply: DialectReply
    fault: Fault | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status, if the client gets to see one."""
        return None if self.fault in ("mute", "closed", "reset") else self.reply.status


async def read_request(scope: Any, receive: Any) -> IncomingRequest:
    """Read a whole request; when the client disconnects, what has arrived so far."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
    return IncomingRequest(scope["method"], path, query, headers, body)


async def send_reply(reply: HttpReply, scope: Any, receive: Any, send: Any) -> None:
    match reply.fault:
        case "reset":
            _reset(scope)
        case "closed":
            _transport(scope).close()
        case "mute":
            pass
        case "hung":
            await _send_half(send, reply.reply)
        case _:
            await _send_head(send, reply.reply, len(reply.reply.body))
            await send({"type": "http.response.body", "body": reply.reply.body})
            return
    # The request stays open until the client has given up, or has noticed.
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_half(send: Any, reply: DialectReply) -> None:
    # An empty body has no half: one byte is announced and never sent.
    await _send_head(send, reply, len(reply.body) or 1)
    half = reply.body[: len(reply.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})


async def _send_head(send: Any, reply: DialectReply, length: int) -> None:
    headers = {**reply.headers, "content-length": str(length)}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})


def _reset(scope: Any) -> None:
    """Make the client see "connection reset by peer"."""
    transport = _transport(scope)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _transport(scope: Any) -> asyncio.Transport:
    try:
        return cast("asyncio.Transport", scope["state"][_TRANSPORT])
    except KeyError:
        raise RuntimeError(
            "faults of the connection need a server configured by"
            " ackbridge.sandbox.serving.build_config"
        ) from None
