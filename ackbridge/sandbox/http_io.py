"""HTTP in and out, byte by byte where a fault needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .behaviour import Fault
from .provider_dialect import DialectReply, Incoming
from .serving import close, reset


@dataclass(frozen=True)
class HttpReply:
    """An answer, or the fault that takes its place.

    Attributes:
        answer: what is sent, or half of it; what `mute`, `closed` and `reset` leave unsaid.
        fault: None for an answer as it should be.
    """

    answer: DialectReply
    fault: Fault | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status that the other side gets to see, if it gets to see one."""
        return None if self.fault in ("mute", "closed", "reset") else self.answer.status


async def read(scope: Any, receive: Any) -> Incoming:
    """Read a whole request; whoever leaves half way has sent what there is."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    path = scope["raw_path"].decode("ascii")
    return Incoming(scope["method"], path, scope["query_string"].decode("ascii"), headers, body)


async def send_reply(reply: HttpReply, scope: Any, receive: Any, send: Any) -> None:
    """Send an answer, or do instead what its fault says."""
    match reply.fault:
        case "reset":
            reset(scope)
        case "closed":
            close(scope)
        case "mute":
            pass
        case "hung":
            await _send_half(send, reply.answer)
        case _:
            await _send(send, reply.answer)
            return
    # Until the other side has given up, or has noticed.
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Any, answer: DialectReply) -> None:
    await _send_head(send, answer, len(answer.body))
    await send({"type": "http.response.body", "body": answer.body})


async def _send_half(send: Any, answer: DialectReply) -> None:
    # Of nothing there is no half; something is promised then, and does not come.
    await _send_head(send, answer, len(answer.body) or 1)
    half = answer.body[: len(answer.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})


async def _send_head(send: Any, answer: DialectReply, length: int) -> None:
    headers = {**answer.headers, "content-length": str(length)}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
