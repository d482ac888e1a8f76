"""How processes that run until they are stopped learn of it."""

from __future__ import annotations

import asyncio
import signal


def shutdown_signal() -> asyncio.Event:
    """An event of the running loop that SIGTERM and Ctrl-C set."""
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received.set)
    return received
