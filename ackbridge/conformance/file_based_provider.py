"""A dialect made from an integration file."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ackbridge.catalog.model import Integration
from ackbridge.clock import Clock
from ackbridge.conformance.solver.solve import Shape
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.messages import MessageSource
from ackbridge.sandbox.behaviour import Behaviour
from ackbridge.sandbox.credentials import Credentials
from ackbridge.sandbox.provider_dialect import (
    AcknowledgementRequest,
    CallbackKind,
    DialectReply,
    DirectReply,
    IncomingRequest,
    Job,
    JobRequest,
    JobSelector,
    ParsedRequest,
    StatusRequest,
    Verdict,
    json_reply,
)
from ackbridge.sandbox.signing import build_signer
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import HmacVerify

from .request_matching import (
    ExpectedCalls,
    RequestOrigin,
    Route,
    build_routes,
    parse_body,
    request_text,
)
from .sample_messages import JobStatus, MessageRequest, SampleMessages, reference_in

TOKEN_PATH = "/_conformance/token"  # noqa: S105 -- a path, not a token
_STALE_BY = timedelta(days=2)
_JSON = {"content-type": "application/json"}


class FileBasedProvider:
    """Parses requests and renders messages as an integration file describes them.

    Attributes:
        successes: by call id, the last message that was a success: its source and its document.
        complaints: requests that could not be understood, or were refused.
    """

    def __init__(
        self, integration: Integration, secrets: Secrets, public_url: str, clock: Clock
    ) -> None:
        """Callbacks go to the gateway at `public_url` where requests have no callback URL."""
        self._integration = integration
        self._routes = build_routes(integration)
        self._samples = {name: SampleMessages(integration, name) for name in integration.operations}
        self._credentials = Credentials(integration.auth, secrets, TOKEN_PATH)
        callbacks = integration.callbacks
        self._signer = build_signer(callbacks.verify, secrets) if callbacks else None
        self._callback_url = f"{public_url}/callbacks/{integration.provider}"
        self._clock = clock
        self._expected = ExpectedCalls()
        self._marks: Iterator[int] = itertools.count(410_000_001)
        self._event_marks: defaultdict[str, str] = defaultdict(lambda: str(next(self._marks)))
        self._events: dict[str, Shape] = {}
        self._behaviours: dict[str, tuple[Behaviour, ...]] = {}
        self._receipts: dict[str, Shape] = {}
        self._latest_jobs: dict[str, Job] = {}
        self.successes: dict[str, tuple[MessageSource, dict[str, Any]]] = {}
        self.complaints: list[str] = []

    # Set up by the scenario

    def expect(
        self, request: CallRequest, *behaviours: Behaviour, is_exclusive: bool = False
    ) -> None:
        """Expect a call; the last of its behaviours, by cycle, is also for all that follow.

        If exclusive, it gets the requests of its operation that identify no call.
        """
        self._expected.add(request, is_exclusive=is_exclusive)
        self._behaviours[request.call_id] = behaviours or (Behaviour(),)

    def behaviour_for(self, request: JobRequest) -> Behaviour | None:
        behaviours = self._behaviours.get(request.call_id or "")
        if behaviours is None:
            return None
        cycle = int(request.key.rpartition(":")[2])
        return behaviours[min(cycle, len(behaviours)) - 1]

    def event_key_mark(self, event_id: str) -> str:
        return self._event_marks[event_id]

    # The dialect

    def parse(self, request: IncomingRequest) -> ParsedRequest:
        health = self._integration.health
        if request.path == self._credentials.token_path:
            return DirectReply("token", self._credentials.issue_token(request))
        if health is not None and request.path.endswith(health.path):
            return DirectReply("health", json_reply(200, {}))
        where = f"{request.method} {request.path}"
        problem = self._credentials.check(request.headers)
        if problem is not None:
            return self._error("unauthorized", 401, f"{where}: {problem}")
        routes = [route for route in self._routes if route.matches(request)]
        if not routes:
            return self._error("unknown", 404, f"{where}: matches no part of the file")
        found = self._expected.identify(request_text(request))
        route = _best_route(routes, found)
        origin = found if found.is_known else self._expected.exclusive(route.operation)
        if not origin.is_known:
            return self._error("unattributed", 404, f"{where}: identifies no call")
        return self._parsed(route, origin, request)

    def job_reply(self, job: Job) -> DialectReply:
        self._latest_jobs[job.call_id or job.key] = job
        shape = self._receipt(job)
        if job.mode == "sync":
            self.successes[job.call_id or ""] = MessageSource.SYNC, shape.document
        return _encoded(shape)

    def status_reply(self, job: Job) -> DialectReply:
        status: JobStatus = job.status
        if status == "completed" and job.is_void:
            status = "processing"
        if status == "processing" and job.extended_until is not None:
            status = "extended"
        samples = self._samples[job.operation]
        shape = samples.status(self._reference(job), self._message(job, status))
        if status == "completed":
            self.successes[job.call_id or ""] = MessageSource.STATUS, shape.document
        return _encoded(shape)

    def acknowledgement_reply(self, job: Job, verdict: Verdict) -> DialectReply:  # noqa: ARG002 -- its body is not read
        return json_reply(200, {})

    def error_reply(self, status: int, reason: str) -> DialectReply:
        return json_reply(status, {"error": {"message": reason}})

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """The body that the file reads as this kind; empty for operations without callbacks."""
        if job.mode != "callback":
            return b""
        if kind == "failed" and self._samples[job.operation].never_fails:
            # Only in a forged callback, which is rejected whatever it says.
            kind = "completed"
        url = job.callback_url or ""
        shape = self._samples[job.operation].callback(
            self._message(job, kind),
            call_id=job.call_id or "",
            reference=self._reference(job),
            mark=self._event_marks[event_id],
            query=_query(url),
        )
        self._events[event_id] = shape
        if kind == "completed":
            self.successes[job.call_id or ""] = MessageSource.CALLBACK, shape.document
        return json.dumps(shape.body).encode()

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        headers = self._headers(event_id)
        signed = self._signer.sign(body, self._message_id(event_id), at) if self._signer else {}
        return {**_JSON, **headers, **signed}

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """With another secret; where time is signed, also a correct signature of days ago."""
        if self._signer is None:
            return {}
        headers, message_id = {**_JSON, **self._headers(event_id)}, self._message_id(event_id)
        forged = {"signature": {**headers, **self._signer.forge(body, message_id, at)}}
        if self._signer.signs_time:
            stale = self._signer.sign(body, message_id, at - _STALE_BY)
            forged["stale"] = {**headers, **stale}
        return forged

    def _parsed(
        self, route: Route, origin: RequestOrigin, request: IncomingRequest
    ) -> ParsedRequest:
        if route.part == "request":
            return self._job_request(route, origin, request)
        selector = JobSelector(origin.job_id, origin.key, origin.call_id)
        if route.part == "status":
            return StatusRequest(route.operation, selector)
        body = parse_body(request.body)
        return AcknowledgementRequest(route.operation, selector, route.part, origin.full_key, body)

    def _job_request(
        self, route: Route, origin: RequestOrigin, request: IncomingRequest
    ) -> JobRequest:
        call_id = origin.call_id or ""
        return JobRequest(
            operation=route.operation,
            mode=self._integration.operations[route.operation].response.mode,
            key=origin.key or self._derived_key(call_id),
            call_id=call_id,
            callback_url=self._callback_url_in(request),
        )

    def _derived_key(self, call_id: str) -> str:
        """A key for requests without one: the same until the job or its acknowledgement failed."""
        latest = self._latest_jobs.get(call_id)
        cycle = 1 if latest is None else int(latest.key.rpartition(":")[2])
        has_failed = latest is not None and "failed" in (latest.status, latest.acknowledged)
        return f"{call_id}:{cycle + 1 if has_failed else cycle}"

    def _callback_url_in(self, request: IncomingRequest) -> str | None:
        if self._signer is None:
            return None
        found = re.search(re.escape(self._callback_url) + r"[^\s\"'<>&]*", request_text(request))
        return found.group() if found else self._callback_url

    def _receipt(self, job: Job) -> Shape:
        """Rendered when it is first needed, which may be by a callback with its reference."""
        if job.id not in self._receipts:
            samples, mark = self._samples[job.operation], str(next(self._marks))
            message = self._message(job, job.status)
            shape = samples.sync(mark, message) if job.mode == "sync" else samples.receipt(mark)
            self._receipts[job.id] = shape
            reference = reference_in(self._integration.operations[job.operation], shape)
            if reference is not None:
                self._expected.add_reference(reference, job.id)
        return self._receipts[job.id]

    def _reference(self, job: Job) -> str | None:
        return reference_in(self._integration.operations[job.operation], self._receipt(job))

    def _message(self, job: Job, status: JobStatus) -> MessageRequest:
        until = job.extended_until or self._clock() + timedelta(minutes=1)
        seconds = max(1, round((until - self._clock()).total_seconds()))
        behaviour = job.behaviour
        return MessageRequest(status, behaviour.reason, behaviour.retryable, until, seconds)

    def _message_id(self, event_id: str) -> str:
        """The message id that the signature covers: from the header that the file reads, if any."""
        callbacks = self._integration.callbacks
        verify = callbacks.verify if callbacks else None
        name = "webhook-id"
        if isinstance(verify, HmacVerify) and verify.id_header:
            name = verify.id_header.lower()
        return self._headers(event_id).get(name) or self._event_marks[event_id]

    def _headers(self, event_id: str) -> dict[str, str]:
        shape = self._events.get(event_id)
        return dict(shape.headers) if shape else {}

    def _error(self, kind: str, status: int, reason: str) -> DirectReply:
        self.complaints.append(reason)
        return DirectReply(kind, self.error_reply(status, reason))


def _best_route(routes: list[Route], origin: RequestOrigin) -> Route:
    """Prefer the operation of the call, then the part that the suffix of the key names."""

    def rank(route: Route) -> tuple[bool, bool]:
        suffix = (origin.full_key or "").rpartition(":")[2]
        is_own = f".{route.operation}." in (origin.call_id or "")
        return is_own, bool(suffix) and route.part == suffix

    return max(routes, key=rank)


def _encoded(shape: Shape) -> DialectReply:
    body = b"" if shape.body is None else json.dumps(shape.body).encode()
    return DialectReply(shape.status or 200, body, {**_JSON, **shape.headers})


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
