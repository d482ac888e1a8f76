"""A customer of the simulated provider: it orders, and receives what it is called back with."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from ackbridge.clock import utc_now
from ackbridge.sandbox import Rates, create_provider
from ackbridge.sandbox.courier import Persistence
from tests.serving import serve

API_KEY = "api-key"
WEBHOOK_SECRET = "webhook-secret"
PATIENCE = 30.0
"""Seconds before a test that waits for ever is ended."""
BRISK = Persistence(tries=5, pause=timedelta(milliseconds=1))


@dataclass(frozen=True)
class Received:
    """One callback: who sent it, and what."""

    port: int
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Mailbox:
    """An ASGI application that keeps what it receives.

    Attributes:
        letters: what came, in order.
        answer: gives the HTTP status for each.
    """

    def __init__(self, answer: Callable[[Received], int] = lambda _: 200) -> None:
        self.letters: queue.Queue[Received] = queue.Queue()
        self.answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take one request."""
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        letter = Received(scope["client"][1], headers, body)
        self.letters.put(letter)
        await send({"type": "http.response.start", "status": self.answer(letter), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def take(self) -> Received:
        """The next callback."""
        return self.letters.get(timeout=PATIENCE)


@dataclass
class Customer:
    """Speaks to a provider of its own.

    Attributes:
        http: authenticated.
        mailbox: what the provider's callbacks reach.
        callback_url: where that is.
    """

    http: httpx.Client
    mailbox: Mailbox
    callback_url: str

    def order(self, key: str = "k", /, **behaviour: Any) -> httpx.Response:
        """Order something."""
        return self.post("/v1/orders", key, self.order_body(**behaviour))

    def order_body(self, **behaviour: Any) -> dict[str, Any]:
        """The body of an order, as `integrations/sandbox.yaml` sends it."""
        body = {"amount": 5, "currency": "EUR", "call_id": "sandbox.create_order.k"}
        said = {"behaviour": behaviour} if behaviour else {}
        return {**body, **said, "callback_url": self.callback_url}

    def post(self, path: str, key: str, body: dict[str, Any]) -> httpx.Response:
        """Send a request with an idempotency key."""
        return self.http.post(path, json=body, headers={"idempotency-key": key})

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What the provider remembers, of these kinds."""
        return [e for e in self.http.get("/_events").json() if not kinds or e["kind"] in kinds]

    def summary(self) -> dict[str, Any]:
        """What the provider remembers, in numbers."""
        told: dict[str, Any] = self.http.get("/_summary").json()
        return told


@contextmanager
def customer(mailbox: Mailbox | None = None, rates: Rates | None = None) -> Iterator[Customer]:
    """A customer, and the provider it speaks to."""
    mailbox = mailbox or Mailbox()
    provider = create_provider(
        API_KEY, WEBHOOK_SECRET, rates or Rates(delay_ms=0), clock=utc_now, persistence=BRISK
    )
    with (
        serve(mailbox) as mailbox_url,
        serve(provider) as provider_url,
        httpx.Client(
            base_url=provider_url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE,
            trust_env=False,
        ) as http,
    ):
        yield Customer(http, mailbox, f"{mailbox_url}/callbacks/sandbox")
