"""Ports of 127.0.0.1 for the processes of a local stack."""

from __future__ import annotations

import socket
import sys
import weakref

HOST = "127.0.0.1"


class LoopbackPort:
    """A port reserved for one of our servers.

    On Linux it stays bound, but does not listen, so that the kernel gives it to no other process:
    neither before our server listens, nor while it restarts. Servers can bind it because they set
    SO_REUSEADDR. On other systems a server may find the port taken.
    """

    def __init__(self, preferred: int | None = None) -> None:
        """Reserve `preferred` if it is free; otherwise any free port."""
        reserved = socket.socket()
        # The garbage collector would warn about an open socket.
        self._release = weakref.finalize(self, reserved.close)
        if sys.platform == "linux":
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind((HOST, preferred or 0))
        except OSError:
            reserved.bind((HOST, 0))
        self.number: int = reserved.getsockname()[1]
        if sys.platform != "linux":
            self.release()

    def release(self) -> None:
        """Release it; the kernel may then give it to any process."""
        self._release()
