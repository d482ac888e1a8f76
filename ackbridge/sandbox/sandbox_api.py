"""The API of the sandbox itself, as `integrations/sandbox.yaml` describes it."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .behaviour import Behaviour
from .provider_dialect import (
    AcknowledgementRequest,
    CallbackKind,
    DialectReply,
    DirectReply,
    IncomingRequest,
    Job,
    JobRequest,
    JobSelector,
    Mode,
    ParsedRequest,
    StatusRequest,
    Verdict,
    json_reply,
)

_PATH = re.compile(r"/v1/(?P<plural>[a-z]+)(/(?P<id>[^/]+)(?P<acknowledge>/acknowledgements)?)?")
_OWN_FIELDS = {"behaviour", "call_id", "callback_url"}
_STALE_BY = timedelta(days=1)


class _JobBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    behaviour: Behaviour | None = None


class _Order(_JobBody):
    amount: int = Field(gt=0)
    currency: str
    call_id: str | None = None
    callback_url: str | None = None


class _Shipment(_JobBody):
    """The body of `POST /v1/shipments`; it has no field for the caller's own id."""

    destination: str
    callback_url: str | None = None


class _Booking(_JobBody):
    room: str
    nights: int = Field(gt=0)
    call_id: str | None = None
    callback_url: str | None = None


class _Quote(_JobBody):
    amount: int = Field(gt=0)
    currency: str


class _Report(_JobBody):
    """The body of `POST /v1/reports`; reports have no callbacks."""

    subject: str
    call_id: str | None = None


class _AcknowledgementBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: Verdict
    call_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Resource:
    name: Literal["order", "shipment", "booking", "quote", "report"]
    operation: str
    mode: Mode
    body: type[_JobBody]


_RESOURCES = {
    "orders": _Resource("order", "create_order", "callback", _Order),
    "shipments": _Resource("shipment", "create_shipment", "callback", _Shipment),
    "bookings": _Resource("booking", "create_booking", "callback", _Booking),
    "quotes": _Resource("quote", "quote", "sync", _Quote),
    "reports": _Resource("report", "create_report", "poll", _Report),
}
_NAMES = {one.operation: one.name for one in _RESOURCES.values()}
_WITH_ACKNOWLEDGEMENT = frozenset({"order", "booking", "report"})


class SandboxApi:
    """The dialect of `integrations/sandbox.yaml`."""

    def __init__(self, api_key: str, webhook_secret: str) -> None:
        self._bearer = f"Bearer {api_key}".encode()
        self._secret = webhook_secret.encode()
        self._unkeyed: defaultdict[str | None, Iterator[int]] = defaultdict(lambda: count(1))

    def parse(self, request: IncomingRequest) -> ParsedRequest:
        if request.path == "/healthz":
            return DirectReply("health", json_reply(200, {"status": "ok"}))
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._bearer):
            return self._error("unauthorized", 401, "the API key is missing or wrong")
        parts = _PATH.fullmatch(request.path)
        resource = _RESOURCES.get(parts["plural"]) if parts else None
        if parts is None or resource is None:
            return self._error("unknown", 404, "not found")
        try:
            return self._parse(request, resource, unquote(parts["id"] or ""), parts)
        except ValidationError as error:
            return self._error("invalid", 422, _first_problem(error))

    def job_reply(self, job: Job) -> DialectReply:
        if job.mode != "sync":
            return json_reply(202, {"id": job.id, "status": "processing"})
        return json_reply(200, _document(job, job.status))

    def status_reply(self, job: Job) -> DialectReply:
        is_voided = job.is_void and job.status != "failed"
        return json_reply(200, _document(job, "voided" if is_voided else job.status))

    def acknowledgement_reply(self, job: Job, verdict: Verdict) -> DialectReply:
        return json_reply(200, {"id": job.id, "acknowledged": verdict})

    def error_reply(
        self,
        status: int,
        reason: str,
        operation: str | None = None,  # noqa: ARG002 -- errors of all operations are alike
    ) -> DialectReply:
        return json_reply(status, {"error": reason})

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """`{event_id, type, call_id?, <resource>, until?}`."""
        name = _NAMES[job.operation]
        call = {} if job.call_id is None else {"call_id": job.call_id}
        event = {"event_id": event_id, "type": f"{name}.{kind}"}
        status = "processing" if kind == "extended" else kind
        return json.dumps({**event, **call, name: _document(job, status), **_until(job)}).encode()

    def target(self, url: str, event_id: str) -> tuple[str, str]:  # noqa: ARG002 -- given by the protocol; all events go to the same address
        return "POST", url

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:  # noqa: ARG002 -- given by the protocol; these signatures do not cover it
        return self._signed(self._secret, body, at)

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:  # noqa: ARG002 -- as `sign`
        """With another secret, and a correct signature of yesterday."""
        return {
            "signature": self._signed(b"not " + self._secret, body, at),
            "stale": self._signed(self._secret, body, at - _STALE_BY),
        }

    def _parse(
        self, request: IncomingRequest, resource: _Resource, job_id: str, parts: re.Match[str]
    ) -> ParsedRequest:
        selector = JobSelector(job_id=job_id)
        match request.method, bool(job_id), bool(parts["acknowledge"]):
            case "POST", False, False:
                return self._job_request(request, resource)
            case "GET", True, False:
                return StatusRequest(resource.operation, selector)
            case "POST", True, True if resource.name in _WITH_ACKNOWLEDGEMENT:
                body = _AcknowledgementBody.model_validate_json(request.body)
                return AcknowledgementRequest(
                    resource.operation,
                    selector,
                    body.status,
                    _key(request),
                    body.model_dump(exclude_none=True),
                )
        return self._error("unknown", 405, "method not allowed")

    def _job_request(self, request: IncomingRequest, resource: _Resource) -> ParsedRequest:
        body = resource.body.model_validate_json(request.body)
        call_id = getattr(body, "call_id", None)
        return JobRequest(
            operation=resource.operation,
            mode=resource.mode,
            key=_key(request) or self._unique_key(call_id),
            content=body.model_dump(exclude=_OWN_FIELDS),
            call_id=call_id,
            callback_url=getattr(body, "callback_url", None),
            behaviour=body.behaviour,
        )

    def _unique_key(self, call_id: str | None) -> str:
        """For a request without a key: it is not recognised when it is repeated."""
        return f"{call_id or 'unkeyed'}#{next(self._unkeyed[call_id])}"

    def _error(self, kind: str, status: int, reason: str) -> DirectReply:
        return DirectReply(kind, self.error_reply(status, reason))

    def _signed(self, secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
        timestamp = str(int(at.timestamp()))
        signed = timestamp.encode() + b"." + body
        return {
            "content-type": "application/json",
            "x-sandbox-timestamp": timestamp,
            "x-sandbox-signature": hmac.new(secret, signed, hashlib.sha256).hexdigest(),
        }


def _document(job: Job, status: str) -> dict[str, Any]:
    document = {"id": job.id, "status": status, **job.content, **_until(job)}
    if status == "failed":
        document |= {"reason": job.behaviour.reason, "retryable": job.behaviour.retryable}
    elif job.operation == "quote":
        document |= {"total": job.content["amount"] * 2}
    return document


def _until(job: Job) -> Mapping[str, str]:
    return {} if job.extended_until is None else {"until": job.extended_until.isoformat()}


def _key(request: IncomingRequest) -> str | None:
    # Clients percent-encode characters that a header cannot carry.
    key = request.headers.get("idempotency-key")
    return key if key is None else unquote(key)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}"
