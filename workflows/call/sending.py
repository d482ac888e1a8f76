"""Send the request until there is a receipt, and ask the provider for the status of its work."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import INTERRUPTED, FirstAttempt, Host, StepError

from .cycles import Cycle, Failure
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Stage
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.plan import Plan, PollPlan
    from ackbridge.contracts.steps import (
        AskStep,
        FailedAttempt,
        PollStep,
        ReconsiderStep,
        SendStep,
        Sent,
        StepFailure,
    )


class Sending:
    """Everything a call sends to its provider but acknowledgements.

    Messages that come back are added to those of the call.
    """

    def __init__(self, host: Host, state: CallState, plan: Plan) -> None:
        self._host = host
        self._state = state
        self._plan = plan

    async def send(
        self, cycle: Cycle, *, local: bool, first_attempt: Sent | FailedAttempt | None
    ) -> Sent | Failure:
        """Send under the cycle's key until there is a receipt; see `ReadyToSend`."""
        self._state.enter(Stage.SENDING)
        try:
            sent = await self._send(cycle, first_attempt, local=local)
        except StepError as error:
            return self._not_received(cycle, error)
        self._received(cycle, sent)
        return sent

    async def _send(
        self, cycle: Cycle, first_attempt: Sent | FailedAttempt | None, *, local: bool
    ) -> Sent:
        if isinstance(first_attempt, Sent):
            return first_attempt
        state, provider = self._state, self._state.request.provider
        step = steps.send(self._plan, cycle.number, local=local)
        ended = state.cycles.take_ended()
        argument = SendStep(request=state.request, cycle=cycle.number, ended=ended)
        if first_attempt is None:
            return await self._host.perform(provider, step, argument, self._is_needless)
        error = StepError(
            first_attempt.kind,
            first_attempt.reason[:MAX_ERROR_LENGTH],
            reached=first_attempt.reached,
        )
        first = FirstAttempt(error, first_attempt.again_after, state.timings.started_at)
        return await self._host.resume_after_first_attempt(
            provider, step, argument, first, self._is_needless
        )

    def _is_needless(self) -> bool:
        """Whether another attempt is needless: an operator interrupts, or the provider answers."""
        return bool(self._state.messages) or self._state.operator_requests.interrupts_work()

    def _received(self, cycle: Cycle, sent: Sent) -> None:
        state = self._state
        state.receipt_arrived(sent, self._plan.deadline, self._plan.deadline_reason)
        cycle.mark_sent(None if sent.again else state.timings.sent_at)
        cycle.reference = sent.reference or cycle.reference
        state.attempts += sent.attempt
        state.reference = cycle.reference
        for message in sent.messages:
            state.messages.add(message)

    def _not_received(self, cycle: Cycle, error: StepError) -> Failure:
        """Tell apart what was never sent, what was refused, and what may have arrived."""
        self._state.attempts += error.attempts
        self._state.last_error = error.reason
        if error.kind == StepFailure.REFUSED:
            return self._refused(cycle, error)
        if error.reached:
            cycle.mark_sent()
        if error.kind not in (StepFailure.NO_RECEIPT, INTERRUPTED) and not cycle.is_open:
            return Failure(error.reason, "not_sent")
        return Failure(error.reason, "no_receipt", may_come_late=cycle.was_sent)

    def _refused(self, cycle: Cycle, error: StepError) -> Failure:
        """A refusal answers one attempt; the provider may have taken one before it."""
        if error.reached or cycle.is_open:
            # The key stays in use: under another one the work could be done twice.
            cycle.mark_sent()
        else:
            cycle.spend_key()
        return Failure(error.reason, "refused", notice="refused")

    async def ask_status(self, cycle: Cycle) -> None:
        """Ask the provider once for the status of its work."""
        try:
            asked = await self._host.perform(
                self._state.request.provider,
                steps.ask_status(self._plan),
                AskStep(request=self._state.request, cycle=cycle.number, reference=cycle.reference),
                self._state.operator_requests.interrupts_work,
            )
        except StepError as error:
            self._state.last_error = error.reason
            return
        if asked.message is not None:
            self._state.messages.add(asked.message)

    async def check_admission(self) -> bool:
        """Check flags and breaker again; whether a parked call may be sent."""
        state = self._state
        try:
            standing = await self._host.perform(
                state.request.provider,
                steps.RECONSIDER,
                ReconsiderStep(request=state.request),
                state.operator_requests.is_cancelled,
            )
        except StepError as error:
            not_now: str | None = error.reason
        else:
            state.standing = str(standing)
            not_now = standing.not_now
        if not_now is not None:
            state.last_error = f"not reprocessed: {not_now}"
            state.show()
        return not_now is None

    def start_polling(self, cycle: Cycle) -> PollLoop | None:
        """Start asking for the response in the background, where the operation is polled."""
        if self._plan.poll is None:
            return None
        polling = PollLoop(self._host, self._state, self._plan.poll, cycle)
        self._host.run_in_background(polling.run())
        return polling


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
        return asked.message

    def _time_left(self) -> timedelta | None:
        deadline = self._state.deadline
        left = deadline - self._host.now() if deadline else timedelta(0)
        return left if left > timedelta(0) else None
