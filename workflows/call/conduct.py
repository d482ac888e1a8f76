"""Talking with the provider: rounds of sending and listening, until something decides the call."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.hosting.host import ContinueAsNewRequested

from .admission import kept_back, may_be_sent
from .closing import Closing
from .conclusion import Conclusion
from .cycles import Cycle
from .message_loop import MessageLoop
from .round_result import NoResponse, RoundEnd
from .sending import Sending
from .state import CallState

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
    from ackbridge.contracts.continuation import CallContinuation
    from ackbridge.contracts.plan import REVISION, OnFailure, Prepared, WhenOff
    from ackbridge.contracts.search_attributes import IN_FLIGHT


class Conduct:
    """Everything between a plan and an outcome."""

    def __init__(
        self,
        state: CallState,
        keeping: Conclusion,
        memory: CallContinuation | None,
        prepared: Prepared,
        *,
        is_fresh: bool,
    ) -> None:
        """Take the call up.

        Args:
            memory: of the parked call that this run continues.
            is_fresh: whether the workflow task that has prepared the call is still open.
        """
        self._state = state
        self._keeping = keeping
        self._line = Sending(state, prepared.sent)
        self._closing = Closing(state)
        self._listening = MessageLoop(state, self._closing)
        self._parked = NoResponse(**memory.parked.model_dump()) if memory else None
        self._may_have_sent = prepared.repeated and state.plan.send.local
        self._captured = prepared.recorded
        self._is_fresh = is_fresh

    async def hold(self) -> CallOutcome:
        """Rounds, and parking, until there is an outcome.

        Raises:
            ContinueAsNewRequested: the call is parked and asks to continue as new.
        """
        ending = await self._first()
        while True:
            if ending is RoundEnd.ANSWER:
                return await self._confirm()
            if ending is RoundEnd.CANCEL:
                return await self._end_cancelled()
            if ending is RoundEnd.REPROCESS:
                self._state.progress.reprocessed += 1
            if not isinstance(ending, NoResponse) or self._may_try_again(ending):
                ending = await self._round()
            elif (stay := self._stays_open(ending)) is not None:
                ending = await self._park(ending, stay)
            else:
                return await self._give_up(ending)

    def memory(self) -> CallContinuation:
        """For the run that continues this one, while the call is parked."""
        state, parked = self._state, self._parked
        if parked is None:
            raise RuntimeError("only a parked call continues as new")
        return CallContinuation(
            # The next run has no history that an older worker has begun.
            plan=state.plan.model_copy(update={"revision": REVISION}),
            status=state.progress.status(state.settlement.owed, state.hearing.duplicates),
            timings=state.progress.timings,
            cycles=state.cycles.memory(),
            rounds=state.cycles.rounds,
            parked=parked.memory(),
            hearing=state.hearing.memory(),
            debts=state.settlement.memory(),
            cancelled=state.orders.cancelled,
            forced=state.orders.forced,
            reprocess=state.orders.reprocess,
            told=state.telling.memory(),
            batches=state.orders.batches,
        )

    async def _first(self) -> RoundEnd | NoResponse:
        if self._parked is not None:
            return await self._stay_parked(self._parked)
        if self._captured is not None:
            self._listening.capture.recall(self._captured)
            return RoundEnd.ANSWER
        if self._line.has_sent_along:
            return await self._send_and_listen(local=True)
        if self._may_have_sent:
            self._state.cycles.current.sent()
        if self._state.plan.not_now:
            return kept_back(self._state.plan)
        if self._state.orders.interrupts_work():
            return await self._listening.at_once()
        return await self._send_and_listen(local=self._is_fresh)

    def _may_try_again(self, ending: NoResponse) -> bool:
        cycles = self._state.cycles
        rounds = max(cycles.rounds, cycles.current.number)
        return ending.again and rounds < self._state.plan.cycles

    async def _round(self) -> RoundEnd | NoResponse:
        """Another round, unless what has been heard meanwhile makes it needless."""
        if self._state.is_roused and self._state.is_revised:
            ending = await self._listening.at_once()
            if ending is not RoundEnd.SILENCE:
                return ending
        return await self._send_and_listen()

    async def _send_and_listen(self, *, local: bool = False) -> RoundEnd | NoResponse:
        """Send, and listen until the deadline; what remains open is acknowledged as failed.

        Args:
            local: whether the request may ride in the workflow task.
        """
        state = self._state
        state.progress.wait_no_longer()
        cycle = state.cycles.next()
        state.progress.cycle = cycle.number
        not_received = await self._line.send(cycle, local=local)
        if not_received is None:
            ending = await self._await_response(cycle)
        else:
            ending = await self._listening.at_once()
            if ending is RoundEnd.SILENCE and state.progress.stage is not Stage.AWAITING_RESPONSE:
                return not_received
        if ending is RoundEnd.SILENCE:
            ending = await self._ask(cycle)
        if ending is RoundEnd.SILENCE:
            state.cycles.fell_silent(cycle, state.host.now())
            reason = f"no response within {state.progress.deadline_reason}"
            ending = NoResponse(reason, "no_response", again=True, may_come_late=True)
        if isinstance(ending, NoResponse):
            state.progress.last_error = ending.reason
            if not_received is None or state.is_revised:
                await self._closing.acknowledge_failed(ending.reason)
        return ending

    async def _await_response(self, cycle: Cycle) -> RoundEnd | NoResponse:
        """Wait for what the provider says, or keep asking for it."""
        state = self._state
        state.cycles.rounds += 1
        state.enter(Stage.AWAITING_RESPONSE)
        polling = self._line.keep_asking(cycle)
        until = state.progress.deadline or state.host.now()
        why = f"response deadline {state.plan.deadline_reason}"
        ending = await self._listening.until(until, why)
        if polling is not None:
            polling.stop()
        return ending

    async def _ask(self, cycle: Cycle) -> RoundEnd | NoResponse:
        """Ask the provider once before giving up on it."""
        state = self._state
        if not state.plan.ask_status:
            return RoundEnd.SILENCE
        await self._line.ask(cycle)
        deadline = state.progress.deadline or state.host.now()
        return await self._listening.until(deadline, "the provider was asked, and wanted more time")

    def _stays_open(self, ending: NoResponse) -> timedelta | None:
        """How long a call without an answer waits for one, or for an operator; None: not at all."""
        plan = self._state.plan
        if self._parked is not None and ending is self._parked:
            return None
        at_most = plan.reprocess_attempts
        if at_most is not None and self._state.progress.reprocessed >= at_most:
            return None
        if ending.is_kept_back and plan.when_off is not None:
            return plan.parked_for if plan.when_off is WhenOff.PARK else None
        if plan.on_failure is OnFailure.PARK:
            return plan.parked_for
        return plan.late_window if ending.may_come_late else None

    async def _park(self, ending: NoResponse, stay: timedelta) -> RoundEnd | NoResponse:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        state = self._state
        now = state.host.now()
        until = state.progress.wait_until(now + stay, f"parked for at most {stay}: {ending.reason}")
        state.progress.parked_times += 1
        planned = (batch for batch in state.plan.next_batches if batch > now)
        state.progress.is_delayed(state.plan.notices.get("delayed"), next(planned, None))
        state.enter(Stage.PARKED)
        state.host.index(Stage.PARKED, ending.parked_reason, until)
        await self._keep_parked(ending)
        return await self._stay_parked(ending)

    async def _keep_parked(self, ending: NoResponse) -> None:
        """The ledger selects it for batches from now on, and knows when the next one is."""
        state = self._state
        concluded = await self._keeping.conclude(Stage.PARKED, ending.reason, ending.parked_reason)
        if concluded.next_batch is not None:
            state.progress.is_delayed(state.progress.notice, concluded.next_batch)
            state.show()
        state.telling.delayed(state.progress.notice)

    async def _stay_parked(self, ending: NoResponse) -> RoundEnd | NoResponse:
        state = self._state
        self._parked = ending
        is_revised = state.is_revised

        def aside() -> bool:
            return is_revised and (state.hearing.has_suppressed or state.host.is_worn())

        until = state.progress.deadline or state.host.now()
        summary = state.progress.deadline_reason or ""
        while True:
            heard = await self._listening.until(until, summary, aside)
            if heard is RoundEnd.ASIDE:
                if not state.hearing.has_suppressed:
                    await state.settlement.rest()
                    await state.telling.settled()
                    raise ContinueAsNewRequested
                await self._keep_parked(ending)
            elif heard is not RoundEnd.REPROCESS or await may_be_sent(state):
                break
            elif state.plan.knows_batches:
                # It was kept back: batches may take it again.
                state.progress.parked_times += 1
                await self._keep_parked(ending)
        state.host.index(IN_FLIGHT, None, None)
        return ending if heard is RoundEnd.SILENCE else heard

    async def _confirm(self) -> CallOutcome:
        """The response is ours; tell the provider so, and that nothing else is wanted."""
        state = self._state
        capture = self._listening.capture
        cycle = capture.cycle or state.cycles.current
        if state.progress.outcome is not None:
            state.telling.ended(state.progress.outcome, was_delayed=state.progress.parked_times > 0)
        await self._closing.acknowledge_success(cycle, capture.acknowledged)
        await self._closing.acknowledge_failed(f"the response of cycle {cycle.number} was taken")
        return state.progress.outcome or state.progress.draft(OutcomeStatus.COMPLETED)

    async def _give_up(self, ending: NoResponse) -> CallOutcome:
        """End as failed, with a notice; the provider is told if it may still be working."""
        state = self._state
        await self._closing.acknowledge_failed(ending.reason)
        # What came while the provider was told is late, and the call is still open.
        if state.hearing and state.is_revised:
            heard = await self._listening.at_once()
            if heard is RoundEnd.ANSWER:
                return await self._confirm()
        return self._closing.end(OutcomeStatus.FAILED, ending.reason, ending.notice)

    async def _end_cancelled(self) -> CallOutcome:
        """End as cancelled; the provider is told if it may still be working."""
        steering = self._state.orders.cancelled
        reason = f"cancelled by {steering.by}: {steering.reason}" if steering else "cancelled"
        await self._closing.acknowledge_failed(reason)
        return self._closing.end(OutcomeStatus.CANCELLED, reason, "cancelled")
