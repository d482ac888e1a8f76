"""Dependencies for activities: a provider that follows a script, a ledger, and a clock."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from ackbridge.catalog.catalog import Catalog, build_redactors
from ackbridge.catalog.loading import load_catalog
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.steps import FailureDetails
from ackbridge.control.admission import Admission
from ackbridge.control.snapshots import Snapshots
from ackbridge.http.client import build_client
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from activities import Dependencies
from tests.support.serving import serve

Result = TypeVar("Result")

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TOKEN = "open sesame"

ACME = """
provider: acme
base_url: ${ACME_URL}
auth: {type: bearer, token: "env:ACME_TOKEN"}
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:ACME_HOOK"]}
  event_key: id
operations:
  order:
    request: {path: /orders, body: payload}
    receipt: {timeout: 2s, within: 2m, reference: id}
    response:
      mode: callback
      match: {call_id: call, reference: order}
      success: type == 'done'
      failure: {when: type == 'failed', reason: why}
      extension: {when: type == 'wait', until: until, by: by}
      deadline: {learn: {}}
      status:
        path: /orders/{reference}
        success: body.state == 'done'
        failure: {when: body.state == 'failed', reason: body.why}
        extension: {when: body.state == 'wait', until: body.until, by: body.by}
    acknowledge:
      path: /orders/{reference}/ack
      success: {got: "{response}"}
      failed: {why: "{reason}"}
  quote:
    request: {path: /quotes}
    receipt: {reference: id}
    response: {mode: sync, failure: {when: error, reason: error}}
  ponder:
    request: {path: /thoughts}
    receipt: {timeout: 6s}
    response: {mode: sync}
  track:
    request: {path: /tracks}
    receipt: {timeout: 2s, reference: id}
    response:
      mode: poll
      poll: {every: 10s}
      status:
        path: /tracks/{reference}
        success: body.state == 'done'
        failure: {when: body.state == 'failed', reason: body.why}
        extension: {when: body.state == 'wait', until: body.until, by: body.by}
  book:
    request: {path: /bookings}
    receipt:
      timeout: 2s
      reference: id
      data: links
      failure: {when: ok == `false`, reason: why, code: code}
    response:
      mode: callback
      match: {reference: booking}
      success: type == 'booked'
    acknowledge:
      path: /bookings/{reference}/ack
      failed: {}
      accept: state == 'acknowledged before'
  ledger:
    request: {path: /entries, idempotency: {header: Request-Id, retention: 24h}}
    receipt: {timeout: 2s, reference: id}
    response:
      mode: callback
      match: {reference: entry}
      success: type == 'entered'
      status: {path: "/entries/{reference}", success: body.state == 'entered'}
    acknowledge: {path: "/entries/{reference}/ack", failed: {}, undoes: false}
    park: [no_response, unknown]
    reconcile: {every: 10m, for: 2d}
  wire:
    request: {path: /transfers, idempotency: null, repeat: unless_reached}
    receipt: {timeout: 2s, reference: id}
    response:
      mode: sync
      success: id
    sum: payload.amount
  ask:
    request: {path: /questions}
    receipt: {retry: code == 'BUSY', pause: wait}
    response: {mode: sync}
  ask_once:
    request: {path: /questions, idempotency: null, repeat: unless_reached}
    receipt: {retry: code == 'BUSY', pause: wait}
    response: {mode: sync}
  nowhere:
    request: {path: /nowhere}
    response: {mode: sync}
    acknowledge: {path: "/nowhere/{payload.no}", failed: {}}
    notices:
      failed: {title: "No {payload.name}", message: "Ask {metadata.who} about {call.key}."}
      delayed: {title: "{payload.tags}", message: "It is late."}
"""


@dataclass
class Script:
    """What a provider answers, one after the other, and what it was asked.

    Attributes:
        replies: the next ones, or seconds of silence; once they are used up, 200 with an id.
        asked: method and path of every request.
    """

    replies: list[Response | float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def says(self, body: Any, status: int = 200, **headers: str) -> None:
        """The next answer."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append(JSONResponse(body, status, headers))

    def app(self) -> FastAPI:
        """The provider."""
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(path: str, request: Request) -> Response:
            self.asked.append(f"{request.method} /{path}")
            self.headers.append(dict(request.headers))
            reply = self.replies.pop(0) if self.replies else JSONResponse({"id": "r-1"})
            if isinstance(reply, float):
                await asyncio.sleep(reply)
                return Response(status_code=500)
            return reply

        return app


@dataclass
class World:
    """A worker's dependencies, and the provider's script."""

    script: Script
    deps: Dependencies
    environ: dict[str, str]

    @property
    def ledger(self) -> Ledger:
        """The worker's ledger."""
        return self.deps.ledger

    def request(self, operation: str = "order", key: str = "k-1", **more: Any) -> CallRequest:
        """A request of acme's."""
        return CallRequest(provider="acme", operation=operation, key=key, **more)


def attempt(number: int = 1, **info: Any) -> ActivityEnvironment:
    """The environment of one attempt, in which the engine's time is ours."""
    environment = ActivityEnvironment()
    times = {"scheduled_time": NOW, "started_time": NOW, "current_attempt_scheduled_time": NOW}
    environment.info = replace(environment.info, **{**times, "attempt": number, **info})
    return environment


def beats(environment: ActivityEnvironment) -> list[Any]:
    """Collects the details of every heartbeat."""
    seen: list[Any] = []
    environment.on_heartbeat = lambda *details: seen.extend(details)
    return seen


async def failed(work: Awaitable[Any]) -> ApplicationError:
    """The failure of an activity."""
    with pytest.raises(ApplicationError) as caught:
        await work
    return caught.value


def trouble(error: ApplicationError) -> FailureDetails:
    """The details of a failure."""
    (details,) = error.details
    assert isinstance(details, FailureDetails)
    return details


def delay(error: ApplicationError) -> float:
    """How long until the next attempt, in seconds."""
    assert error.next_retry_delay is not None
    return error.next_retry_delay.total_seconds()


def unreachable_url() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def provider() -> Iterator[tuple[Script, str]]:
    """A provider that follows a script, and its URL."""
    script = Script()
    with serve(script.app()) as url:
        yield script, url


@asynccontextmanager
async def world(
    folder: Path, script: Script, url: str, clock: Callable[[], datetime] = lambda: NOW
) -> AsyncIterator[World]:
    """Everything that activities are given."""
    environ = {"ACME_URL": url, "ACME_TOKEN": TOKEN, "ACME_HOOK": "hook line and sinker"}
    files = folder / "integrations"
    files.mkdir()
    (files / "acme.yaml").write_text(ACME)
    catalog = load_catalog(files, environ)
    ledger_url = f"sqlite:///{folder}/ledger.db"
    migrate(ledger_url)
    ledger = Ledger.open(ledger_url, clock)
    secrets = Secrets(environ, folder)
    async with build_client(connect_timeout=timedelta(seconds=2)) as client:
        yield World(script, build_dependencies(catalog, ledger, client, secrets, clock), environ)
    await ledger.close()


def build_dependencies(
    catalog: Catalog, ledger: Ledger, client: Any, secrets: Secrets, clock: Callable[[], datetime]
) -> Dependencies:
    auths = {
        name: build_auth(integration.auth, secrets, clock)
        for name, integration in catalog.integrations.items()
    }
    return Dependencies(
        catalog=catalog,
        ledger=ledger,
        http=client,
        auths=auths,
        clock=clock,
        public_url="http://us.example",
        snapshots=(snapshots := Snapshots()),
        admission=Admission(snapshots, "test"),
        has_search_attributes=True,
        secrets=secrets,
        redactors=build_redactors(catalog, secrets, auths),
    )
