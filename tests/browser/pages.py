"""The backend of a page: it serves the page, the module, and event tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ackbridge.api.event_tokens import EventTokens

_PAGE = """<!doctype html><title>Order</title><h1></h1><p></p>
<script type="module">
import { followCall } from "/ackbridge-events.js";
const asked = new URLSearchParams(location.search);
Object.assign(window, { states: [], events: [], connections: [], problems: [] });
window.addEventListener("error", (event) => window.problems.push(event.message));
const brief = (event) => [event.sequence, event.kind, event.alternative];
window.follow = followCall({
  url: asked.get("url"),
  token: () => fetch("/token?call=" + encodeURIComponent(asked.get("call"))).then((r) => r.text()),
  silentFor: Number(asked.get("silent") ?? 45000),
  onState: (event) => {
    window.states.push(brief(event));
    document.querySelector("h1").textContent = event.title;
    document.querySelector("p").textContent = event.message;
  },
  onEvent: (event) => window.events.push(brief(event)),
  onConnection: (connection) => window.connections.push(connection),
});
</script>"""


class PageServer:
    """A page that follows `?call=` at `?url=`, and a stream that a test writes itself."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens: EventTokens | None = None
        self.scripted: Sequence[dict[str, Any]] = ()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/ackbridge-events.js", self._module),
                Route("/token", self._token),
                Route("/scripted/{call}/events", self._stream),
            ]
        )

    async def _page(self, _request: Request) -> Response:
        return HTMLResponse(_PAGE)

    async def _module(self, _request: Request) -> Response:
        module = files("ackbridge.web").joinpath("ackbridge-events.js").read_bytes()
        return Response(module, media_type="text/javascript")

    async def _token(self, request: Request) -> Response:
        assert self.tokens is not None
        token, _ = self.tokens.mint(request.query_params["call"])
        return PlainTextResponse(token)

    async def _stream(self, _request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            yield ": a comment\r\n\r\n"
            for body in self.scripted:
                text = f"id: {body['id']}\ndata: {json.dumps(body)}\n\n"
                # Also in the middle of a line, of a character, and at once.
                for part in (text[:20], text[20:]):
                    yield part
                    await asyncio.sleep(0.01)
            await asyncio.sleep(30)

        return StreamingResponse(lines(), media_type="text/event-stream")
