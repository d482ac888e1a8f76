"""Talking with the provider: rounds of sending and listening, until something decides the call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

from . import steps
from .capture import Capture
from .cycles import Cycle
from .endings import Heard, Unanswered
from .host import Renewal
from .line import Line
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        AcknowledgementKind,
        AcknowledgeStep,
        CallMemory,
        CallOutcome,
        ConcludeStep,
        MessageKind,
        OnFailure,
        OutcomeStatus,
        ProviderMessage,
        Stage,
    )
    from ackbridge.contracts.search import IN_FLIGHT


def _nothing() -> bool:
    return False


class Conversation:
    """Everything between a plan and an outcome."""

    def __init__(
        self, state: CallState, memory: CallMemory | None = None, *, repeated: bool = False
    ) -> None:
        """Take the call up.

        Args:
            memory: of the parked call that this run continues.
            repeated: as in `Prepared`.
        """
        self._state = state
        self._line = Line(state)
        self._capture = Capture(state)
        # Rounds in which a response was awaited; a key that is not spent serves for several.
        self._rounds = memory.rounds if memory else 0
        self._parked = Unanswered(**memory.parked.model_dump()) if memory else None
        self._may_have_sent = repeated and state.plan.send.local

    async def hold(self) -> CallOutcome:
        """Rounds, and parking, until there is an outcome.

        Raises:
            Renewal: the call is parked and asks to continue as new.
        """
        ending = await self._first()
        while True:
            if ending is Heard.ANSWER:
                return await self._confirm()
            if ending is Heard.CANCEL:
                return await self._end_cancelled()
            if not isinstance(ending, Unanswered) or self._may_try_again(ending):
                ending = await self._round()
            elif (stay := self._stays_open(ending)) is not None:
                ending = await self._park(ending, stay)
            else:
                return await self._give_up(ending)

    async def conclude(self, stage: Stage, reason: str | None) -> None:
        """Keep in the ledger where the call stands, with what was suppressed."""
        state = self._state
        await state.host.perform(
            state.request.provider,
            steps.CONCLUDE,
            ConcludeStep(
                request=state.request,
                stage=stage,
                reason=reason,
                outcome=state.progress.outcome,
                suppressed=state.hearing.take_suppressed(),
                held=state.hearing.take_held(),
            ),
        )

    def memory(self) -> CallMemory:
        """For the run that continues this one, while the call is parked."""
        state, parked = self._state, self._parked
        if parked is None:
            raise RuntimeError("only a parked call continues as new")
        return CallMemory(
            plan=state.plan,
            status=state.progress.status(state.settlement.owed, state.hearing.duplicates),
            timings=state.progress.timings,
            cycles=state.cycles.memory(),
            rounds=self._rounds,
            parked=parked.memory(),
            hearing=state.hearing.memory(),
            debts=state.settlement.memory(),
            cancelled=state.orders.cancelled,
            forced=state.orders.forced,
            reprocess=state.orders.reprocess,
        )

    async def _first(self) -> Heard | Unanswered:
        if self._parked is not None:
            return await self._stay_parked(self._parked)
        if self._state.plan.not_now:
            return Unanswered(self._state.plan.not_now, "switched_off", notice="refused")
        if self._state.orders.interrupts_work():
            if self._may_have_sent:
                self._state.cycles.current.sent()
            return await self._listen(self._state.host.now(), "")
        return await self._send_and_listen()

    def _may_try_again(self, ending: Unanswered) -> bool:
        rounds = max(self._rounds, self._state.cycles.current.number)
        return ending.again and rounds < self._state.plan.cycles

    async def _round(self) -> Heard | Unanswered:
        """Another round, unless what has been heard meanwhile makes it needless."""
        if self._state.is_roused and self._state.host.is_revised():
            ending = await self._listen(self._state.host.now(), "")
            if ending is not Heard.SILENCE:
                return ending
        return await self._send_and_listen()

    async def _send_and_listen(self) -> Heard | Unanswered:
        """Send, and listen until the deadline; what remains open is acknowledged as failed."""
        state = self._state
        state.progress.wait_no_longer()
        cycle = state.cycles.next()
        state.progress.cycle = cycle.number
        not_received = await self._line.send(cycle)
        if not_received is None:
            ending = await self._await_response(cycle)
        else:
            ending = await self._listen(state.host.now(), "")
            if ending is Heard.SILENCE and state.progress.stage is not Stage.AWAITING_RESPONSE:
                return not_received
        if ending is Heard.SILENCE:
            ending = await self._ask(cycle)
        if ending is Heard.SILENCE:
            reason = f"no response within {state.progress.deadline_reason}"
            ending = Unanswered(reason, "no_response", again=True, may_come_late=True)
        if isinstance(ending, Unanswered):
            state.progress.last_error = ending.reason
            if not_received is None or state.host.is_revised():
                await self._acknowledge_failed(ending.reason)
        return ending

    async def _await_response(self, cycle: Cycle) -> Heard | Unanswered:
        """Wait for what the provider says, or keep asking for it."""
        state = self._state
        self._rounds += 1
        state.enter(Stage.AWAITING_RESPONSE)
        polling = self._line.keep_asking(cycle)
        until = state.progress.deadline or state.host.now()
        ending = await self._listen(until, f"response deadline {state.plan.deadline_reason}")
        if polling is not None:
            polling.stop()
        return ending

    async def _ask(self, cycle: Cycle) -> Heard | Unanswered:
        """Ask the provider once before giving up on it."""
        state = self._state
        if not state.plan.ask_status:
            return Heard.SILENCE
        await self._line.ask(cycle)
        deadline = state.progress.deadline or state.host.now()
        return await self._listen(deadline, "the provider was asked, and wanted more time")

    async def _listen(
        self, until: datetime, summary: str, aside: Callable[[], bool] = _nothing
    ) -> Heard | Unanswered:
        """Take messages as they come, until one decides, an order comes, or time is up."""
        state = self._state
        while True:
            if state.hearing:
                ending = await self._take(state.hearing.next())
                if ending is not None:
                    return ending
                until = max(until, state.progress.deadline or until)
            elif state.orders.cancelled is not None:
                return Heard.CANCEL
            elif state.orders.reprocess:
                state.orders.reprocess = False
                return Heard.REPROCESS
            elif aside():
                return Heard.ASIDE
            elif not await state.host.wait(lambda: state.is_roused or aside(), until, summary):
                return Heard.SILENCE

    async def _take(self, message: ProviderMessage) -> Heard | Unanswered | None:
        """Deal with one message; None: it decides nothing."""
        cycle = self._spoken_of(message)
        if message.kind is MessageKind.EXTENSION:
            self._extend(message, cycle)
            return None
        if message.kind is MessageKind.RESPONSE:
            return Heard.ANSWER if await self._capture.take(message, cycle) else None
        return await self._hear_failure(message, cycle)

    async def _hear_failure(self, message: ProviderMessage, cycle: Cycle) -> Unanswered | None:
        """A failure ends its cycle, and the round unless the call is parked."""
        state = self._state
        is_parked = state.progress.stage is Stage.PARKED
        if cycle.has_given_up or (is_parked and not state.host.is_revised()):
            state.hearing.suppress(message, "a failure of a cycle that was given up already")
            return None
        cycle.refused()
        reason = f"the provider reported a failure: {message.reason or 'no reason given'}"
        state.progress.last_error = reason
        if not is_parked:
            return Unanswered(reason, "provider_failure", again=message.retryable)
        await self._acknowledge_failed(reason)
        state.enter(Stage.PARKED)
        return None

    def _spoken_of(self, message: ProviderMessage) -> Cycle:
        """The cycle a message is about; it may tell a reference that no receipt has told."""
        state = self._state
        if message.event_key == state.orders.forced_key(state.request.call_id):
            return state.cycles.last_sent
        cycle = state.cycles.spoken_of(message)
        if message.reference is not None and cycle.was_sent and cycle.reference is None:
            cycle.reference = message.reference
            state.settlement.learn(cycle.number, message.reference)
        return cycle

    def _extend(self, message: ProviderMessage, cycle: Cycle) -> None:
        """Move the deadline as the provider asks, up to the operation's ceiling."""
        state = self._state
        stage = state.progress.stage
        if cycle.has_given_up or cycle is not state.cycles.current:
            state.hearing.suppress(message, "an extension of a cycle that was given up already")
            return
        if stage is Stage.SENDING and cycle.was_sent and state.host.is_revised():
            # The receipt was lost, and the provider is at work all the same.
            state.progress.presumed_received(state.host.now(), state.plan)
            self._rounds += 1
            state.enter(Stage.AWAITING_RESPONSE)
        wanted = message.until or state.host.now() + (message.extend_by or state.plan.deadline)
        if state.progress.extended(wanted, state.plan.ceiling) is None:
            state.hearing.suppress(message, f"an extension of a call that is {stage}")
        else:
            state.show()

    def _stays_open(self, ending: Unanswered) -> timedelta | None:
        """How long a call without an answer waits for one, or for an operator; None: not at all."""
        plan = self._state.plan
        if self._parked is not None and ending is self._parked:
            return None
        if plan.on_failure is OnFailure.PARK:
            return plan.parked_for
        return plan.late_window if ending.may_come_late else None

    async def _park(self, ending: Unanswered, stay: timedelta) -> Heard | Unanswered:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        state = self._state
        reason = f"parked for at most {stay}: {ending.reason}"
        until = state.progress.wait_until(state.host.now() + stay, reason)
        state.progress.notice = state.plan.notices.get("delayed")
        state.enter(Stage.PARKED)
        state.host.index(Stage.PARKED, ending.parked_reason, until)
        await self.conclude(Stage.PARKED, ending.reason)
        return await self._stay_parked(ending)

    async def _stay_parked(self, ending: Unanswered) -> Heard | Unanswered:
        state = self._state
        self._parked = ending
        is_revised = state.host.is_revised()

        def aside() -> bool:
            return is_revised and (state.hearing.has_suppressed or state.host.is_worn())

        until = state.progress.deadline or state.host.now()
        summary = state.progress.deadline_reason or ""
        while (heard := await self._listen(until, summary, aside)) is Heard.ASIDE:
            if not state.hearing.has_suppressed:
                raise Renewal
            await self.conclude(Stage.PARKED, ending.reason)
        state.host.index(IN_FLIGHT, None, None)
        return ending if heard is Heard.SILENCE else heard

    async def _confirm(self) -> CallOutcome:
        """The response is ours; tell the provider so, and that nothing else is wanted."""
        state = self._state
        cycle = self._capture.cycle or state.cycles.current
        if cycle.was_sent and state.settlement.is_due(AcknowledgementKind.SUCCESS):
            await self._acknowledge(cycle, AcknowledgementKind.SUCCESS, None)
        await self._acknowledge_failed(f"the response of cycle {cycle.number} was taken")
        return state.progress.outcome or state.progress.draft(OutcomeStatus.COMPLETED)

    async def _give_up(self, ending: Unanswered) -> CallOutcome:
        """End as failed, with a notice; the provider is told if it may still be working."""
        state = self._state
        await self._acknowledge_failed(ending.reason)
        # What came while the provider was told is late, and the call is still open.
        if state.hearing and state.host.is_revised():
            heard = await self._listen(state.host.now(), "")
            if heard is Heard.ANSWER:
                return await self._confirm()
        return self._end(OutcomeStatus.FAILED, ending.reason, ending.notice)

    async def _end_cancelled(self) -> CallOutcome:
        """End as cancelled; the provider is told if it may still be working."""
        steering = self._state.orders.cancelled
        reason = f"cancelled by {steering.by}: {steering.reason}" if steering else "cancelled"
        await self._acknowledge_failed(reason)
        return self._end(OutcomeStatus.CANCELLED, reason, "cancelled")

    def _end(self, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        progress = self._state.progress
        progress.notice = self._state.plan.notices.get(notice)
        is_cancelled = status is OutcomeStatus.CANCELLED
        outcome = progress.draft(status).model_copy(
            update={
                "reason": reason,
                "notice": progress.notice,
                "cancelled": self._state.orders.cancelled if is_cancelled else None,
            }
        )
        progress.outcome = outcome
        return outcome

    async def _acknowledge_failed(self, reason: str) -> None:
        """Give up every cycle that the provider may still be working on, and tell it so."""
        is_due = self._state.settlement.is_due(AcknowledgementKind.FAILED)
        for cycle in self._state.cycles.open:
            cycle.give_up(is_definitive=is_due)
            if is_due:
                await self._acknowledge(cycle, AcknowledgementKind.FAILED, reason)

    async def _acknowledge(
        self, cycle: Cycle, kind: AcknowledgementKind, reason: str | None
    ) -> None:
        """Close a cycle towards the provider."""
        state = self._state
        state.enter(Stage.ACKNOWLEDGING)
        outcome = state.progress.outcome if kind is AcknowledgementKind.SUCCESS else None
        await state.settlement.acknowledge(
            AcknowledgeStep(
                request=state.request,
                cycle=cycle.number,
                kind=kind,
                reference=cycle.reference,
                response=outcome.response if outcome else None,
                reason=reason,
                outcome=outcome,
            )
        )
