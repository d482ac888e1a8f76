"""The interface between a simulated provider and the API that it speaks.

The provider receives requests, does jobs, injects faults and sends callbacks. A dialect knows
paths, documents and signatures. `sandbox_api.py` is the sandbox's own; another dialect makes a
provider with another API:

    simulate(dialect, behaviour_for=lambda request: Behaviour(silent=True))

Every HTTP request goes to `ProviderDialect.parse`, except those to paths that begin with `/_`,
which are for tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from .behaviour import Behaviour

Mode = Literal["callback", "poll", "sync"]
"""How a job is answered: by callback, by status requests, or in the HTTP response itself."""

Verdict = Literal["success", "failed"]
"""What an acknowledgement says."""

CallbackKind = Literal["completed", "failed", "extended"]
"""What a callback says."""


@dataclass(frozen=True)
class IncomingRequest:
    method: str
    path: str  # raw, without the query
    query: str = ""  # raw, without the `?`
    # By lower-case name; the last value of a repeated one.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class DialectReply:
    """An HTTP response; `content-length` is added when it is sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, document: Any) -> DialectReply:
    return DialectReply(status, json.dumps(document).encode(), {"content-type": "application/json"})


@dataclass(frozen=True)
class JobSelector:
    """Selects a job by its id, else by its key, else the latest job of a call."""

    job_id: str | None = None
    key: str | None = None
    call_id: str | None = None


@dataclass(frozen=True)
class JobRequest:
    operation: str
    mode: Mode
    # The idempotency key; there is one job per key. Where requests carry none, the dialect has to
    # derive one that is the same for every retry.
    key: str
    content: Any = None
    # The caller's own id, where the request has it. Events are found by it, and `fail` counts by
    # it.
    call_id: str | None = None
    callback_url: str | None = None  # where callbacks go; None for no callbacks
    behaviour: Behaviour | None = None


@dataclass(frozen=True)
class StatusRequest:
    """A request for the status of a job; without an operation, the job may be of any."""

    operation: str | None
    selector: JobSelector


@dataclass(frozen=True)
class AcknowledgementRequest:
    operation: str | None
    selector: JobSelector
    verdict: Verdict
    # Its own idempotency key. Without one, each verdict counts once per job.
    key: str | None = None
    body: Any = None  # for the event log, parsed if possible


@dataclass(frozen=True)
class DirectReply:
    """A reply by the dialect itself; `kind` is for the event log: `health`, `token`, `invalid`."""

    kind: str
    reply: DialectReply


ParsedRequest = JobRequest | StatusRequest | AcknowledgementRequest | DirectReply


@dataclass(frozen=True)
class JobAcknowledgement:
    """An accepted acknowledgement; `at` is when the first one with its `key` arrived."""

    at: datetime
    verdict: Verdict
    key: str | None
    body: Any = None


@dataclass
class Job:
    """The work that a request started; one per idempotency key."""

    # 1, 2, 3, ... over all jobs of the provider.
    number: int
    id: str  # the provider's own id, which callers know as the reference
    operation: str
    mode: Mode
    key: str
    call_id: str | None  # the caller's own id, where the provider knows it
    callback_url: str | None
    content: Any
    behaviour: Behaviour
    fails: bool = False
    is_late_started: bool = False  # whether the work of a `late` job has started
    status: Literal["processing", "completed", "failed"] = "processing"
    extended_until: datetime | None = None  # when the result is promised for, after an extension
    acknowledgements: list[JobAcknowledgement] = field(default_factory=list)

    @property
    def acknowledged(self) -> Verdict | None:
        return self.acknowledgements[-1].verdict if self.acknowledgements else None

    @property
    def is_void(self) -> bool:
        """Whether an accepted failed acknowledgement has called it off; never a `late` job."""
        return self.acknowledged == "failed" and not self.behaviour.late


class ProviderDialect(Protocol):
    """The API of one provider. Its methods are called on one event loop and must not block."""

    def parse(self, request: IncomingRequest) -> ParsedRequest:
        """Parse a request and check its credentials; never raises for invalid requests."""

    def job_reply(self, job: Job) -> DialectReply:
        """The receipt; in `sync` mode the response, by `job.status`.

        Built once per idempotency key, and repeated byte by byte.
        """

    def status_reply(self, job: Job) -> DialectReply:
        """The status, by `job.status`, `job.behaviour` (reason of a failure), `extended_until`.

        No success for a job that is void.
        """

    def acknowledgement_reply(self, job: Job, verdict: Verdict) -> DialectReply:
        """The reply to an acknowledgement that is accepted."""

    def error_reply(self, status: int, reason: str, operation: str | None = None) -> DialectReply:
        """An error, 4xx or 5xx; of an operation, if it is in answer to its request."""

    def callback_body(self, job: Job, kind: CallbackKind, event_id: str) -> bytes:
        """The body of a callback.

        Args:
            kind: what it says, whatever `job.status` is: a provider may contradict itself. For
                `extended`, `job.extended_until` has the time.
            event_id: the same for every copy and every attempt of the callback.
        """

    def target(self, url: str, event_id: str) -> tuple[str, str]:
        """The method and the whole URL of a callback, from its callback URL."""

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        """The headers of an authentic callback: content type and signature."""

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """The headers of forged callbacks, by a name for the event log: `signature`, `stale`.

        Only forgeries that a receiver has to reject: no `stale` one where no time is signed.
        """
