"""The sandbox's own speech, as `integrations/sandbox.yaml` describes it: a shop."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .behaviour import Behaviour
from .job import Job, Mode, Verdict
from .provider_dialect import (
    Acknowledgement,
    Aside,
    DialectReply,
    Heard,
    Incoming,
    News,
    StatusRequest,
    Whose,
    WorkRequest,
    in_json,
)

_PATH = re.compile(r"/v1/(?P<plural>[a-z]+)(/(?P<id>[^/]+)(?P<acknowledge>/acknowledgements)?)?")
_OWN_FIELDS = {"behaviour", "call_id", "callback_url"}
_STALE = timedelta(days=1)


class _Request(BaseModel):
    """What every request may say beside what it is about."""

    model_config = ConfigDict(extra="forbid")

    behaviour: Behaviour | None = None


class _Order(_Request):
    """The body of `POST /v1/orders`."""

    amount: int = Field(gt=0)
    currency: str
    call_id: str | None = None
    callback_url: str | None = None


class _Shipment(_Request):
    """The body of `POST /v1/shipments`. It has no field for an id of the caller's."""

    destination: str
    callback_url: str | None = None


class _Booking(_Request):
    """The body of `POST /v1/bookings`."""

    room: str
    nights: int = Field(gt=0)
    call_id: str | None = None
    callback_url: str | None = None


class _Quote(_Request):
    """The body of `POST /v1/quotes`."""

    amount: int = Field(gt=0)
    currency: str


class _Report(_Request):
    """The body of `POST /v1/reports`. Nobody is called back about one."""

    subject: str
    call_id: str | None = None


class _Acknowledgement(BaseModel):
    """The body of `POST /v1/.../{id}/acknowledgements`."""

    model_config = ConfigDict(extra="forbid")

    status: Verdict
    call_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Kind:
    """One kind of work."""

    name: Literal["order", "shipment", "booking", "quote", "report"]
    operation: str
    mode: Mode
    body: type[_Request]


_KINDS = {
    "orders": _Kind("order", "create_order", "callback", _Order),
    "shipments": _Kind("shipment", "create_shipment", "callback", _Shipment),
    "bookings": _Kind("booking", "create_booking", "callback", _Booking),
    "quotes": _Kind("quote", "quote", "sync", _Quote),
    "reports": _Kind("report", "create_report", "poll", _Report),
}
_NAMES = {kind.operation: kind.name for kind in _KINDS.values()}
_ACKNOWLEDGED = frozenset({"order", "booking", "report"})


class SandboxApi:
    """A `Speech`."""

    def __init__(self, api_key: str, webhook_secret: str) -> None:
        """Open.

        Args:
            api_key: what requests must bear.
            webhook_secret: what callbacks are signed with.
        """
        self._bearer = f"Bearer {api_key}".encode()
        self._secret = webhook_secret.encode()

    def hear(self, request: Incoming) -> Heard:
        """By path, behind the API key."""
        if request.path == "/healthz":
            return Aside("health", in_json(200, {"status": "ok"}))
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._bearer):
            return self._aside("unauthorized", 401, "the API key is missing or wrong")
        parts = _PATH.fullmatch(request.path)
        kind = _KINDS.get(parts["plural"]) if parts else None
        if parts is None or kind is None:
            return self._aside("unknown", 404, "there is no such path")
        try:
            return self._understand(request, kind, unquote(parts["id"] or ""), parts)
        except ValidationError as error:
            return self._aside("invalid", 422, _complaint(error))

    def answer(self, work: Job) -> DialectReply:
        """A receipt; a quote itself."""
        if work.mode != "sync":
            return in_json(202, {"id": work.id, "status": "processing"})
        return in_json(200, _public(work, work.status))

    def status(self, work: Job) -> DialectReply:
        """The work as it stands."""
        return in_json(200, _public(work, work.status))

    def acknowledged(self, work: Job, verdict: Verdict) -> DialectReply:
        """Repeats what it was told."""
        return in_json(200, {"id": work.id, "acknowledged": verdict})

    def trouble(self, status: int, reason: str) -> DialectReply:
        """`{error}`."""
        return in_json(status, {"error": reason})

    def event(self, work: Job, news: News, event_id: str) -> bytes:
        """`{event_id, type, call_id?, <kind>, until?}`."""
        name = _NAMES[work.operation]
        call = {} if work.call_id is None else {"call_id": work.call_id}
        about = {"event_id": event_id, "type": f"{name}.{news}"}
        status = "processing" if news == "extended" else news
        return json.dumps({**about, **call, name: _public(work, status), **_until(work)}).encode()

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:  # noqa: ARG002 -- a `Speech` is given the event's id, and these signatures do not cover it
        """HMAC-SHA256 over the time and the body."""
        return self._signed(self._secret, body, at)

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:  # noqa: ARG002 -- as `sign`
        """By somebody without the secret, and by somebody who has listened yesterday."""
        return {
            "signature": self._signed(b"not " + self._secret, body, at),
            "stale": self._signed(self._secret, body, at - _STALE),
        }

    def _understand(
        self, request: Incoming, kind: _Kind, work_id: str, parts: re.Match[str]
    ) -> Heard:
        whose = Whose(work_id=work_id)
        match request.method, bool(work_id), bool(parts["acknowledge"]):
            case "POST", False, False:
                return self._work(request, kind)
            case "GET", True, False:
                return StatusRequest(kind.operation, whose)
            case "POST", True, True if kind.name in _ACKNOWLEDGED:
                told = _Acknowledgement.model_validate_json(request.body)
                body = told.model_dump(exclude_none=True)
                return Acknowledgement(kind.operation, whose, told.status, _key(request), body)
        return self._aside("unknown", 405, "there is nothing of the kind to do here")

    def _work(self, request: Incoming, kind: _Kind) -> Heard:
        key = _key(request)
        if not key:
            return self._aside("invalid", 422, "idempotency-key: is missing")
        asked = kind.body.model_validate_json(request.body)
        return WorkRequest(
            operation=kind.operation,
            mode=kind.mode,
            key=key,
            content=asked.model_dump(exclude=_OWN_FIELDS),
            call_id=getattr(asked, "call_id", None),
            callback_url=getattr(asked, "callback_url", None),
            behaviour=asked.behaviour,
        )

    def _aside(self, kind: str, status: int, reason: str) -> Aside:
        return Aside(kind, self.trouble(status, reason))

    def _signed(self, secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
        timestamp = str(int(at.timestamp()))
        signed = timestamp.encode() + b"." + body
        return {
            "content-type": "application/json",
            "x-sandbox-timestamp": timestamp,
            "x-sandbox-signature": hmac.new(secret, signed, hashlib.sha256).hexdigest(),
        }


def _public(work: Job, status: str) -> dict[str, Any]:
    """What the shop tells about a work."""
    told = {"id": work.id, "status": status, **work.content, **_until(work)}
    if status == "failed":
        told |= {"reason": work.behaviour.reason, "retryable": work.behaviour.retryable}
    elif work.operation == "quote":
        told |= {"total": work.content["amount"] * 2}
    return told


def _until(work: Job) -> Mapping[str, str]:
    return {} if work.until is None else {"until": work.until.isoformat()}


def _key(request: Incoming) -> str | None:
    # Callers quote what a header cannot carry.
    key = request.headers.get("idempotency-key")
    return key if key is None else unquote(key)


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}"
