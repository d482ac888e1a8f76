"""A customer of the simulated provider: it orders, and receives what it is called back with."""

from __future__ import annotations

import json
import queue
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from ackbridge.clock import utc_now
from ackbridge.sandbox.callback_sender import CallbackRetries
from ackbridge.sandbox.fault_rates import Rates
from ackbridge.sandbox.provider import create_provider

from .serving import serve

API_KEY = "api-key"
WEBHOOK_SECRET = "webhook-secret"
PATIENCE = 30.0
"""Seconds before a test that waits for ever is ended."""
BRISK = CallbackRetries(attempts=5, backoff=timedelta(milliseconds=1))

BODIES: dict[str, dict[str, Any]] = {
    "order": {"amount": 5, "currency": "EUR"},
    "shipment": {"destination": "Bergen"},
    "booking": {"room": "attic", "nights": 2},
    "quote": {"amount": 5, "currency": "EUR"},
    "report": {"subject": "sales"},
}
OPERATIONS = {kind: kind if kind == "quote" else f"create_{kind}" for kind in BODIES}


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
    """An ASGI application that keeps what it receives, by the path it came to.

    Attributes:
        answers: by path, what gives the HTTP status for each; 200 where there is none.
    """

    def __init__(self) -> None:
        self._letters: defaultdict[str, queue.Queue[Received]] = defaultdict(queue.Queue)
        self.answers: dict[str, Callable[[Received], int]] = {}

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
        self._letters[scope["path"]].put(letter)
        answer = self.answers.get(scope["path"])
        status = answer(letter) if answer else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def take(self, path: str) -> Received:
        """The next callback to a path."""
        return self._letters[path].get(timeout=PATIENCE)

    def is_empty(self, path: str) -> bool:
        """Whether everything that came has been taken."""
        return self._letters[path].empty()


@dataclass
class Customer:
    """Speaks to a provider of its own.

    Attributes:
        http: authenticated.
        mailbox: what the provider's callbacks reach.
        mailbox_url: where that is.
    """

    http: httpx.Client
    mailbox: Mailbox
    mailbox_url: str

    def errand(self, kind: str = "order", /, **behaviour: Any) -> Errand:
        """Something that the provider shall do; nothing is sent yet."""
        call_id = f"sandbox.{OPERATIONS[kind]}.{uuid.uuid4().hex}"
        body = {**BODIES[kind]}
        if behaviour:
            body["behaviour"] = behaviour
        if kind in ("order", "booking", "report"):
            body["call_id"] = call_id
        if kind in ("order", "booking", "shipment"):
            body["callback_url"] = f"{self.mailbox_url}/{call_id}"
        return Errand(self, kind, call_id, body)

    def summary(self) -> dict[str, Any]:
        """What the provider remembers, in numbers."""
        told: dict[str, Any] = self.http.get("/_summary").json()
        return told


@dataclass
class Errand:
    """One call: what is sent for it, and what comes of it.

    Attributes:
        kind: order, shipment, booking, quote or report.
        cycle: the part of the idempotency key that counts.
    """

    customer: Customer
    kind: str
    call_id: str
    body: dict[str, Any]
    cycle: int = field(default=1)

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"{self.call_id}:{self.cycle}"

    @property
    def box(self) -> str:
        """The path that its callbacks go to."""
        return f"/{self.call_id}"

    def send(self, **client_options: Any) -> httpx.Response:
        """Send the request, always the same one."""
        return self.customer.http.post(
            f"/v1/{self.kind}s",
            json=self.body,
            headers={"idempotency-key": self.key},
            **client_options,
        )

    def work(self) -> dict[str, Any]:
        """What the provider remembers of its latest work."""
        return self.works()[-1]

    def works(self) -> list[dict[str, Any]]:
        """What the provider remembers of its works."""
        reply = self.customer.http.get("/_works", params={"call_id": self.call_id})
        found: list[dict[str, Any]] = reply.json()
        return found

    def look(self) -> httpx.Response:
        """Ask how it stands."""
        return self.customer.http.get(f"/v1/{self.kind}s/{self.work()['id']}")

    def acknowledge(self, verdict: str) -> httpx.Response:
        """Tell the provider what became of its answer."""
        return self.customer.http.post(
            f"/v1/{self.kind}s/{self.work()['id']}/acknowledgements",
            json={"status": verdict},
            headers={"idempotency-key": f"{self.key}:{verdict}"},
        )

    def take(self) -> Received:
        """The next callback."""
        return self.customer.mailbox.take(self.box)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What the provider's journal has on it, of these kinds."""
        reply = self.customer.http.get("/_events", params={"call_id": self.call_id})
        return [event for event in reply.json() if not kinds or event["kind"] in kinds]

    def until(self, kind: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until the provider's journal has so many entries of a kind."""
        end = time.monotonic() + PATIENCE
        while len(found := self.events(kind)) < times:
            assert time.monotonic() < end, f"there is no {kind}"
            time.sleep(0.005)
        return found


@contextmanager
def customer(mailbox: Mailbox | None = None, rates: Rates | None = None) -> Iterator[Customer]:
    """A customer, and the provider it speaks to."""
    mailbox = mailbox or Mailbox()
    provider = create_provider(
        API_KEY, WEBHOOK_SECRET, rates or Rates(delay_ms=0), clock=utc_now, retries=BRISK
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
        yield Customer(http, mailbox, mailbox_url)
