"""The body of a callback, read within a limit."""

from __future__ import annotations

from starlette.requests import Request


class TooLarge(Exception):
    """The body is larger than its limit; the rest of it was not read."""


async def read_body(request: Request, limit: int) -> bytes:
    """Read the raw body, and stop as soon as it is known to be too large.

    Args:
        request: of which nothing has been read yet.
        limit: in bytes.

    Raises:
        TooLarge: by its Content-Length, or by what has come.
        ClientDisconnect: the sender has gone.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge
        chunks.append(chunk)
    return b"".join(chunks)
