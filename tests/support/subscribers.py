"""Subscribers over real sockets that verify signatures with the Standard Webhooks library."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

from ackbridge.contracts.deliveries import NoticeEvent

from .serving import serve

SECRET = "whsec_c3Vic2NyaWJlcnMga2VlcCB0aGVpciBvd24gc2VjcmV0cw=="
NEXT_SECRET = "whsec_dGhlIHNlY3JldCB0aGF0IHRha2VzIGl0cyBwbGFjZQ=="


@dataclass(frozen=True)
class ReceivedNotice:
    """A notice that has arrived with a valid signature.

    Attributes:
        id: the header `webhook-id`.
        body: as it was received.
    """

    id: str
    body: dict[str, Any]

    @property
    def position(self) -> tuple[int, str]:
        """Its place in the order, and what it is."""
        return self.body["data"]["sequence"], self.body["type"]


@dataclass
class Subscriber:
    """A subscriber with scripted replies.

    Attributes:
        replies: the next answers: a status, a response, or seconds of silence; then 204.
        received: all notices in the order of arrival, repeated ones too.
        accepted: notices that were answered with 2xx.
        forged: the number of requests with an invalid signature.
        visited: the codes of all visits; each is answered with its code.
        pages: of its list of events, as it is a provider, too.
        listed_after: what each request for a page asked for.
    """

    secret: str = SECRET
    replies: list[int | float | Response] = field(default_factory=list)
    received: list[ReceivedNotice] = field(default_factory=list)
    accepted: list[ReceivedNotice] = field(default_factory=list)
    forged: int = 0
    visited: list[str] = field(default_factory=list)
    pages: list[Any] = field(default_factory=list)
    listed_after: list[str] = field(default_factory=list)
    url: str = ""

    def about(self, call_id: str) -> list[ReceivedNotice]:
        """The accepted notices of one call, each once, in order."""
        own = {one.id: one for one in self.accepted if one.body["data"]["call_id"] == call_id}
        return sorted(own.values(), key=lambda notice: notice.position)

    async def until(self, call_id: str, count: int) -> list[ReceivedNotice]:
        """Wait for that many accepted notices of a call."""
        async with asyncio.timeout(60):
            while len(self.about(call_id)) < count:  # noqa: ASYNC110 -- it changes in another thread
                await asyncio.sleep(0.02)
        return self.about(call_id)

    def app(self) -> FastAPI:
        """The server."""
        app = FastAPI()

        @app.post("/notices")
        async def take(request: Request) -> Response:
            body = await request.body()
            try:
                read = Webhook(self.secret).verify(body, dict(request.headers))
            except WebhookVerificationError:
                self.forged += 1
                return Response(status_code=401)
            notice = ReceivedNotice(request.headers["webhook-id"], read)
            self.received.append(notice)
            reply = self.replies.pop(0) if self.replies else 204
            if isinstance(reply, float):
                await asyncio.sleep(reply)
                reply = 500
            answer = reply if isinstance(reply, Response) else Response(status_code=reply)
            if 200 <= answer.status_code < 300:
                self.accepted.append(notice)
            return answer

        @app.get("/events")
        async def events(after: str, page: int = 0) -> dict[str, Any]:
            self.listed_after.append(after)
            following = page + 1 if page + 1 < len(self.pages) else None
            return {"data": self.pages[page], "next": following}

        @app.get("/confirm/{code}")
        async def confirm(code: str) -> Response:
            self.visited.append(code)
            return Response(status_code=int(code))

        return app


@contextmanager
def subscribing() -> Iterator[Subscriber]:
    """A subscriber that listens."""
    subscriber = Subscriber()
    with serve(subscriber.app()) as url:
        subscriber.url = f"{url}/notices"
        yield subscriber


def configure(integrations: Path, name: str, url: str, **more: Any) -> None:
    """Write the file of a subscriber that wants to be told everything, beside the integrations."""
    folder = integrations / "subscribers"
    folder.mkdir(exist_ok=True)
    secret = folder / f"{name}.secret"
    secret.write_text(SECRET)
    file = {
        "subscriber": name,
        "url": url,
        "secrets": [f"file:{secret.absolute()}"],
        "events": [str(event) for event in NoticeEvent],
        **more,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(file))
