"""A provider that repeats what it is sent, and a collector of traces and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

NAME = "Ada Quillfeather"
CARD = "PLANTED-CARD-991742"
IBAN = "PLANTEDIBAN00420815"
SENSITIVE = (CARD, IBAN)

KEY = "planted-bank-key-5f1c77aa90"
WEBHOOK = "planted-webhook-secret-88d1"
QUERY_TOKEN = "planted-query-token-31ab"
HEADER_KEY = "planted-header-key-77cd"
SECRETS = (KEY, WEBHOOK, QUERY_TOKEN, HEADER_KEY)

FILE = """
provider: bank
base_url: ${BANK_URL}
auth: {type: bearer, token: "env:BANK_KEY"}
breaker: null
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:BANK_WEBHOOK"]}
  event_key: id
operations:
  look:
    request: {path: /look, repeat: always, body: {name: "{payload.name}", card: "{payload.card}"}}
    receipt: {attempts: 2, within: 5s}
    response: {mode: sync, data: body, failure: {when: body.error, reason: body.error}}
    sensitive: [payload.card, response.iban]
    notices:
      refused: {title: "Dear {payload.name}", message: "Your card {payload.card} did not do."}
  pay:
    request: {path: /pay, repeat: always, body: {name: "{payload.name}", card: "{payload.card}"}}
    receipt: {reference: id, attempts: 2, within: 5s, data: owner}
    response:
      mode: callback
      match: {call_id: call}
      success: type == 'paid'
      failure: {when: type == 'failed', reason: why}
      data: document
      deadline: {initial: 60s}
      late: hold
    sensitive: [payload.card, response.iban]
  keep:
    request: {path: /down, repeat: always, body: {name: "{payload.name}", card: "{payload.card}"}}
    receipt: {attempts: 1, within: 2s}
    response: {mode: sync, data: body}
    on_failure: park
    sensitive: [payload.card, response.iban]
"""


def bank() -> FastAPI:
    """The provider: it echoes the credentials and the personal data of every request."""
    app = FastAPI()

    @app.post("/look")
    async def look(request: Request) -> Response:
        sent = await request.json()
        if sent["name"] == "refuse":
            why = (
                f"{NAME}'s card {sent['card']} is not valid for {request.headers['authorization']}"
            )
            return JSONResponse({"error": why}, 422)
        if sent["name"] == "large":
            return JSONResponse({"owner": NAME, "iban": IBAN, "pages": [NAME] * 80_000})
        return JSONResponse(_echo(request, sent))

    @app.post("/pay")
    async def pay(request: Request) -> Response:
        return JSONResponse({"id": "p-1", **_echo(request, await request.json())}, 202)

    @app.post("/down")
    async def down(request: Request) -> Response:
        return JSONResponse({"error": f"not now: {await request.json()}"}, 503)

    return app


def _echo(request: Request, sent: dict[str, Any]) -> dict[str, Any]:
    authorization = request.headers["authorization"]
    return {"owner": NAME, "iban": IBAN, "sent": sent, "with": authorization}


@dataclass
class Collector:
    """Collects what is pushed by OTLP, as bytes."""

    received: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> FastAPI:
        """The server."""
        app = FastAPI()

        @app.post("/v1/{kind}")
        async def take(kind: str, request: Request) -> Response:
            self.received[kind] = self.received.get(kind, b"") + await request.body()
            return Response()

        return app
