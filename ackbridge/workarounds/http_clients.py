"""HTTP clients: no cookies, and responses as servers send them; see the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Final

import aiohttp
import httpx
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.http_writer import HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of a status line and its headers; what is beyond is not read, and neither is the body."""

MAX_STATUS_LINE_BYTES: Final = 64 * 1024

MAX_LENGTH_DIGITS: Final = 18
"""Of a Content-Length, which the parser has in 64 bits."""

_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(
    rb"HTTP/(\d)(?:\.(\d))?[ \t]+(\d{3})(?:[ \t]+([^\r\n]*))?[ \t]*", re.IGNORECASE
)
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_SWITCHING_PROTOCOLS = 101
_WITHOUT_BODY = frozenset({_SWITCHING_PROTOCOLS, 204, 304})

Fields = list[tuple[bytes, bytes]]


def without_own_retries(session: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """A session that sends every request once: whether it is repeated is the caller's decision."""
    session._retry_connection = False  # noqa: SLF001 -- there is no public setting
    return session


class CookielessClient(httpx.AsyncClient):
    """Ignores cookies without parsing them, which costs as much as a small exchange.

    Attributes:
        transport: what requests go through, for clients that share its connections.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, **options: Any) -> None:
        super().__init__(transport=transport, **options)
        self.transport = transport

    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:  # noqa: ARG002 -- the signature is httpx's
        raise AttributeError("this client keeps no cookies")


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES = _NoCookies()


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    OVER = auto()


class LenientResponseHandler(ResponseHandler):
    """Reads the head of a response itself, and leaves only the framing of its body to aiohttp.

    A provider has done its work before it answers: whatever is odd about its answer must not hide
    the status. Where the status line can be read, the response has its status. A body whose end
    is not known, or that breaks off, is an error of the body.

    Nothing is expected after a response: a connection that brings more is not used again.
    """

    _phase = _Phase.OVER
    _searched = 0
    _left: int | None = None

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._head = bytearray()

    def set_response_params(self, **params: Any) -> None:
        """Expect a response; called for every request."""
        self._phase = _Phase.HEAD
        self._head.clear()
        self._searched = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if data:
            self._reschedule_timeout()
        if self._phase is _Phase.HEAD:
            data = self._read_head(data)
        if self._phase is _Phase.BODY:
            self._read_body(data)
        elif self._phase is _Phase.OVER and data:
            self._disconnect()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._phase is _Phase.HEAD and b"\n" in self._head:
            self._begin(bytes(self._head), is_whole=False)
        super().connection_lost(exc)

    # The head

    def _read_head(self, data: bytes) -> bytes:
        """Read heads until one is final; returns what follows it."""
        head = self._head
        head += data
        while self._phase is _Phase.HEAD:
            if head.startswith((b"\r", b"\n")):
                head[:] = head.lstrip(b"\r\n")
            end = _END.search(head, self._searched)
            if end is None:
                self._searched = max(len(head) - 2, 0)
                self._check_part(head)
                return b""
            found = bytes(head[: end.start()])
            del head[: end.end()]
            self._searched = 0
            self._begin(found)
        rest = bytes(head)
        head.clear()
        return rest

    def _check_part(self, head: bytearray) -> None:
        line_end = head.find(b"\n")
        is_line = line_end >= 0 and _STATUS.fullmatch(head[:line_end].rstrip()) is not None
        is_open = line_end < 0 and len(head) <= MAX_STATUS_LINE_BYTES
        if not is_line and not is_open:
            self._fail()
        elif len(head) > MAX_HEAD_BYTES:
            self._begin(bytes(head), is_whole=False)

    def _begin(self, head: bytes, *, is_whole: bool = True) -> None:
        """Begin the response of a head, unless it is only an interim one."""
        first, *lines = head.split(b"\n")
        line = _STATUS.fullmatch(first.rstrip())
        if line is None:
            self._fail()
            return
        status = int(line[3])
        if is_whole and 100 <= status < 200 and status != _SWITCHING_PROTOCOLS:
            return
        fields = list(_fields(lines if is_whole else lines[:-1]))
        payload, is_last = self._payload_of(status, fields) if is_whole else (self._broken(), True)
        is_last = is_last or _closes(line[1] == b"1" and line[2] == b"0", fields)
        self._should_close = self._should_close or is_last
        self._payload = payload
        self._phase = _Phase.OVER
        if payload is EMPTY_PAYLOAD:
            self._drop_timeout()
        elif payload.exception() is None:
            self._phase = _Phase.BODY
            payload.on_eof(self._drop_timeout)
        message = RawResponseMessage(
            HttpVersion11,
            status,
            (line[4] or b"").decode("latin-1"),
            CIMultiDictProxy(CIMultiDict((_text(name), _text(value)) for name, value in fields)),
            tuple(fields),
            is_last,
            None,
            False,
            False,
        )
        self.feed_data((message, payload), 0)
        if payload.exception() is not None:
            self._disconnect()

    def _payload_of(self, status: int, fields: Fields) -> tuple[StreamReader, bool]:
        """The body, and whether the connection ends with it."""
        codings = _values(fields, b"transfer-encoding")
        lengths = set(_values(fields, b"content-length"))
        is_encoded = bool(codings) and codings != [b"identity"]
        if self._skip_payload:
            return EMPTY_PAYLOAD, False
        if status in _WITHOUT_BODY:
            # Some servers send one all the same.
            is_announced = is_encoded or not lengths <= {b"0"}
            return EMPTY_PAYLOAD, is_announced or status == _SWITCHING_PROTOCOLS
        self._left = None
        if is_encoded:
            is_chunked = codings[-1] == b"chunked"
            framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
            return self._framed(framing), not is_chunked or bool(lengths)
        if not lengths:
            return self._framed(b""), True
        length = lengths.pop()
        if lengths or not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
            return self._broken(), True
        self._left = int(length)
        if self._left == 0:
            return EMPTY_PAYLOAD, False
        return self._framed(b"Content-Length: " + length + b"\r\n"), False

    def _framed(self, framing: bytes) -> StreamReader:
        """A body that the parser delimits; it gets a head that it cannot misread."""
        if self._parser is None:
            raise RuntimeError("no response is expected")
        messages, _, _ = self._parser.feed_data(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        payload: StreamReader = messages[0][1]
        return payload

    def _broken(self) -> StreamReader:
        payload = StreamReader(self, 1, loop=self._loop)
        payload.set_exception(ClientPayloadError("the end of the body is not known"))
        return payload

    def _fail(self) -> None:
        self.set_exception(BadStatusLine("no status line"))
        self._disconnect()

    # The body

    def _read_body(self, data: bytes) -> None:
        payload, surplus = self._payload, b""
        if payload is None or self._parser is None:
            return
        if self._left is not None:
            data, surplus = data[: self._left], data[self._left :]
            self._left -= len(data)
        try:
            more, _, _ = self._parser.feed_data(data)
        except Exception:
            if not payload.is_eof():
                payload.set_exception(ClientPayloadError("the body is not framed by HTTP's rules"))
            self._disconnect()
            return
        if surplus or more:
            self._should_close = True
        if payload.is_eof():
            self._phase = _Phase.OVER
            if surplus or more:
                self._disconnect()

    def _disconnect(self) -> None:
        self._phase = _Phase.OVER
        self._should_close = True
        if self.transport is not None:
            self.transport.close()


def _fields(lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The headers; lines that are none are left out."""
    unfolded: list[list[bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and unfolded:
            unfolded[-1].append(line.strip())
        else:
            unfolded.append([line.rstrip()])
    for parts in unfolded:
        name, colon, value = b" ".join(parts).partition(b":")
        name = name.strip()
        if colon and _NAME.fullmatch(name):
            yield name, _CONTROLS.sub(b" ", value.strip())


def _values(fields: Fields, name: bytes) -> list[bytes]:
    """All values of a header that is a list, on one line or on several."""
    found = [value for one, value in fields if one.lower() == name]
    return [part.strip().lower() for value in found for part in value.split(b",")]


def _closes(is_old: bool, fields: Fields) -> bool:
    options = _values(fields, b"connection")
    return b"close" in options or (is_old and b"keep-alive" not in options)


def _text(value: bytes) -> str:
    return value.decode("latin-1")
