"""Ports of 127.0.0.1 for the processes of a local stack."""

from __future__ import annotations

import socket
import sys
import weakref

HOST = "127.0.0.1"


class LoopbackPort:
    """A port that is ours to give to a server of ours.

    On Linux it is held, bound but not listening, so that no other process is given it: not
    before our server listens, and not while our server is restarted. That works because servers
    set SO_REUSEADDR. Elsewhere a server that starts must be ready to find it taken.

    Attributes:
        number: the port.
    """

    def __init__(self, wished: int | None = None) -> None:
        """Find a port.

        Args:
            wished: this one if it is free; otherwise, and without a wish, any free one.
        """
        held = socket.socket()
        # Not left to the garbage collector, which warns about sockets it has to close.
        self._release = weakref.finalize(self, held.close)
        if sys.platform == "linux":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((HOST, wished or 0))
        except OSError:
            held.bind((HOST, 0))
        self.number: int = held.getsockname()[1]
        if sys.platform != "linux":
            self.release()

    def release(self) -> None:
        """Let go of it; it may then be given to anybody."""
        self._release()
