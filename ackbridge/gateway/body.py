"""The body of a callback, read within a limit."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive


class BodyTooLargeError(Exception):
    """The body is larger than its limit; the rest of it was not read."""


class ClientDisconnectedError(Exception):
    """The sender has left in the middle."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """Read the raw body, and stop as soon as it is known to be too large.

    Args:
        receive: of the ASGI request, of which nothing has been read yet.
        headers: by lower-case name.
        limit: in bytes.

    Raises:
        BodyTooLargeError: by its Content-Length, or by what has come.
        ClientDisconnectedError: the sender has.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLargeError
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
