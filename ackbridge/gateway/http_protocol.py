"""The HTTP server of the gateway: uvicorn's protocol over httptools, with bounds.

uvicorn with httptools bounds neither heads nor trailers, and closes no connection that is silent;
see docs/decisions for the alternatives that were measured. Everything here happens before a request
reaches the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from .connections import Awaited, ConnectionLimiter, parse_address, source_of

_SLICE = 64 * 1024
"""Bytes that are parsed between two checks of the bounds."""

_MAX_PIPELINED = 8
"""Requests that a client may send before the first of them is answered."""

_MAX_DISCARDED = 64 * 1024 * 1024
"""Bytes of a refused request that are discarded, so that its client gets to read the reply."""


class RequestRefusedError(Exception):
    """A request that the application does not get to see; the texts are safe to send."""

    def __init__(self, code: int, status: str, reason: str) -> None:
        self.code = code
        self.status = status
        self.reason = reason
        super().__init__(reason)


_TOO_SLOW: Final = RequestRefusedError(408, "too slow", "the request did not arrive in time")
_BUSY: Final = RequestRefusedError(503, "try again", "too many requests are incomplete")
_NOT_HTTP: Final = RequestRefusedError(400, "unreadable", "it is not an HTTP request")


class BoundedProtocol(HttpToolsProtocol):
    """One connection of the gateway."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: ConnectionLimiter,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.source = ""
        self.is_trusted = False
        self.has_been_served = False
        self._all = connections
        self._limits = connections.limits
        self._waits: Awaited | None = None
        self._raw: asyncio.Transport
        # Of the request that is arriving: bytes and fields of its head, or of its trailers.
        self._in_head = self._in_body = False
        self._head_bytes = self._field_bytes = self._fields = 0
        # Its body, and how much of it is counted as pending.
        self._body_bytes = self._pending_bytes = self._framing_bytes = 0
        self.is_closing = False
        self._discarded = 0

    # The argument is uvicorn's: narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._raw = transport
        self.transport = cast("asyncio.Transport", _LingeringTransport(transport, self))
        if self.client is not None:
            self.client = (str(parse_address(self.client[0])), self.client[1])
        host = self.client[0] if self.client else ""
        self.source = source_of(host)
        self.is_trusted = self.client is None or self._all.is_trusted(host)
        if self._all.add(self):
            self._wait(Awaited.HEAD)
        else:
            self._all.refused(self.source, "busy", "too many connections")
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.remove(self)
        self._settle_body()
        self.is_closing = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            self._discard(len(data))
            return
        try:
            if len(data) <= _SLICE:
                self._feed(data)
            else:
                view = memoryview(data)
                for begin in range(0, len(data), _SLICE):
                    if not self.is_closing:
                        self._feed(view[begin : begin + _SLICE])
        except httptools.HttpParserUpgrade:
            # Not supported: answered as any other request, and closed.
            self.cycle.keep_alive = False
            self._see_what_it_waits_for()
        except RequestRefusedError as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            # What the callbacks below raise is its context.
            known = error.__context__
            self._refuse(known if isinstance(known, RequestRefusedError) else _NOT_HTTP)
        else:
            self._see_what_it_waits_for()

    def _feed(self, data: bytes | memoryview) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
        body_before = self._body_bytes
        self.parser.feed_data(data)
        if self._in_body:
            # Chunk extensions and trailers: bytes that are neither head nor body.
            has_content = self._body_bytes != body_before
            self._framing_bytes = 0 if has_content else self._framing_bytes + len(data)
        if max(self._head_bytes, self._framing_bytes) > self._limits.head_bytes:
            raise _head_too_large(self._limits.head_bytes)

    def _see_what_it_waits_for(self) -> None:
        if self.is_closing:
            return
        if self._in_body:
            waits: Awaited | None = Awaited.BODY
        elif self._in_head or self._head_bytes:
            waits = Awaited.HEAD
        elif self.cycle is not None and self.cycle.response_complete:
            waits = Awaited.NEXT
        else:
            waits = None
        if waits is not self._waits:
            self._wait(waits)

    def _wait(self, what: Awaited | None) -> None:
        self._waits = what
        if what is None:
            self._all.resume(self)
        else:
            self._all.wait(self, what)

    # What the parser finds

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise RequestRefusedError(429, "too many", "too many requests before the first reply")
        self._in_head = True
        self._fields = self._field_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_field(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count_field(len(name) + len(value))
        if self._in_body:
            return  # a trailer, which would be taken for a header
        if name.lower() == b"content-length" and value.isdigit():
            self._check_body(int(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # Fails for a URL that is none; it is still the head then, and without a cycle of its own.
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        self._head_bytes = self._field_bytes = self._fields = 0
        self._body_bytes = self._framing_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._check_body(self._body_bytes)
        super().on_body(body)
        self._pending_bytes += len(body)
        self._all.buffer(len(body))

    def on_message_complete(self) -> None:
        self._in_body = False
        self._head_bytes = 0
        self._settle_body()
        super().on_message_complete()

    def _count_field(self, size: int) -> None:
        self._field_bytes += size
        limits = self._limits
        if self._field_bytes > limits.head_bytes or self._fields > limits.headers:
            raise _head_too_large(limits.head_bytes)

    def _check_body(self, size: int) -> None:
        limit = self._limits.body_bytes
        if size > limit:
            raise RequestRefusedError(413, "too large", f"the limit is {limit} bytes")

    def _settle_body(self) -> None:
        if self._pending_bytes:
            self._all.buffer(-self._pending_bytes)
            self._pending_bytes = 0

    # Replies

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each reply."""
        self.server_state.total_requests += 1
        self.has_been_served = True
        if self.is_closing or self._raw.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self.flow.write_paused:
            self._see_what_it_waits_for()

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self.is_closing:
            self._wait(Awaited.READ)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.is_closing:
            self._see_what_it_waits_for()

    def shutdown(self) -> None:
        if self.is_closing:
            self._raw.close()
        else:
            super().shutdown()

    # The bounds

    def give_up(self, waited_for: Awaited) -> None:
        match waited_for:
            case Awaited.BODY:
                self._refuse(_TOO_SLOW)
            case Awaited.HEAD if self._head_bytes:
                self._refuse(_TOO_SLOW)
            case Awaited.HEAD | Awaited.NEXT:
                self.close()
            case Awaited.READ | Awaited.CLOSE:
                self._raw.abort()

    def make_room(self) -> None:
        self._all.refused(self.source, "busy", "made room for other connections")
        if self._waits is Awaited.BODY:
            self._refuse(_BUSY)
            self._raw.close()
        elif self._waits is Awaited.NEXT:
            self._raw.close()
        else:
            self._raw.abort()

    def _refuse(self, refusal: RequestRefusedError) -> None:
        """Reply, and close the connection."""
        self._all.refused(self.source, refusal.status, refusal.reason)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            is_about_it = self._in_body and not self.pipeline
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or not is_about_it:
                self._raw.abort()
                return
        self.pipeline.clear()
        if not (self._in_body and cycle.response_complete):
            self._raw.write(self._refusal(refusal))
        self.close()

    def _refusal(self, refusal: RequestRefusedError) -> bytes:
        fields = {"status": refusal.status, "reason": refusal.reason}
        content = json.dumps(fields, separators=(",", ":")).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[refusal.code], *lines, b"\r\n", content])

    def close(self) -> None:
        """Close the connection as soon as its client has the reply.

        If something of the request has not been read, closing at once would reset the connection,
        and the reply be lost: what still arrives is discarded for a moment.
        """
        if self.is_closing or self._raw.is_closing():
            return
        self.is_closing = True
        self._settle_body()
        self._wait(Awaited.CLOSE)
        if not (self._in_body or self._in_head or self._head_bytes):
            self._raw.close()
            return
        self.flow.resume_reading()
        if self._raw.can_write_eof():
            # The client may have gone in between.
            with contextlib.suppress(OSError):
                self._raw.write_eof()

    def _discard(self, number: int) -> None:
        self._discarded += number
        if self._discarded > _MAX_DISCARDED:
            self._raw.abort()


class _LingeringTransport:
    """The transport that replies are written to; it is closed as the protocol says."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def close(self) -> None:
        self._protocol.close()

    def is_closing(self) -> bool:
        return self._protocol.is_closing or self._transport.is_closing()


def _head_too_large(limit: int) -> RequestRefusedError:
    return RequestRefusedError(431, "too large", f"the limit of a head is {limit} bytes")
