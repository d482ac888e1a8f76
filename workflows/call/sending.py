"""The line to the provider: sending until there is a receipt, asking, and asking regularly."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import INTERRUPTED, FirstAttempt, StepError

from .cycles import Cycle
from .round_result import NoResponse
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import Stage
    from ackbridge.contracts.limits import MAX_ERROR_LENGTH
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.plan import PollPlan
    from ackbridge.contracts.steps import (
        AskStep,
        FailedAttempt,
        PollStep,
        SendStep,
        Sent,
        StepFailure,
    )


class Sending:
    """What a call says to its provider, but for acknowledgements; what it hears is heard."""

    def __init__(self, state: CallState, first: Sent | FailedAttempt | None = None) -> None:
        """Take up the line.

        Args:
            first: what became of the request that rode along with `prepare`, if it did.
        """
        self._state = state
        self._first = first

    @property
    def has_sent_along(self) -> bool:
        """Whether the first request went out with `prepare`, and has not been looked at."""
        return self._first is not None

    async def send(self, cycle: Cycle, *, local: bool) -> NoResponse | None:
        """Send under the cycle's key until the provider has it. None: there is a receipt.

        Args:
            local: whether the request may ride in the workflow task. It is forgotten if that is
                lost: `prepare` can tell, if it is done again. Any other is scheduled first.
        """
        state = self._state
        state.enter(Stage.SENDING)
        local = local or not state.is_revised
        try:
            sent = await self._sent(cycle, local=local)
        except StepError as failure:
            return self._not_received(cycle, failure)
        state.progress.received(sent, state.plan)
        cycle.sent(None if sent.again else state.progress.timings.sent_at)
        cycle.reference = sent.reference or cycle.reference
        state.progress.attempts += sent.attempt
        state.progress.reference = cycle.reference
        for message in sent.messages:
            state.hearing.hear(message)
        return None

    async def _sent(self, cycle: Cycle, *, local: bool) -> Sent:
        state = self._state
        first, self._first = self._first, None
        if isinstance(first, Sent):
            return first
        step = steps.send(state.plan, cycle.number, local=local)
        ended = state.cycles.take_ends()
        argument = SendStep(request=state.request, cycle=cycle.number, ended=ended)
        provider, overtaken = state.request.provider, self._is_overtaken
        if first is None:
            return await state.host.perform(provider, step, argument, interrupted=overtaken)
        tried = FirstAttempt(
            StepError(first.kind, first.reason[:MAX_ERROR_LENGTH], reached=first.reached),
            first.again_after,
            state.progress.timings.started_at,
        )
        return await state.host.go_on(provider, step, argument, tried, interrupted=overtaken)

    def _is_overtaken(self) -> bool:
        """Whether another attempt is needless: an order came, or the provider speaks already."""
        state = self._state
        is_heard = bool(state.hearing) and state.is_revised
        return is_heard or state.orders.interrupts_work()

    def _not_received(self, cycle: Cycle, failure: StepError) -> NoResponse:
        """Tell apart what never left us, what was refused, and what may have arrived."""
        state = self._state
        state.progress.attempts += failure.attempts
        state.progress.last_error = failure.reason
        if failure.kind == StepFailure.REFUSED:
            return self._refused(cycle, failure)
        if failure.reached:
            cycle.sent()
        if failure.kind not in (StepFailure.NO_RECEIPT, INTERRUPTED) and not cycle.is_open:
            return NoResponse(failure.reason, "not_sent")
        return NoResponse(failure.reason, "no_receipt", may_come_late=cycle.was_sent)

    def _refused(self, cycle: Cycle, failure: StepError) -> NoResponse:
        """A refusal is about the attempt it answers; one before it may have been taken."""
        if (failure.reached or cycle.is_open) and self._state.is_revised:
            # The key stays good: under another one it could be done twice.
            cycle.sent()
        else:
            cycle.spend()
        return NoResponse(failure.reason, "refused", notice="refused")

    async def ask(self, cycle: Cycle) -> None:
        """Ask the provider once before giving up on it."""
        state = self._state
        try:
            asked = await state.host.perform(
                state.request.provider,
                steps.ask_status(state.plan),
                AskStep(request=state.request, cycle=cycle.number, reference=cycle.reference),
                interrupted=state.orders.interrupts_work,
            )
        except StepError as failure:
            state.progress.last_error = failure.reason
            return
        if asked.message is not None:
            state.hearing.hear(asked.message)

    def keep_asking(self, cycle: Cycle) -> PollLoop | None:
        """Start asking regularly, beside the call, where the operation is asked for its answers."""
        poll = self._state.plan.poll
        if poll is None:
            return None
        polling = PollLoop(self._state, cycle, poll)
        self._state.host.begin(polling.run())
        return polling


class PollLoop:
    """Asks about one cycle until it has an answer, its deadline has come, or it is stopped."""

    def __init__(self, state: CallState, cycle: Cycle, poll: PollPlan) -> None:
        self._state = state
        self._cycle = cycle
        self._poll = poll
        self._is_stopped = False

    def stop(self) -> None:
        """Nobody waits for an answer any more."""
        self._is_stopped = True

    async def run(self) -> None:
        """Ask; what is answered is heard like every other message."""
        state, answered = self._state, list[str]()
        while not self._is_stopped and (left := self._left()) is not None:
            message = await self._ask(left, tuple(answered))
            if message is None:
                # Nothing that asking again at once would change.
                await self._pause()
                continue
            state.hearing.hear(message)
            if message.kind is not MessageKind.EXTENSION:
                return
            answered.append(message.event_key)
            # It moves the deadline when it is dealt with.
            await state.host.wait(lambda: not state.hearing or self._is_stopped, None, "")

    async def _ask(self, left: timedelta, answered: tuple[str, ...]) -> ProviderMessage | None:
        state = self._state
        step = PollStep(
            request=state.request,
            cycle=self._cycle.number,
            reference=self._cycle.reference,
            every=self._poll.every,
            answered=answered,
        )
        try:
            asked = await state.host.perform(
                state.request.provider,
                steps.poll(self._poll, left),
                step,
                interrupted=lambda: self._is_stopped,
            )
        except StepError:
            return None
        return asked.message

    async def _pause(self) -> None:
        until = self._state.host.now() + self._poll.every
        await self._state.host.wait(lambda: self._is_stopped, until, "before asking again")

    def _left(self) -> timedelta | None:
        deadline = self._state.progress.deadline
        left = deadline - self._state.host.now() if deadline else timedelta(0)
        return left if left > timedelta(0) else None
