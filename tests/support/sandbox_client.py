"""A client of the simulated provider: it sends requests and receives callbacks."""

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
TIMEOUT = 30.0
"""Seconds after which a test that waits fails."""
FAST_RETRIES = CallbackRetries(attempts=5, backoff=timedelta(milliseconds=1))

BODIES: dict[str, dict[str, Any]] = {
    "order": {"amount": 5, "currency": "EUR"},
    "shipment": {"destination": "Bergen"},
    "booking": {"room": "attic", "nights": 2},
    "quote": {"amount": 5, "currency": "EUR"},
    "report": {"subject": "sales"},
}
OPERATIONS = {kind: kind if kind == "quote" else f"create_{kind}" for kind in BODIES}


@dataclass(frozen=True)
class ReceivedCallback:
    """One callback; `port` is that of its sender."""

    port: int
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class CallbackReceiver:
    """An ASGI application that keeps callbacks by their path.

    Attributes:
        answers: by path, a function that returns the HTTP status; 200 where there is none.
    """

    def __init__(self) -> None:
        self._callbacks: defaultdict[str, queue.Queue[ReceivedCallback]] = defaultdict(queue.Queue)
        self.answers: dict[str, Callable[[ReceivedCallback], int]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        callback = ReceivedCallback(scope["client"][1], headers, body)
        self._callbacks[scope["path"]].put(callback)
        answer = self.answers.get(scope["path"])
        status = answer(callback) if answer else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def take(self, path: str) -> ReceivedCallback:
        """The next callback to a path."""
        return self._callbacks[path].get(timeout=TIMEOUT)

    def is_empty(self, path: str) -> bool:
        """Whether all callbacks to a path were taken."""
        return self._callbacks[path].empty()


@dataclass
class SandboxClient:
    """Speaks to a provider of its own.

    Attributes:
        http: authenticated.
        mailbox: what the provider's callbacks reach.
        mailbox_url: where that is.
    """

    http: httpx.Client
    receiver: CallbackReceiver
    receiver_url: str

    def job(self, kind: str = "order", /, **behaviour: Any) -> SandboxJob:
        """A job that is not requested yet."""
        call_id = f"sandbox.{OPERATIONS[kind]}.{uuid.uuid4().hex}"
        body = {**BODIES[kind]}
        if behaviour:
            body["behaviour"] = behaviour
        if kind in ("order", "booking", "report"):
            body["call_id"] = call_id
        if kind in ("order", "booking", "shipment"):
            body["callback_url"] = f"{self.receiver_url}/{call_id}"
        return SandboxJob(self, kind, call_id, body)

    def summary(self) -> dict[str, Any]:
        """The provider's counters."""
        summary: dict[str, Any] = self.http.get("/_summary").json()
        return summary


@dataclass
class SandboxJob:
    """One job: its request, and what the provider has on it.

    Attributes:
        kind: order, shipment, booking, quote or report.
        cycle: the part of the idempotency key that counts.
    """

    sandbox_client: SandboxClient
    kind: str
    call_id: str
    body: dict[str, Any]
    cycle: int = field(default=1)

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"{self.call_id}:{self.cycle}"

    @property
    def path(self) -> str:
        """The path of its callbacks."""
        return f"/{self.call_id}"

    def send(self, **client_options: Any) -> httpx.Response:
        """Send the request, always the same one."""
        return self.sandbox_client.http.post(
            f"/v1/{self.kind}s",
            json=self.body,
            headers={"idempotency-key": self.key},
            **client_options,
        )

    def work(self) -> dict[str, Any]:
        """Its latest row in `/_works`."""
        return self.works()[-1]

    def works(self) -> list[dict[str, Any]]:
        """Its rows in `/_works`."""
        reply = self.sandbox_client.http.get("/_works", params={"call_id": self.call_id})
        found: list[dict[str, Any]] = reply.json()
        return found

    def request_status(self) -> httpx.Response:
        """Send a status request."""
        return self.sandbox_client.http.get(f"/v1/{self.kind}s/{self.work()['id']}")

    def acknowledge(self, verdict: str) -> httpx.Response:
        """Send an acknowledgement."""
        return self.sandbox_client.http.post(
            f"/v1/{self.kind}s/{self.work()['id']}/acknowledgements",
            json={"status": verdict},
            headers={"idempotency-key": f"{self.key}:{verdict}"},
        )

    def take(self) -> ReceivedCallback:
        """The next callback."""
        return self.sandbox_client.receiver.take(self.path)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Its events of these kinds."""
        reply = self.sandbox_client.http.get("/_events", params={"call_id": self.call_id})
        return [event for event in reply.json() if not kinds or event["kind"] in kinds]

    def until(self, kind: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait for this many events of a kind."""
        end = time.monotonic() + TIMEOUT
        while len(found := self.events(kind)) < times:
            assert time.monotonic() < end, f"there is no {kind}"
            time.sleep(0.005)
        return found


@contextmanager
def sandbox_client(
    receiver: CallbackReceiver | None = None, rates: Rates | None = None
) -> Iterator[SandboxClient]:
    """A client and its provider, both running."""
    receiver = receiver or CallbackReceiver()
    provider = create_provider(
        API_KEY, WEBHOOK_SECRET, rates or Rates(delay_ms=0), clock=utc_now, retries=FAST_RETRIES
    )
    with (
        serve(receiver) as receiver_url,
        serve(provider) as provider_url,
        httpx.Client(
            base_url=provider_url,
            headers={"authorization": f"Bearer {API_KEY}"},
            timeout=TIMEOUT,
            trust_env=False,
        ) as http,
    ):
        yield SandboxClient(http, receiver, receiver_url)
