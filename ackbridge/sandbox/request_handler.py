"""The simulated provider's counter: what is asked there, and what it is answered with."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime

from ackbridge.clock import Clock

from .behaviour import Behaviour, Fault
from .event_log import whose
from .fault_rates import Rates
from .http_io import HttpReply
from .job import Job, JobAcknowledgement
from .job_runner import JobRunner
from .provider_dialect import (
    Acknowledgement,
    DialectReply,
    ProviderDialect,
    StatusRequest,
    Whose,
    WorkRequest,
)

BehaviourFor = Callable[[WorkRequest], Behaviour | None]
"""Says how a request is met that says nothing itself; None leaves it to chance."""

MALFORMED = DialectReply(200, b'{"id": ', {"content-type": "application/json"})


@dataclass
class _File:
    """What is kept under one idempotency key.

    Attributes:
        fingerprint: of the first request.
        answer: being made, or made; from then on it is repeated.
        asked, answered: how often.
    """

    behaviour: Behaviour
    fingerprint: str
    answer: asyncio.Task[DialectReply] | None = None
    asked: int = 0
    answered: int = 0


class RequestHandler:
    """Takes requests: one work and one answer for each idempotency key.

    Attributes:
        works: all of them, by their id, in order.
    """

    def __init__(
        self,
        speech: ProviderDialect,
        workshop: JobRunner,
        rates: Rates,
        behaviour_for: BehaviourFor,
        clock: Clock,
    ) -> None:
        self._speech = speech
        self._workshop = workshop
        self._rates = rates
        self._behaviour_for = behaviour_for
        self._clock = clock
        # Ids are never given twice, not even by the next process: their users keep them.
        self._run = secrets.token_hex(3)
        self._files: dict[str, _File] = {}
        self._keys: dict[str, Job] = {}
        self._calls: defaultdict[str, list[Job]] = defaultdict(list)
        self._turns: Counter[tuple[str, str]] = Counter()
        self._first_told: dict[str, datetime] = {}
        self._verdicts: dict[tuple[str, str], DialectReply] = {}
        self.works: dict[str, Job] = {}

    async def take(self, request: WorkRequest, fingerprint: str) -> HttpReply:
        """Answer a request for work.

        Args:
            fingerprint: tells another request under the same key from a repeated one.
        """
        file = self._file(request, fingerprint)
        behaviour = file.behaviour
        if file.fingerprint != fingerprint:
            return HttpReply(self._speech.trouble(409, "the idempotency key is of another request"))
        file.asked += 1
        if fault := behaviour.fault_before(file.asked - 1):
            return self._faulty(fault, behaviour, None)
        is_first = file.answer is None
        if file.answer is None:
            file.answer = asyncio.create_task(self._accept(request, behaviour))
        # Who hangs up must not take the answer from those who ask again.
        answer = await asyncio.shield(file.answer)
        if is_first:
            await asyncio.sleep(behaviour.receipt_delay_ms / 1000)
        if behaviour.refuse is not None:
            return HttpReply(answer)
        file.answered += 1
        if fault := behaviour.fault_after(file.answered - 1):
            return self._faulty(fault, behaviour, answer)
        is_mute = request.mode == "sync" and (behaviour.silent or behaviour.stuck)
        return HttpReply(answer, "mute" if is_mute else None)

    def find(self, whose: Whose) -> Job | None:
        """The work that is meant."""
        if whose.work_id is not None:
            return self.works.get(whose.work_id)
        if whose.key is not None:
            return self._keys.get(whose.key)
        return next(reversed(self.works_of(whose.call_id or "")), None)

    def works_of(self, call_id: str) -> Sequence[Job]:
        """The works of one call, in order."""
        return self._calls.get(call_id, ())

    def hurry(self, call_id: str) -> None:
        """Let all works of a call end their waiting."""
        for work in self.works.values():
            if whose(work.key, work.call_id)["call_id"] == call_id:
                self._workshop.hurry(work)

    def look(self, request: StatusRequest) -> HttpReply:
        """Answer how a work stands."""
        work = self.find(request.whose)
        if work is None or request.operation not in (None, work.operation):
            return HttpReply(self._speech.trouble(404, "there is no such work"))
        behaviour = work.behaviour
        if self._is_among_first("status", work.id, behaviour.status_failures):
            return self._faulty("error", behaviour, None)
        return HttpReply(self._speech.status(work))

    def hear(self, told: Acknowledgement) -> tuple[HttpReply, bool]:
        """Be told what became of our answer; the same again changes nothing.

        Returns:
            The reply, and whether the acknowledgement counts from now on.
        """
        work = self.find(told.whose)
        if work is None or told.operation not in (None, work.operation):
            return HttpReply(self._speech.trouble(404, "there is no such work")), False
        behaviour = work.behaviour
        if self._is_deaf(work):
            status = behaviour.acknowledgement_status
            if status == 429:
                return self._faulty("throttled", behaviour, None), False
            return HttpReply(self._speech.trouble(status, "not now"), "error"), False
        known = work.id, told.key or told.verdict
        is_new = known not in self._verdicts
        if is_new:
            self._verdicts[known] = self._speech.acknowledged(work, told.verdict)
            work.acknowledgements.append(
                JobAcknowledgement(self._clock(), told.verdict, told.key, told.body)
            )
            if told.verdict == "failed":
                self._workshop.given_up(work)
        if self._is_among_first("lost", work.id, behaviour.lost_acknowledgements):
            return self._faulty("error", behaviour, None), is_new
        return HttpReply(self._verdicts[known]), is_new

    def _file(self, request: WorkRequest, fingerprint: str) -> _File:
        file = self._files.get(request.key)
        if file is None:
            behaviour = (
                request.behaviour or self._behaviour_for(request) or self._rates.draw(request.key)
            )
            file = self._files[request.key] = _File(behaviour, fingerprint)
        return file

    async def _accept(self, request: WorkRequest, behaviour: Behaviour) -> DialectReply:
        if behaviour.refuse is not None:
            return self._speech.trouble(behaviour.refuse, behaviour.reason)
        call = whose(request.key, request.call_id)["call_id"] or request.key
        number = len(self.works) + 1
        work = Job(
            number=number,
            id=f"work_{self._run}_{number}",
            operation=request.operation,
            mode=request.mode,
            key=request.key,
            call_id=request.call_id,
            callback_url=request.callback_url,
            content=request.content,
            behaviour=behaviour,
            fails=self._is_among_first("fail", call, behaviour.fail),
        )
        self.works[work.id] = self._keys[work.key] = work
        self._calls[call].append(work)
        await self._workshop.begin(work)
        return self._speech.answer(work)

    def _faulty(self, fault: Fault, behaviour: Behaviour, answer: DialectReply | None) -> HttpReply:
        """The fault, with the answer that it spoils."""
        error = self._speech.trouble(behaviour.error_status, "try again")
        match fault:
            case "throttled":
                asked = {"retry-after": self._retry_after(behaviour)}
                answer = self._speech.trouble(429, "slower, please")
                answer = DialectReply(429, answer.body, {**answer.headers, **asked})
            case "error":
                answer = error
            case "malformed":
                answer = MALFORMED
            case _:
                answer = answer or error
        return HttpReply(answer, fault)

    def _retry_after(self, behaviour: Behaviour) -> str:
        if not behaviour.retry_after_date:
            return str(behaviour.retry_after)
        at = self._clock() + timedelta(seconds=behaviour.retry_after)
        return format_datetime(at, usegmt=True)

    def _is_deaf(self, work: Job) -> bool:
        """Whether no acknowledgement can be taken now."""
        behaviour = work.behaviour
        first = self._first_told.setdefault(work.id, self._clock())
        down_for = timedelta(milliseconds=behaviour.acknowledgement_down_ms)
        if self._clock() < first + down_for:
            return True
        return self._is_among_first("acknowledgement", work.id, behaviour.acknowledgement_failures)

    def _is_among_first(self, what: str, whose: str, times: int) -> bool:
        """Whether this is one of the first so many times that something happens to somebody."""
        self._turns[what, whose] += 1
        return self._turns[what, whose] <= times
