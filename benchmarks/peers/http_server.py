"""How a peer's HTTP edge is served: calls in, callbacks in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handle = Callable[[dict[str, Any]], Awaitable[None]]
READY = "peer ready"
"""The line that says so."""


async def serve_edge(port: int, start: Handle, callback: Handle) -> None:
    """Serve until SIGTERM.

    Args:
        start: given `{key, payload}`, runs one call and returns at its end.
        callback: given the provider's event, returns once it is durable.
    """
    app = web.Application()
    app.add_routes([web.post("/calls", _answer(start)), web.post("/callbacks", _answer(callback))])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(READY, flush=True)
    await stopped.wait()
    await runner.cleanup()


def _answer(handle: Handle) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        await handle(await request.json())
        return web.Response()

    return answer
