"""A dialect made from an integration file."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ackbridge.catalog.examples import Example
from ackbridge.catalog.matching import find_event_key, receipt_reference
from ackbridge.catalog.model import Integration
from ackbridge.clock import Clock
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
from ackbridge.security.specs import HmacVerify, UrlVerify

from .message import Message
from .request_matching import (
    ExpectedCalls,
    RequestOrigin,
    Route,
    build_routes,
    parse_body,
    request_text,
)
from .sample_messages import JobStatus, MessageRequest, SampleMessages

TOKEN_PATH = "/_conformance/token"  # noqa: S105 -- a path, not a token
_STALE_BY = timedelta(days=2)
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Said:
    """A message that was sent, and how."""

    source: MessageSource
    document: dict[str, Any]


class FileBasedProvider:
    """Parses requests as an integration file makes them, and speaks as its examples do.

    Attributes:
        successes, failures: by call id, the messages that were one.
        results: by call id, the document of the last answer to the request for the result.
        complaints: requests that could not be understood, or were refused.
    """

    def __init__(
        self,
        integration: Integration,
        secrets: Secrets,
        public_url: str,
        clock: Clock,
        examples: Sequence[Example] = (),
        move: Callable[[str], str] = str,
    ) -> None:
        """Callbacks go to the gateway at `public_url` where requests have no callback URL.

        Args:
            move: gives a URL of the real provider the address of this one.
        """
        self._integration = integration
        self._routes = build_routes(integration)
        self._samples = {
            name: SampleMessages(integration, name, examples, move)
            for name in integration.operations
        }
        self._credentials = Credentials(integration.auth, secrets, TOKEN_PATH)
        callbacks = integration.callbacks
        self._signer = build_signer(callbacks.verify, secrets) if callbacks else None
        self._callback_url = f"{public_url}/callbacks/{integration.provider}"
        self._clock = clock
        self._expected = ExpectedCalls(integration, self._callback_url)
        self._marks: Iterator[int] = itertools.count(410_000_001)
        self._events: dict[str, Message] = {}
        self._event_keys: dict[str, str] = {}
        self._behaviours: dict[str, tuple[Behaviour, ...]] = {}
        self._receipts: dict[str, Message] = {}
        self._latest_jobs: dict[str, Job] = {}
        self._calls_of_jobs: dict[str, str] = {}
        self._final: set[str] = set()
        self.successes: defaultdict[str, list[Said]] = defaultdict(list)
        self.failures: defaultdict[str, list[Said]] = defaultdict(list)
        self.results: dict[str, dict[str, Any]] = {}
        self.complaints: list[str] = []

    # Set up by the scenario

    def expect(
        self,
        request: CallRequest,
        *behaviours: Behaviour,
        identifies_call: bool = True,
        identifies_cycle: bool = True,
        is_final: bool = False,
    ) -> None:
        """Expect a call; the last of its behaviours, by cycle, is also for all that follow.

        Args:
            is_final: whether its receipts are the response already.
            identifies_call, identifies_cycle: as in `ExpectedCalls.add`.
        """
        self._expected.add(
            request, identifies_call=identifies_call, identifies_cycle=identifies_cycle
        )
        self._behaviours[request.call_id] = behaviours or (Behaviour(),)
        if is_final:
            self._final.add(request.call_id)

    def behaviour_for(self, request: JobRequest) -> Behaviour | None:
        behaviours = self._behaviours.get(request.call_id or "")
        if behaviours is None:
            return None
        cycle = int(request.key.rpartition(":")[2])
        return behaviours[min(cycle, len(behaviours)) - 1]

    def event_key(self, event_id: str) -> str:
        """The event key of a callback that was sent."""
        return self._event_keys[event_id]

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
        origin = self._expected.identify(request)
        if not origin.is_known:
            origin = self._expected.exclusive({route.operation for route in routes})
        if not origin.is_known:
            return self._error("unattributed", 404, f"{where}: identifies no call")
        route = _best_route(routes, origin)
        if not route.tells_call:
            # A provider does not find its work by the key of another request.
            return self._error("unattributed", 404, f"{where}: identifies no call")
        return self._parsed(route, origin, request)

    def job_reply(self, job: Job) -> DialectReply:
        self._latest_jobs[job.call_id or job.key] = job
        self._calls_of_jobs[job.id] = job.call_id or job.key
        message = self._receipt(job)
        if job.mode == "sync" or job.call_id in self._final:
            status: JobStatus = "completed" if job.call_id in self._final else job.status
            self._note(job, status, MessageSource.SYNC, message.document)
        return _encoded(message)

    def status_reply(self, job: Job) -> DialectReply:
        status: JobStatus = job.status
        if status == "completed" and job.is_void:
            status = "processing"
        if status == "processing" and job.extended_until is not None:
            status = "extended"
        samples = self._samples[job.operation]
        message = samples.status(self._reference(job), self._wanted(job, status))
        self._note(job, status, MessageSource.STATUS, message.document)
        return _encoded(message)

    def acknowledgement_reply(self, job: Job, verdict: Verdict) -> DialectReply:
        return _encoded(self._samples[job.operation].acknowledged(verdict))

    def error_reply(
        self,
        status: int,
        reason: str,
        operation: str | None = None,
    ) -> DialectReply:
        if operation is not None:
            return _encoded(self._samples[operation].error(status))
        return json_reply(status, {"error": {"message": reason}})

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """The body that the file reads as this kind; empty for operations without callbacks."""
        if job.mode != "callback":
            return b""
        if kind == "failed" and not self._samples[job.operation].can_fail:
            # Only in a forged callback, which is rejected whatever it says.
            kind = "completed"
        message = self._samples[job.operation].callback(
            self._wanted(job, kind),
            call_id=job.call_id or "",
            reference=self._reference(job),
            mark=str(next(self._marks)),
            query=_query(job.callback_url or ""),
        )
        self._events[event_id] = message
        document = self._samples[job.operation].event_document(message)
        self._event_keys[event_id] = find_event_key(self._integration, document) or event_id
        if not self._integration.operations[job.operation].response.fetch:
            self._note(job, kind, MessageSource.CALLBACK, document)
        return message.content

    def target(self, url: str, event_id: str) -> tuple[str, str]:
        message = self._events.get(event_id)
        if message is None or not message.query_text:
            return "POST", url
        return message.method, f"{url.partition('?')[0]}?{message.query_text}"

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        headers = self._headers(event_id)
        signed = self._signer.sign(body, self._message_id(event_id), at) if self._signer else {}
        return {**headers, **signed}

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """With another secret; where time is signed, also a correct signature of days ago.

        None where the URL proves a callback: the headers are nobody's then.
        """
        callbacks = self._integration.callbacks
        if self._signer is None or (callbacks and isinstance(callbacks.verify, UrlVerify)):
            return {}
        headers, message_id = self._headers(event_id), self._message_id(event_id)
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
        if route.part == "result":
            return self._result(route, origin)
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

    def _receipt(self, job: Job) -> Message:
        """Rendered when it is first needed, which may be by a callback with its reference."""
        if job.id not in self._receipts:
            samples, mark = self._samples[job.operation], str(next(self._marks))
            wanted = self._wanted(job, job.status)
            if job.mode == "sync":
                message = samples.sync(mark, wanted)
            else:
                is_final = job.call_id in self._final
                message = samples.final_receipt(mark) if is_final else samples.receipt(mark)
            self._receipts[job.id] = message
            reference = self._reference(job)
            if reference is not None:
                self._expected.add_reference(reference, job.id, job.operation)
        return self._receipts[job.id]

    def _reference(self, job: Job) -> str | None:
        operation = self._integration.operations[job.operation]
        return receipt_reference(operation, self._receipt(job).document)

    def _wanted(self, job: Job, status: JobStatus) -> MessageRequest:
        until = job.extended_until or self._clock() + timedelta(minutes=1)
        seconds = max(1, round((until - self._clock()).total_seconds()))
        return MessageRequest(status, job.behaviour.retryable, until, seconds)

    def _note(
        self, job: Job, status: JobStatus, source: MessageSource, document: dict[str, Any]
    ) -> None:
        """Remember a success or a failure, for the scenario to compare with."""
        kept = {"completed": self.successes, "failed": self.failures}.get(status)
        if kept is not None:
            kept[job.call_id or ""].append(Said(source, document))

    def _result(self, route: Route, origin: RequestOrigin) -> DirectReply:
        of_job = self._calls_of_jobs.get(origin.job_id or "", "")
        job = self._latest_jobs.get(origin.call_id or of_job)
        if job is None:
            return self._error("unattributed", 404, "the request for the result identifies no call")
        message = self._samples[route.operation].result(self._reference(job))
        self.results[job.call_id or ""] = message.document
        return DirectReply("result", _encoded(message))

    def _message_id(self, event_id: str) -> str:
        """The message id that the signature covers: from the header that the file reads, if any."""
        callbacks = self._integration.callbacks
        verify = callbacks.verify if callbacks else None
        name = "webhook-id"
        if isinstance(verify, HmacVerify) and verify.id_header:
            name = verify.id_header.lower()
        return self._headers(event_id).get(name) or self._event_keys.get(event_id, event_id)

    def _headers(self, event_id: str) -> dict[str, str]:
        message = self._events.get(event_id)
        return {**_JSON, **(message.headers if message else {})}

    def _error(self, kind: str, status: int, reason: str) -> DirectReply:
        self.complaints.append(reason)
        return DirectReply(kind, self.error_reply(status, reason))


def _best_route(routes: list[Route], origin: RequestOrigin) -> Route:
    """Prefer the operation of the call, then the part that it is, or that the key names."""

    def rank(route: Route) -> tuple[bool, bool, bool]:
        suffix = (origin.full_key or "").rpartition(":")[2]
        is_own, is_part = route.operation == origin.operation, route.part == origin.part
        return is_own, is_part, bool(suffix) and route.part == suffix

    return max(routes, key=rank)


def _encoded(message: Message) -> DialectReply:
    return DialectReply(message.status or 200, message.content, {**_JSON, **message.headers})


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
