"""A gateway on a socket, with a real ledger, a real engine, and signed callbacks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_catalog
from ackbridge.clock import Clock
from ackbridge.contracts import names
from ackbridge.contracts.edge import EdgeLimits, Network
from ackbridge.gateway.app import build_config, create_app
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.secrets import Secrets
from ackbridge.workarounds.temporal_sdk import BoundedShutdown

T = TypeVar("T")

QUEUE = "gateway-tests"
FINISH = "finish"
SECRET = "the-acme-secret"
OLD_SECRET = "the-old-acme-secret"

ACME = """
provider: acme
base_url: http://127.0.0.1:9
callbacks:
  verify:
    type: hmac
    header: X-Acme-Signature
    timestamp_header: X-Acme-Timestamp
    signed: "{timestamp}.{body}"
    secrets: ["env:ACME_SECRET", "env:ACME_OLD_SECRET"]
  event_key: id
operations:
  create_order:
    request: {method: POST, path: /orders}
    response:
      mode: callback
      match: {call_id: call_id, reference: order}
      success: "type == 'order.done'"
      failure: {when: "type == 'order.failed'", reason: why}
  refund:
    request: {method: POST, path: /refunds}
    response:
      mode: callback
      match: {call_id: call_id, reference: order}
      success: "type == 'refund.done' || type == 'order.done'"
      data: order
"""

OTHER = """
provider: other
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:OTHER_TOKEN"]}
  event_key: id
  max_bytes: 1000
  replies: {accepted: 204, duplicate: 208, unmatched: 422, forged: 403, unreadable: 415}
operations:
  ask:
    request: {method: POST, path: /asks}
    response: {mode: callback, match: {call_id: call_id}, success: "done"}
"""

BULKY = """
provider: bulky
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: basic, username: bulky, passwords: ["env:OTHER_TOKEN"]}
  event_key: id
  max_bytes: 8000000
operations:
  scan:
    request: {method: POST, path: /scans}
    response: {mode: callback, match: {call_id: call_id}, success: "page", data: page}
"""

MANY = """
provider: many
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:OTHER_TOKEN"]}
  each: body.events
  event_key: "delivery.batch && join('/', [to_string(delivery.batch), id]) || id"
  ignore: shop == 'theirs'
  handshakes:
    - when: type == 'signed_check'
      reply: {status: 201, body: "{challenge}"}
    - when: query."hub.challenge"
      unsigned: true
      reply: {body: '{query."hub.challenge"}', headers: {X-Echo: '{query."hub.mode"}'}}
    - when: body.plainToken
      unsigned: true
      reply: {body: {token: "{body.plainToken}", seen: true}}
  replies: {accepted: 299, duplicate: 208, unmatched: 202, body: "[accepted]"}
  events:
    refund: {when: type == 'refund' || refunds, notify: shop, object: charge}
  list: {path: /events, each: data, overlap: 10m}
operations:
  ask:
    request: {method: POST, path: /asks}
    receipt: {reference: id}
    response:
      mode: callback
      match: {call_id: call_id, reference: order}
      success: "type == 'done'"
"""

SHOP = """
subscriber: shop
url: http://127.0.0.1:9
secrets: ["env:OTHER_TOKEN"]
"""

FORM = """
provider: form
base_url: http://127.0.0.1:9
callbacks:
  encoding: form
  verify: {type: header, name: X-Token, secrets: ["env:OTHER_TOKEN"]}
  event_key: Id
operations:
  ask:
    request: {method: POST, path: /asks}
    response: {mode: callback, match: {call_id: Ref}, success: "Status == 'done'"}
"""

FENCED = """
provider: fenced
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:OTHER_TOKEN"]}
  event_key: headers."x-delivery" || query.delivery || headers.authorization
  sources: [192.0.2.0/24, "2001:db8::/32"]
  max_per_second: 2
operations:
  ask:
    request: {method: POST, path: /asks}
    response: {mode: callback, match: {call_id: call_id}, success: "@.headers.status == 'done'"}
"""

LINKED = """
provider: linked
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: url, secrets: ["env:OTHER_TOKEN", "env:ACME_SECRET"]}
  event_key: id
operations:
  ask:
    request: {method: POST, path: /asks, body: {hook: "{callback_url}"}}
    response: {mode: callback, success: done}
"""

QUERY = FORM.replace("form", "asking").replace("encoding: asking", "encoding: query")
XML = """
provider: xml
base_url: http://127.0.0.1:9
callbacks:
  encoding: xml
  verify: {type: header, name: X-Token, secrets: ["env:OTHER_TOKEN"]}
  event_key: event."@id"
operations:
  ask:
    request: {method: POST, path: /asks}
    response: {mode: callback, match: {call_id: event.ref}, success: "event.status == 'done'"}
"""

ENVIRON = {"ACME_SECRET": SECRET, "ACME_OLD_SECRET": OLD_SECRET, "OTHER_TOKEN": "other-token"}


@workflow.defn(name=names.INTEGRATION_CALL)
class CollectingCall:
    """A call that collects the messages it is signalled."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._finished = False

    @workflow.run
    async def run(self, until: int) -> list[Any]:
        """Return all messages after `until` of them, or on the signal to finish."""
        await workflow.wait_condition(lambda: self._finished or len(self._messages) >= until)
        return self._messages

    @workflow.signal(name=names.PROVIDER_MESSAGE)
    def provider_message(self, message: Any) -> None:
        """Collect one message."""
        self._messages.append(message)

    @workflow.signal(name=names.PROVIDER_MESSAGES)
    def provider_messages(self, batch: Any) -> None:
        """Collect a batch."""
        self._messages.extend(batch["messages"])

    @workflow.signal(name=FINISH)
    def finish(self) -> None:
        """Finish."""
        self._finished = True


def collecting(client: Client) -> BoundedShutdown:
    """A worker that runs collecting calls."""
    return BoundedShutdown(
        Worker(
            client,
            task_queue=QUEUE,
            workflows=[CollectingCall],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
    )


@dataclass
class Gateway:
    """One running gateway."""

    url: str
    http: httpx.AsyncClient

    async def send_event(
        self, event: Mapping[str, Any], provider: str = "acme", **signing: Any
    ) -> httpx.Response:
        """Send a signed event."""
        body = json.dumps(event).encode()
        headers = signed(body, **signing) if provider == "acme" else {"X-Token": "other-token"}
        return await self.send(body, headers, provider)

    async def send(
        self, body: bytes, headers: Mapping[str, str], provider: str = "acme"
    ) -> httpx.Response:
        """Send any body with any headers."""
        return await self.http.post(f"/callbacks/{provider}", content=body, headers=headers)


@dataclass
class World:
    """What the gateways of one test share."""

    client: Client
    ledger: Ledger
    catalog: Catalog
    environ: Mapping[str, str] = field(default_factory=lambda: ENVIRON)

    async def start_call(
        self, call_id: str, until: int = 1000, client: Client | None = None
    ) -> WorkflowHandle[CollectingCall, list[Any]]:
        """Start a call that collects."""
        return await (client or self.client).start_workflow(
            CollectingCall.run, until, id=call_id, task_queue=QUEUE
        )

    @asynccontextmanager
    async def gateway(
        self,
        *,
        client: Client | None = None,
        ledger: Ledger | None = None,
        clock: Clock | None = None,
        limits: EdgeLimits | None = None,
        trusted_proxies: Sequence[Network] = (),
        **options: Any,
    ) -> AsyncIterator[Gateway]:
        """Serve a gateway; by default it sweeps its inbox once, at start."""
        options = {"sweep_every": timedelta(hours=1), "sweep_older_than": timedelta(0), **options}
        app = create_app(
            self.catalog,
            Secrets(self.environ, Path()),
            ledger or self.ledger,
            client or self.client,
            clock or now,
            **options,
        )
        # asyncio sets TCP_NODELAY only with an explicit IPPROTO_TCP; else a reply takes 40 ms.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(512)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = build_config(
                app,
                limits=limits,
                trusted_proxies=trusted_proxies,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            # In this event loop, because ledger and client belong to it.
            serving = asyncio.create_task(server.serve([listener]))
            try:
                async with httpx.AsyncClient(base_url=url, timeout=30) as http:
                    yield Gateway(url, http)
            finally:
                server.should_exit = True
                await serving


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def signed(body: bytes, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    """The signature headers of a body, for now or another time."""
    timestamp = str(int((at or now()).timestamp()))
    content = f"{timestamp}.".encode() + body
    signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    return {"X-Acme-Signature": signature, "X-Acme-Timestamp": timestamp}


def new_call_id(operation: str = "create_order", provider: str = "acme") -> str:
    """A call id that no other test uses."""
    return f"{provider}.{operation}.{uuid.uuid4().hex}"


def done(call_id: str | None = None, **more: Any) -> dict[str, Any]:
    """A success event with its own event key."""
    event = {"id": f"evt_{uuid.uuid4().hex}", "type": "order.done", **more}
    return event if call_id is None else {**event, "call_id": call_id}


async def collected(handle: WorkflowHandle[CollectingCall, list[Any]]) -> list[Any]:
    """Finish a collecting call, and return its messages."""
    await handle.signal(FINISH)
    return await ended(handle)


async def ended(handle: WorkflowHandle[CollectingCall, list[Any]]) -> list[Any]:
    """Wait for a collecting call to end, and return its messages."""
    return await in_the_end(handle.result())


async def in_the_end(awaited: Awaitable[T]) -> T:
    """Await with a timeout, so that a test fails instead of hanging."""
    async with asyncio.timeout(60):
        return await awaited


def load(folder: Path) -> Catalog:
    """The catalog of all providers."""
    for number, text in enumerate((ACME, OTHER, BULKY, MANY, FORM, QUERY, XML, FENCED, LINKED)):
        (folder / f"{number}.yaml").write_text(text)
    (folder / "subscribers").mkdir()
    (folder / "subscribers" / "shop.yaml").write_text(SHOP)
    return load_catalog(folder, ENVIRON)
