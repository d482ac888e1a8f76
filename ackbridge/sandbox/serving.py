"""How simulated providers are served: by uvicorn, with the wire laid open to the application."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "ackbridge.sandbox.transport"
_DISCARD_AT_ONCE = struct.pack("ii", 1, 0)


class _OpenWire(H11Protocol):
    """Tells the application, in its state, which connection a request came on."""

    # The argument is uvicorn's: narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The state that uvicorn hands on is the server's; a connection needs one of its own.
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        super().connection_made(transport)


def build_config(app: Any, **options: Any) -> uvicorn.Config:
    """The configuration of a server on which every fault can be shown.

    Args:
        options: of `uvicorn.Config`.
    """
    return uvicorn.Config(app, http=_OpenWire, ws="none", access_log=False, **options)


def close(scope: Any) -> None:
    """Close the connection of a request in good order, with nothing more to say."""
    _transport(scope).close()


def reset(scope: Any) -> None:
    """Let the other side see "connection reset by peer"."""
    transport = _transport(scope)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_AT_ONCE)
    transport.abort()


def _transport(scope: Any) -> asyncio.Transport:
    try:
        return cast("asyncio.Transport", scope["state"][_TRANSPORT])
    except KeyError:
        raise RuntimeError(
            "serve the simulated provider with ackbridge.sandbox.serving.build_config:"
            " faults of the connection need it"
        ) from None
