"""Handles parsed requests: jobs, status requests and acknowledgements, with their faults."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime

from ackbridge.clock import Clock

from .behaviour import Behaviour, Fault
from .event_log import key_fields
from .fault_rates import Rates
from .job_runner import JobRunner
from .provider_dialect import (
    AcknowledgementRequest,
    DialectReply,
    Job,
    JobAcknowledgement,
    JobRequest,
    JobSelector,
    ProviderDialect,
    StatusRequest,
)
from .serving import HttpReply

BehaviourFor = Callable[[JobRequest], Behaviour | None]
"""The behaviour of a request that has none itself; None: drawn from the rates."""

MALFORMED = DialectReply(200, b'{"id": ', {"content-type": "application/json"})


@dataclass
class _KeyState:
    """One idempotency key; the first request that is not rejected starts its `reply`."""

    behaviour: Behaviour
    fingerprint: str
    reply: asyncio.Task[DialectReply] | None = None
    requests: int = 0
    replies: int = 0


@dataclass
class RequestHandler:
    """One job and one reply for each idempotency key; `jobs` has all by id, in order."""

    dialect: ProviderDialect
    runner: JobRunner
    rates: Rates
    behaviour_for: BehaviourFor
    clock: Clock
    jobs: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Makes ids unique over restarts: callers keep them.
        self._run = secrets.token_hex(3)
        self._keys: dict[str, _KeyState] = {}
        self._jobs_by_key: dict[str, Job] = {}
        self._jobs_by_call: defaultdict[str, list[Job]] = defaultdict(list)
        self._occurrences: Counter[tuple[str, str]] = Counter()
        self._first_acknowledgement: dict[str, datetime] = {}
        self._acknowledgement_replies: dict[tuple[str, str], DialectReply] = {}

    async def handle_job(self, request: JobRequest, fingerprint: str) -> HttpReply:
        """The fingerprint distinguishes a retry from another request with the same key."""
        state = self._key_state(request, fingerprint)
        behaviour = state.behaviour
        if state.fingerprint != fingerprint:
            return self._error(409, "the idempotency key belongs to another request")
        state.requests += 1
        if fault := behaviour.fault_before(state.requests - 1):
            return self._faulty(fault, behaviour, None, request.operation)
        is_first = state.reply is None
        if state.reply is None:
            state.reply = asyncio.create_task(self._accept(request, behaviour))
        # A client that disconnects must not cancel the reply for its retries.
        reply = await asyncio.shield(state.reply)
        if is_first:
            await asyncio.sleep(behaviour.receipt_delay_ms / 1000)
        if behaviour.refuse is not None:
            return HttpReply(reply)
        state.replies += 1
        if fault := behaviour.fault_after(state.replies - 1):
            return self._faulty(fault, behaviour, reply, request.operation)
        is_mute = request.mode == "sync" and (behaviour.silent or behaviour.stuck)
        return HttpReply(reply, "mute" if is_mute else None)

    def handle_status(self, request: StatusRequest) -> HttpReply:
        job = self._find(request.operation, request.selector)
        if job is None:
            return self._error(404, "no such work")
        if self._is_among_first(job.behaviour.status_failures, "status", job.id):
            return self._faulty("error", job.behaviour, None)
        return HttpReply(self.dialect.status_reply(job))

    def handle_acknowledgement(self, request: AcknowledgementRequest) -> tuple[HttpReply, bool]:
        """The reply, and whether this is the first accepted request with its key."""
        job = self._find(request.operation, request.selector)
        if job is None:
            return self._error(404, "no such work"), False
        behaviour = job.behaviour
        if self._rejects_acknowledgement(job):
            status = behaviour.acknowledgement_status
            if status == 429:
                return self._faulty("throttled", behaviour, None), False
            return self._error(status, "acknowledgements are not accepted now", "error"), False
        key = job.id, request.key or request.verdict
        is_new = key not in self._acknowledgement_replies
        if is_new:
            reply = self.dialect.acknowledgement_reply(job, request.verdict)
            self._acknowledgement_replies[key] = reply
            job.acknowledgements.append(
                JobAcknowledgement(self.clock(), request.verdict, request.key, request.body)
            )
            if request.verdict == "failed":
                self.runner.start_late(job)
        if self._is_among_first(behaviour.lost_acknowledgements, "lost", job.id):
            return self._faulty("error", behaviour, None), is_new
        return HttpReply(self._acknowledgement_replies[key]), is_new

    def find(self, selector: JobSelector) -> Job | None:
        if selector.job_id is not None:
            return self.jobs.get(selector.job_id)
        if selector.key is not None:
            return self._jobs_by_key.get(selector.key)
        return next(reversed(self.jobs_of_call(selector.call_id or "")), None)

    def jobs_of_call(self, call_id: str) -> Sequence[Job]:
        return self._jobs_by_call.get(call_id, ())

    def skip_delays(self, call_id: str) -> None:
        for job in self.jobs.values():
            if key_fields(job.key, job.call_id)["call_id"] == call_id:
                self.runner.skip_delay(job)

    def _find(self, operation: str | None, selector: JobSelector) -> Job | None:
        job = self.find(selector)
        return job if job is not None and operation in (None, job.operation) else None

    def _key_state(self, request: JobRequest, fingerprint: str) -> _KeyState:
        state = self._keys.get(request.key)
        if state is None:
            behaviour = (
                request.behaviour or self.behaviour_for(request) or self.rates.draw(request.key)
            )
            state = self._keys[request.key] = _KeyState(behaviour, fingerprint)
        return state

    async def _accept(self, request: JobRequest, behaviour: Behaviour) -> DialectReply:
        if behaviour.refuse is not None:
            return self.dialect.error_reply(behaviour.refuse, behaviour.reason, request.operation)
        call_id = key_fields(request.key, request.call_id)["call_id"] or request.key
        number = len(self.jobs) + 1
        job = Job(
            number=number,
            id=f"work_{self._run}_{number}",
            operation=request.operation,
            mode=request.mode,
            key=request.key,
            call_id=request.call_id,
            callback_url=request.callback_url,
            content=request.content,
            behaviour=behaviour,
            fails=self._is_among_first(behaviour.fail, "fail", call_id),
        )
        self.jobs[job.id] = self._jobs_by_key[job.key] = job
        self._jobs_by_call[call_id].append(job)
        await self.runner.start(job)
        return self.dialect.job_reply(job)

    def _error(self, status: int, reason: str, fault: Fault | None = None) -> HttpReply:
        return HttpReply(self.dialect.error_reply(status, reason), fault)

    def _faulty(
        self,
        fault: Fault,
        behaviour: Behaviour,
        reply: DialectReply | None,
        operation: str | None = None,
    ) -> HttpReply:
        """A fault, and the reply that it spoils; of an operation, if to its request."""
        error = self.dialect.error_reply(behaviour.error_status, "try again", operation)
        match fault:
            case "throttled":
                error = self.dialect.error_reply(429, "too many requests", operation)
                retry_after = {"retry-after": self._retry_after(behaviour)}
                return HttpReply(
                    DialectReply(429, error.body, {**error.headers, **retry_after}), fault
                )
            case "error":
                return HttpReply(error, fault)
            case "malformed":
                return HttpReply(MALFORMED, fault)
            case _:
                return HttpReply(reply or error, fault)

    def _retry_after(self, behaviour: Behaviour) -> str:
        if not behaviour.retry_after_date:
            return str(behaviour.retry_after)
        at = self.clock() + timedelta(seconds=behaviour.retry_after)
        return format_datetime(at, usegmt=True)

    def _rejects_acknowledgement(self, job: Job) -> bool:
        behaviour = job.behaviour
        first = self._first_acknowledgement.setdefault(job.id, self.clock())
        if self.clock() < first + timedelta(milliseconds=behaviour.acknowledgement_down_ms):
            return True
        return self._is_among_first(behaviour.acknowledgement_failures, "acknowledgement", job.id)

    def _is_among_first(self, times: int, what: str, subject: str) -> bool:
        """Count an occurrence of something, and tell whether it is one of the first `times`."""
        self._occurrences[what, subject] += 1
        return self._occurrences[what, subject] <= times
