"""Send the request until there is a receipt, and look for answers before anything is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.activity_errors import from_attempt
from workflows.hosting.host import INTERRUPTED, Host, Step, StepError

from .cycles import CONTRADICTION, Cycle, Failure
from .notifications import Notifications
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import OutcomeCode, Stage, WaitingFor
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.plan import Plan, PollPlan, ResponseMode, ResultPlan
    from ackbridge.contracts.steps import (
        AskStep,
        CorrelateStep,
        CycleEnd,
        FailedAttempt,
        InboxMessages,
        LookStep,
        PollStep,
        ReconsiderStep,
        ResultStep,
        SendStep,
        Sent,
        StepFailure,
    )

FIRST_RETRY = timedelta(milliseconds=500)
LONGEST_RETRY = timedelta(minutes=5)

MISSING_WITHIN = timedelta(hours=24)
"""How long a request waits for a worker that has what it needs."""


@dataclass
class Attempts:
    """The attempts to send in one round.

    Attributes:
        number: how many were made; those for which a worker lacked something do not count.
        first_at: when the first one began, or failed where that is not known; the time of all
            begins anew when workers have what they lacked.
        missing_since: since when workers lack something, as the last result says.
        held_since: since when the request is held back, without an attempt in between.
        last: the error of the last one.
    """

    number: int = 0
    first_at: datetime | None = None
    missing_since: datetime | None = None
    held_since: datetime | None = None
    last: StepError | None = None

    @property
    def reason(self) -> str | None:
        """Why the last one failed."""
        return self.last.reason if self.last is not None else None

    def add(self, error: StepError, now: datetime) -> StepError:
        """Count a failed attempt; an error that says less than the one before keeps that one."""
        if error.kind == StepFailure.MISSING:
            # No attempt was made.
            self.missing_since = self.missing_since or now
            self.first_at, self.held_since, self.last = None, None, error
            error.attempts = 0
            return error
        was_missing, self.missing_since = self.missing_since is not None, None
        if error.kind == StepFailure.HELD_BACK:
            # No attempt was made.
            self.held_since = self.held_since or now
            error.attempts = 0
            return error
        self.held_since = None
        if self.last is not None and _says_less(error, was_missing=was_missing):
            error = _followed(self.last, error)
        elif error.kind == StepFailure.NOT_NOW:
            error.attempts = 0
        else:
            self.number += error.attempts
        self.first_at = self.first_at or now
        self.last = error
        return error


def _says_less(error: StepError, *, was_missing: bool) -> bool:
    """Whether an error only says that there was no attempt; the one before it says why."""
    if error.kind == StepFailure.UNAVAILABLE:
        return not error.attempts
    return error.kind == StepFailure.NOT_NOW and not was_missing


def _followed(last: StepError, error: StepError) -> StepError:
    """The error of the last attempt, with what has kept back the next one."""
    is_not_now = error.kind == StepFailure.NOT_NOW
    then = error.reason if is_not_now else "no worker could take it up in time"
    return StepError(
        last.kind,
        f"{last.reason.partition('; then ')[0]}; then {then}"[:MAX_ERROR_LENGTH],
        attempts=0,
        code=last.code,
        retry_after=error.retry_after,
    )


class Sending:
    """Everything a call sends to its provider but acknowledgements.

    Messages that come back are added to those of the call.
    """

    def __init__(
        self, host: Host, state: CallState, plan: Plan, notifications: Notifications
    ) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._notifications = notifications

    async def send(
        self, cycle: Cycle, first_attempt: Sent | FailedAttempt | None = None
    ) -> Sent | Failure:
        """Send under the cycle's key until there is a receipt; see `ReadyToSend`."""
        self._state.enter(Stage.SENDING)
        attempts = Attempts()
        try:
            return await self._send(cycle, attempts, first_attempt)
        finally:
            attempts.missing_since = None

    async def _send(
        self, cycle: Cycle, attempts: Attempts, first_attempt: Sent | FailedAttempt | None
    ) -> Sent | Failure:
        result: Sent | StepError | None = None
        match first_attempt:
            case Sent():
                result = first_attempt
            case FailedAttempt():
                if first_attempt.kind != StepFailure.HELD_BACK:
                    attempts.first_at = self._state.timings.started_at
                result = from_attempt(first_attempt)
        while True:
            if result is None:
                forbidden = self.forbids(cycle)
                if forbidden is not None:
                    return forbidden
                result = await self._attempt(cycle, attempts)
            if isinstance(result, Sent):
                await self._received(cycle, result)
                return result
            error = self._failed(cycle, attempts, result)
            again_at = self._next_attempt_at(cycle, attempts, error)
            if again_at is None or await self._pause(again_at, error):
                return self._not_received(cycle, error)
            result = None

    def forbids(self, cycle: Cycle) -> Failure | None:
        """Why no request may be sent under the key of a cycle, if it may not."""
        if (expiry := self.expiry()) is not None:
            return expiry
        if cycle.was_sent and not self._plan.repeatable:
            reason = "the request may have arrived, and must not be repeated"
            return Failure(reason, OutcomeCode.NO_RECEIPT, may_come_late=True)
        return None

    def expiry(self) -> Failure | None:
        """Why no request may be sent any more, if it has expired."""
        expires_at = self._state.request.expires_at
        if expires_at is None or self._host.now() < expires_at:
            return None
        reason = f"the request expired at {expires_at:%Y-%m-%d %H:%M:%S %Z}"
        return Failure(reason, OutcomeCode.EXPIRED, may_come_late=self._state.cycles.was_sent)

    async def _attempt(self, cycle: Cycle, attempts: Attempts) -> Sent | StepError:
        state, plan = self._state, self._plan.send
        lacks = attempts.missing_since is not None
        step, queue_within = self._next_step(cycle, attempts)
        argument = SendStep(
            request=state.request,
            cycle=cycle.number,
            tried=attempts.number,
            first_tried_at=attempts.first_at,
            reached=cycle.was_sent,
            ended=state.cycles.take_ended(),
            queue_within=queue_within if plan.leased and not lacks else None,
            missing=lacks,
            answered=state.cycles.counted.answered,
            failed=state.cycles.counted.failed,
        )
        try:
            return await self._host.perform(
                state.request.provider, step, argument, self._is_needless
            )
        except StepError as error:
            return error

    def _next_step(self, cycle: Cycle, attempts: Attempts) -> tuple[Step[Sent], timedelta]:
        """The step of the next attempt, which is shown, and how long it may wait for a worker."""
        state, plan, now = self._state, self._plan.send, self._host.now()
        since, queue_within = attempts.missing_since, plan.queue_within
        if since is not None:
            is_delayed = now >= since + steps.DELAYED_AFTER
            state.wait_for(WaitingFor.DEPENDENCY, detail=attempts.reason, is_delayed=is_delayed)
            until = since + MISSING_WITHIN
            left = min(until, state.request.expires_at or until) - now
            return steps.send_when_possible(self._plan, cycle.number, queue_within, left), left
        if attempts.first_at is not None:
            # After the first attempt, waiting for a worker is part of the time of all of them.
            left = max(attempts.first_at + plan.within - now, timedelta(seconds=1))
            queue_within = min(queue_within, left)
        state.wait_for(*self._why_queued())
        return steps.send(self._plan, cycle.number, queue_within), queue_within

    def _why_queued(self) -> tuple[WaitingFor, None, str | None]:
        standing = self._plan.standing
        if standing is not None and standing.throttled:
            return WaitingFor.RATE_LIMIT, None, str(standing)
        return WaitingFor.WORKER, None, None

    def _failed(self, cycle: Cycle, attempts: Attempts, error: StepError) -> StepError:
        was_missing = attempts.missing_since is not None
        error = attempts.add(error, self._host.now())
        if attempts.missing_since is not None and not was_missing:
            self._host.run_in_background(self._notify_of_delay(attempts))
        self._state.attempts += error.attempts
        self._state.last_error = error.reason
        if error.attempts and error.kind in (StepFailure.REFUSED, StepFailure.UNREADABLE):
            self._state.cycles.count(answered=True)
        elif error.attempts and error.kind == StepFailure.NO_RECEIPT and not error.throttled:
            self._state.cycles.count(failed=True)
        if error.reached:
            cycle.mark_sent(self._host.now())
        return error

    async def _notify_of_delay(self, attempts: Attempts) -> None:
        """Notify those who wait that this takes longer, while workers lack something."""
        state = self._state
        until = self._host.now() + steps.DELAYED_AFTER
        summary = "callers wait until then"
        if await self._host.wait(lambda: attempts.missing_since is None, until, summary):
            return
        state.delay(self._plan.notices.get("delayed"), None)
        state.wait_for(WaitingFor.DEPENDENCY, detail=attempts.reason, is_delayed=True)
        self._notifications.delayed(state.notice)

    def _next_attempt_at(
        self, cycle: Cycle, attempts: Attempts, error: StepError
    ) -> datetime | None:
        """When the request is sent again; None: not in this round."""
        if self._is_needless() or (cycle.was_sent and not self._plan.repeatable):
            return None
        if error.kind == StepFailure.NOT_NOW and not cycle.was_sent:
            return None
        # It answers this attempt; one before it may have arrived.
        is_doubtful_refusal = error.kind == StepFailure.REFUSED and cycle.was_sent
        if error.retry_after is None and not is_doubtful_refusal:
            return None
        now, first_at, plan = self._host.now(), attempts.first_at, self._plan.send
        expires_at, missing_since = self._state.request.expires_at, attempts.missing_since
        if missing_since is not None and error.retry_after is not None:
            at = now + error.retry_after
            return min(at, expires_at or at) if at <= missing_since + MISSING_WITHIN else None
        if error.kind == StepFailure.HELD_BACK and attempts.held_since and error.retry_after:
            at = now + error.retry_after
            last = first_at + plan.within if first_at else attempts.held_since + plan.queue_within
            return at if at <= last else None
        backoff = min(FIRST_RETRY * 2 ** min(max(attempts.number - 1, 0), 16), LONGEST_RETRY)
        at = now + (error.retry_after or backoff)
        if attempts.number >= plan.attempts or at > (first_at or now) + plan.within:
            return None
        return min(at, expires_at or at)

    async def _pause(self, until: datetime, error: StepError) -> bool:
        """Wait for the next attempt; true if it is not needed any more."""
        self._state.wait_for(_WAITS.get(error.kind, WaitingFor.RETRY), until, error.reason)
        return await self._host.wait(self._is_needless, until, f"retry send: {error.reason}")

    def _is_needless(self) -> bool:
        """Whether another attempt is needless: an operator interrupts, or the provider answers."""
        return bool(self._state.messages) or self._state.operator_requests.interrupts_work()

    async def _received(self, cycle: Cycle, sent: Sent) -> None:
        state = self._state
        was_sent = cycle.was_sent
        state.cycles.count(answered=True)
        known = sent if sent.deadline is not None else self._plan
        state.receipt_arrived(
            sent, known.deadline or timedelta(0), known.deadline_reason or "", known.delayed_after
        )
        is_dated = not (sent.again or was_sent)
        cycle.mark_sent(self._host.now(), state.timings.sent_at if is_dated else None)
        cycle.reference = sent.reference or cycle.reference
        cycle.kept |= sent.kept
        state.attempts += sent.attempt
        state.reference = cycle.reference
        state.receipt = sent.receipt if sent.receipt is not None else state.receipt
        for message in sent.messages:
            state.messages.add(message)
        if sent.uncorrelated:
            state.enter(Stage.AWAITING_RESPONSE)
            state.wait_for(WaitingFor.DEPENDENCY, detail="the ledger: to commit the reference")
            await self._read_inbox(steps.CORRELATE, cycle)

    def _not_received(self, cycle: Cycle, error: StepError) -> Failure:
        """Tell apart what was never sent, what was refused, and what may have arrived."""
        code = _CODES.get(error.kind, OutcomeCode.NOT_SENT)
        if code is OutcomeCode.UNREADABLE:
            cycle.mark_sent(self._host.now())
        elif code is OutcomeCode.REFUSED and not cycle.was_sent:
            cycle.refuse()
        elif code in (OutcomeCode.NOT_SENT, OutcomeCode.BREAKER_OPEN) and cycle.was_sent:
            code = OutcomeCode.NO_RECEIPT
        return Failure(
            error.reason,
            code,
            error.code,
            may_come_late=cycle.was_sent,
            is_held_back=code is OutcomeCode.BREAKER_OPEN,
            is_interrupted=self._is_needless(),
        )

    # Before something is given up

    async def look_when_refused(self) -> None:
        """Read the inbox, and let in what has arrived during the workflow task of the sending."""
        if self._plan.send.looks_when_refused:
            await self._read_inbox(steps.LOOK_INBOX, None)

    async def look(self, timed_out: Cycle | None = None) -> bool:
        """Look for an answer in the inbox; without one, ask the provider.

        Args:
            timed_out: the cycle whose deadline has passed, which counts as a silence if the last
                of these steps does not find an answer either.

        Returns:
            Whether the provider has answered for every cycle that it may be working on.
        """
        asks = self._plan.ask_status
        if self._plan.mode is not ResponseMode.SYNC:
            await self._read_inbox(steps.LOOK_INBOX, None, None if asks else timed_out)
        if self._state.messages or not asks:
            return bool(self._state.messages)
        cycles = self._state.cycles.uncertain
        return all([await self.ask_status(one, is_silence=one is timed_out) for one in cycles])

    def _silence(self, cycle: Cycle | None) -> CycleEnd | None:
        if cycle is None:
            return None
        state = self._state
        return state.cycles.silence(cycle, state.timings.sent_at, self._host.now())

    async def _read_inbox(
        self, step: Step[InboxMessages], correlated: Cycle | None, timed_out: Cycle | None = None
    ) -> None:
        """Read all messages; nothing is decided before the ledger has answered."""
        state, has_more, silence = self._state, True, self._silence(timed_out)
        while has_more:
            seen = state.messages.last_seen
            argument: CorrelateStep | LookStep = LookStep(
                request=state.request,
                references=state.cycles.references,
                seen=seen,
                silence=silence,
            )
            if correlated is not None:
                argument = CorrelateStep(
                    request=state.request, reference=correlated.reference, seen=seen
                )
            try:
                inbox = await self._host.perform(state.request.provider, step, argument)
            except StepError as error:
                state.last_error = error.reason
                return
            for message in inbox.messages:
                state.messages.add(message)
            if timed_out is not None and silence is not None and not inbox.messages:
                state.cycles.silence_counted(timed_out, silence)
            has_more, silence = inbox.more and bool(inbox.messages), None

    async def ask_status(
        self, cycle: Cycle, why: str = steps.NO_RESPONSE, *, is_silence: bool = False
    ) -> bool:
        """Ask the provider for the status of its work; false if it does not answer.

        Args:
            is_silence: the cycle's deadline has passed; see `look`.
        """
        silence = self._silence(cycle) if is_silence else None
        try:
            message = await self.ask(cycle, why, silence)
        except StepError as error:
            self._state.last_error = error.reason
            self._state.ask_later(error.retry_after)
            return False
        if message is not None:
            self._state.messages.add(message)
        elif silence is not None:
            self._state.cycles.silence_counted(cycle, silence)
        return True

    async def ask(
        self, cycle: Cycle, why: str = steps.NO_RESPONSE, silence: CycleEnd | None = None
    ) -> ProviderMessage | None:
        """Ask the provider for the status of its work, once.

        Args:
            why: it is asked, for the Temporal UI.
            silence: counted if the provider has no answer.

        Raises:
            StepError: it does not answer.
        """
        asked = await self._host.perform(
            self._state.request.provider,
            steps.ask_status(self._plan, why),
            AskStep(
                request=self._state.request,
                cycle=cycle.number,
                reference=cycle.reference,
                kept=cycle.kept,
                silence=silence,
            ),
            self._state.operator_requests.interrupts_work,
        )
        cycle.kept |= asked.kept
        self._state.ask_later(asked.retry_after)
        return asked.message

    async def fetch_result(
        self, plan: ResultPlan, cycle: Cycle, message: ProviderMessage
    ) -> ProviderMessage:
        """Fetch the result of work that is done; whoever waits is told when that takes long.

        Raises:
            StepError: it cannot be fetched.
        """
        state = self._state
        step = ResultStep(
            request=state.request,
            cycle=cycle.number,
            reference=cycle.reference,
            message=message,
            kept=cycle.kept,
        )
        within = plan.within
        if within > steps.ASK_WITHIN:
            try:
                return await self._fetch(plan, steps.ASK_WITHIN, step)
            except StepError as error:
                if error.kind == INTERRUPTED or error.retry_after is None:
                    raise
                state.last_error = error.reason
            state.delay(self._plan.notices.get("delayed"), None)
            state.wait_for(WaitingFor.RESPONSE, detail=state.last_error, is_delayed=True)
            within -= steps.ASK_WITHIN
        return await self._fetch(plan, within, step)

    async def _fetch(
        self, plan: ResultPlan, within: timedelta, step: ResultStep
    ) -> ProviderMessage:
        fetched = await self._host.perform(
            self._state.request.provider,
            steps.fetch_result(plan, within),
            step,
            self._state.operator_requests.interrupts_work,
        )
        return fetched.message or step.message

    async def may_reprocess(self) -> bool:
        """Whether the request of a parked call may be sent now; the status says why not."""
        problem = await self._problem_of_reprocessing()
        if problem is not None:
            self._state.last_error = f"not reprocessed: {problem}"
            self._state.show()
        return problem is None

    async def _problem_of_reprocessing(self) -> str | None:
        state, cycle = self._state, self._state.cycles.current
        if (expiry := self.expiry()) is not None:
            return expiry.reason
        if state.owes_failed_acknowledgement and self._plan.undoes:
            return "a failed acknowledgement is owed"
        if state.cycles.is_contradicted:
            return CONTRADICTION
        if cycle.was_sent and not cycle.is_spent:
            problem = await self.problem_of_repeating(cycle)
            if problem is not None:
                return problem
        return await self._check_admission()

    async def problem_of_repeating(self, cycle: Cycle) -> str | None:
        """Why a request that may have arrived must not be sent again, if it must not.

        Where that depends on the provider, it is asked.
        """
        state = self._state
        retention, first_sent_at = self._plan.key_retention, cycle.first_sent_at
        is_forgotten = (
            retention is not None
            and first_sent_at is not None
            and self._host.now() >= first_sent_at + retention
        )
        if self._plan.repeatable and not is_forgotten:
            return None
        has_answered = await self.look()
        if state.messages:
            return "an answer has arrived meanwhile"
        if not self._plan.repeatable:
            return "the request may have arrived, and must not be repeated"
        if not (has_answered and self._plan.ask_status):
            return "the provider may have forgotten the idempotency key"
        return None

    async def _check_admission(self) -> str | None:
        """Check flags and breaker again; why a parked call may not be sent, if it may not."""
        state = self._state
        try:
            standing = await self._host.perform(
                state.request.provider,
                steps.RECONSIDER,
                ReconsiderStep(request=state.request),
                state.operator_requests.is_cancelled,
            )
        except StepError as error:
            return error.reason
        state.standing = str(standing)
        return standing.not_now

    def start_polling(self, cycle: Cycle) -> PollLoop | None:
        """Start asking for the response in the background, where the operation is polled."""
        if self._plan.poll is None or self._state.messages.has_response:
            return None
        polling = PollLoop(self._host, self._state, self._plan.poll, cycle)
        self._host.run_in_background(polling.run())
        return polling


_WAITS: dict[str, WaitingFor] = {
    StepFailure.MISSING: WaitingFor.DEPENDENCY,
    StepFailure.HELD_BACK: WaitingFor.RATE_LIMIT,
}

_CODES = {
    StepFailure.REFUSED: OutcomeCode.REFUSED,
    StepFailure.UNREADABLE: OutcomeCode.UNREADABLE,
    StepFailure.EXPIRED: OutcomeCode.EXPIRED,
    StepFailure.NOT_NOW: OutcomeCode.BREAKER_OPEN,
    StepFailure.NO_RECEIPT: OutcomeCode.NO_RECEIPT,
    INTERRUPTED: OutcomeCode.NO_RECEIPT,
}


class PollLoop:
    """Asks for the response of one cycle until it is there, it is too late, or it is stopped."""

    def __init__(self, host: Host, state: CallState, plan: PollPlan, cycle: Cycle) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._cycle = cycle
        self._is_stopped = False

    def stop(self) -> None:
        """The response is not awaited any more."""
        self._is_stopped = True

    async def run(self) -> None:
        """Ask; an answer becomes a message like any other."""
        state, answered = self._state, list[str]()
        if self._plan.first_after > timedelta(0):
            until = self._host.now() + self._plan.first_after
            await self._host.wait(lambda: self._is_stopped, until, "a callback may come first")
        while not self._is_stopped and (left := self._time_left()) is not None:
            message = await self._ask(left, tuple(answered))
            if message is None:
                # Asking again at once would change nothing.
                until = self._host.now() + self._plan.every
                await self._host.wait(lambda: self._is_stopped, until, "pause between polls")
                continue
            state.messages.add(message)
            if message.kind is not MessageKind.EXTENSION:
                return
            answered.append(message.event_key)
            # Handling it moves the deadline.
            await self._host.wait(lambda: not state.messages or self._is_stopped, None)

    async def _ask(self, left: timedelta, answered: tuple[str, ...]) -> ProviderMessage | None:
        step = PollStep(
            request=self._state.request,
            cycle=self._cycle.number,
            reference=self._cycle.reference,
            every=self._plan.every,
            answered=answered,
            kept=self._cycle.kept,
        )
        try:
            asked = await self._host.perform(
                self._state.request.provider,
                steps.poll(self._plan, left),
                step,
                interrupted=lambda: self._is_stopped,
            )
        except StepError:
            return None
        self._cycle.kept |= asked.kept
        return asked.message

    def _time_left(self) -> timedelta | None:
        deadline = self._state.deadline
        left = deadline - self._host.now() if deadline else timedelta(0)
        return left if left > timedelta(0) else None
