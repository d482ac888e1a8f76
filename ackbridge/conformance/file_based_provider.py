"""A provider of any shape: it speaks what an integration file describes."""

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
from ackbridge.sandbox.job import Job, Verdict
from ackbridge.sandbox.provider_dialect import (
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
from ackbridge.sandbox.signing import build_signer
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import HmacVerify

from .attribution import Attribution, Callers
from .request_routes import Route, everything_said, parsed, routes
from .sample_messages import MessageRequest, SampleMessages, Stands, reference_in

TOKEN_PATH = "/_conformance/token"  # noqa: S105 -- where tokens are given out, not one of them
_STALE = timedelta(days=2)
_JSON = {"content-type": "application/json"}


class FileBasedProvider:
    """A `Speech` made from an integration file.

    Attributes:
        told: by call id, the last message that was a success: how it was told, and its document.
        complaints: what was sent and could not be understood, or was refused, for people.
    """

    def __init__(
        self, integration: Integration, secrets: Secrets, public_url: str, clock: Clock
    ) -> None:
        """Learn to speak.

        Args:
            secrets: what the references of the file stand for in this run.
            public_url: where callbacks go when the requests do not say where to.
        """
        self._integration = integration
        self._routes = routes(integration)
        self._wordings = {
            name: SampleMessages(integration, name) for name in integration.operations
        }
        self._credentials = Credentials(integration.auth, secrets, TOKEN_PATH)
        callbacks = integration.callbacks
        self._signer = build_signer(callbacks.verify, secrets) if callbacks else None
        self._callback_url = f"{public_url}/callbacks/{integration.provider}"
        self._clock = clock
        self._callers = Callers()
        self._marks: Iterator[int] = itertools.count(410_000_001)
        self._event_marks: defaultdict[str, str] = defaultdict(lambda: str(next(self._marks)))
        self._events: dict[str, Shape] = {}
        self._behaviours: dict[str, tuple[Behaviour, ...]] = {}
        self._receipts: dict[str, Shape] = {}
        self._latest: dict[str, Job] = {}
        self.told: dict[str, tuple[MessageSource, dict[str, Any]]] = {}
        self.complaints: list[str] = []

    # What it is told by the director

    def expect(self, request: CallRequest, *behaviours: Behaviour) -> None:
        """A call is about to come; so it is met in its cycles, the last one for all that follow."""
        self._callers.add(request)
        self._behaviours[request.call_id] = behaviours or (Behaviour(),)

    def attend(self, request: CallRequest) -> None:
        """Whatever comes for this operation and says nothing of its call is this call's."""
        self._callers.attend(request)

    def behaviour_for(self, request: WorkRequest) -> Behaviour | None:
        """How a request is met."""
        behaviours = self._behaviours.get(request.call_id or "")
        if behaviours is None:
            return None
        cycle = int(request.key.rpartition(":")[2])
        return behaviours[min(cycle, len(behaviours)) - 1]

    def event_key_mark(self, event_id: str) -> str:
        """The digits in the event key of an event."""
        return self._event_marks[event_id]

    # What it says

    def hear(self, request: Incoming) -> Heard:
        """By route, behind the credentials; whose it is, is found in what it says."""
        health = self._integration.health
        if request.path == self._credentials.token_path:
            return Aside("token", self._credentials.token(request))
        if health is not None and request.path.endswith(health.path):
            return Aside("health", in_json(200, {}))
        refusal = self._credentials.refusal(request.headers)
        if refusal is not None:
            return self._aside("unauthorized", 401, f"{request.method} {request.path}: {refusal}")
        fitting = [route for route in self._routes if route.fits(request)]
        if not fitting:
            where = f"{request.method} {request.path}"
            return self._aside("unknown", 404, f"{where}: no part of the file sends this")
        return self._understand(fitting, request)

    def answer(self, work: Job) -> DialectReply:
        """The receipt; in `sync` mode the response."""
        self._latest[work.call_id or work.key] = work
        shape = self._receipt(work)
        if work.mode == "sync":
            self.told[work.call_id or ""] = MessageSource.SYNC, shape.document
        return _encoded(shape)

    def status(self, work: Job) -> DialectReply:
        """How the work stands."""
        stands: Stands = work.status
        if stands == "processing" and work.until is not None:
            stands = "extended"
        wording = self._wordings[work.operation]
        shape = wording.status(self._reference(work), self._telling(work, stands))
        if stands == "completed":
            self.told[work.call_id or ""] = MessageSource.STATUS, shape.document
        return _encoded(shape)

    def acknowledged(self, work: Job, verdict: Verdict) -> DialectReply:  # noqa: ARG002 -- nobody reads what comes back
        """Taken."""
        return in_json(200, {})

    def trouble(self, status: int, reason: str) -> DialectReply:
        """An error, in the form that most providers have."""
        return in_json(status, {"error": {"message": reason}})

    def event(self, work: Job, news: News, event_id: str) -> bytes:
        """A callback that the file understands as this news; nothing where there are none."""
        if work.mode != "callback":
            return b""
        if news == "failed" and self._wordings[work.operation].never_fails:
            # Only a forger would, and whatever a forger says is to be refused.
            news = "completed"
        url = work.callback_url or ""
        shape = self._wordings[work.operation].callback(
            self._telling(work, news),
            call_id=work.call_id or "",
            reference=self._reference(work),
            mark=self._event_marks[event_id],
            query=_query(url),
        )
        self._events[event_id] = shape
        if news == "completed":
            self.told[work.call_id or ""] = MessageSource.CALLBACK, shape.document
        return json.dumps(shape.body).encode()

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        """As the file verifies it."""
        headers = self._headers(event_id)
        signed = self._signer.sign(body, self._message_id(event_id), at) if self._signer else {}
        return {**_JSON, **headers, **signed}

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """By somebody without the secret, and, where time is signed, by one who has listened."""
        if self._signer is None:
            return {}
        headers, message_id = {**_JSON, **self._headers(event_id)}, self._message_id(event_id)
        forged = {"signature": {**headers, **self._signer.forge(body, message_id, at)}}
        if self._signer.knows_time:
            stale = self._signer.sign(body, message_id, at - _STALE)
            forged["stale"] = {**headers, **stale}
        return forged

    # How it understands

    def _understand(self, fitting: list[Route], request: Incoming) -> Heard:
        said = self._callers.attribute(everything_said(request))
        route = _chosen(fitting, said)
        whose = said if said.is_known else self._callers.whoever_is_alone(route.operation)
        if not whose.is_known:
            where = f"{request.method} {request.path}"
            return self._aside("unattributed", 404, f"{where}: says nothing of the call it is for")
        return self._heard(route, whose, request)

    def _heard(self, route: Route, whose: Attribution, request: Incoming) -> Heard:
        if route.part == "request":
            return self._work_request(route, whose, request)
        meant = Whose(work_id=whose.work_id, key=whose.key, call_id=whose.call_id)
        if route.part == "status":
            return StatusRequest(route.operation, meant)
        body = parsed(request.body)
        return Acknowledgement(route.operation, meant, route.part, whose.whole_key, body)

    def _work_request(self, route: Route, whose: Attribution, request: Incoming) -> WorkRequest:
        call_id = whose.call_id or ""
        return WorkRequest(
            operation=route.operation,
            mode=self._integration.operations[route.operation].response.mode,
            key=whose.key or self._presumed_key(call_id),
            call_id=call_id,
            callback_url=self._wanted_url(request),
        )

    def _presumed_key(self, call_id: str) -> str:
        """For a provider that is sent no key: the same until it has failed, or was told so."""
        latest = self._latest.get(call_id)
        cycle = 1 if latest is None else int(latest.key.rpartition(":")[2])
        is_over = latest is not None and "failed" in (latest.status, latest.acknowledged)
        return f"{call_id}:{cycle + 1 if is_over else cycle}"

    def _wanted_url(self, request: Incoming) -> str | None:
        if self._signer is None:
            return None
        found = re.search(re.escape(self._callback_url) + r"[^\s\"'<>&]*", everything_said(request))
        return found.group() if found else self._callback_url

    def _receipt(self, work: Job) -> Shape:
        """Made up at the first need: a callback may tell the reference before the receipt does."""
        if work.id not in self._receipts:
            wording, mark = self._wordings[work.operation], str(next(self._marks))
            telling = self._telling(work, work.status)
            shape = wording.sync(mark, telling) if work.mode == "sync" else wording.receipt(mark)
            self._receipts[work.id] = shape
            reference = reference_in(self._integration.operations[work.operation], shape)
            if reference is not None:
                self._callers.learn(reference, work.id)
        return self._receipts[work.id]

    def _reference(self, work: Job) -> str | None:
        return reference_in(self._integration.operations[work.operation], self._receipt(work))

    def _telling(self, work: Job, stands: Stands) -> MessageRequest:
        until = work.until or self._clock() + timedelta(minutes=1)
        seconds = max(1, round((until - self._clock()).total_seconds()))
        behaviour = work.behaviour
        return MessageRequest(stands, behaviour.reason, behaviour.retryable, until, seconds)

    def _message_id(self, event_id: str) -> str:
        """What the signature covers as the message's id: what the file reads, where it does."""
        callbacks = self._integration.callbacks
        verify = callbacks.verify if callbacks else None
        name = "webhook-id"
        if isinstance(verify, HmacVerify) and verify.id_header:
            name = verify.id_header.lower()
        return self._headers(event_id).get(name) or self._event_marks[event_id]

    def _headers(self, event_id: str) -> dict[str, str]:
        shape = self._events.get(event_id)
        return dict(shape.headers) if shape else {}

    def _aside(self, kind: str, status: int, reason: str) -> Aside:
        self.complaints.append(reason)
        return Aside(kind, self.trouble(status, reason))


def _chosen(fitting: list[Route], whose: Attribution) -> Route:
    """The route of the call's own operation, and of the kind that its key tells."""

    def fitness(route: Route) -> tuple[bool, bool]:
        own = f".{route.operation}." in (whose.call_id or "")
        ending = (whose.whole_key or "").rpartition(":")[2]
        return own, bool(ending) and route.part == ending

    return max(fitting, key=fitness)


def _encoded(shape: Shape) -> DialectReply:
    body = b"" if shape.body is None else json.dumps(shape.body).encode()
    return DialectReply(shape.status or 200, body, {**_JSON, **shape.headers})


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
