"""Everything between the plan of a call and its outcome."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.hosting.host import ContinueAsNewRequested, Host

from .acknowledgements import Acknowledgements
from .conclusion import Conclusion
from .cycles import (
    Answered,
    Cycle,
    Decision,
    Failure,
    ParkingExpired,
    ReadyToSend,
    ReprocessRequested,
    RoundResult,
    TimedOut,
    Woken,
)
from .messages import MessageHandler
from .notifications import Notifications
from .sending import Sending
from .state import CallState, describe_intervention

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
    from ackbridge.contracts.plan import OnFailure, Plan, Prepared, WhenOff
    from ackbridge.contracts.search_attributes import IN_FLIGHT
    from ackbridge.contracts.steps import Sent


class Conduct:
    """Sends, waits, parks and ends a call as its plan says."""

    def __init__(self, host: Host, state: CallState, plan: Plan) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._acknowledgements = Acknowledgements(host, state, plan)
        self._notifications = Notifications(host, state, plan.reply, plan.notices)
        self._sending = Sending(host, state, plan)
        self._messages = MessageHandler(host, state, plan, self._acknowledgements)
        self._conclusion = Conclusion(host, state, self._notifications)

    # Beginnings

    async def begin(self, prepared: Prepared, *, is_fresh: bool) -> RoundResult:
        """Find out what is to be done first.

        Args:
            is_fresh: whether the workflow task that has prepared the call is still open.
        """
        if prepared.recorded is not None:
            return self._messages.restore(prepared.recorded)
        if prepared.sent is not None:
            return ReadyToSend(local=True, first_attempt=prepared.sent)
        if prepared.repeated and self._plan.send.local:
            # A send may have been lost with the workflow task that has prepared the call before.
            self._state.cycles.current.mark_sent()
        if self._plan.not_now is not None:
            return self._hold_back(self._plan.not_now)
        if self._state.operator_requests.interrupts_work():
            return await self._drain_or_send()
        return ReadyToSend(local=is_fresh)

    async def resume(self, failure: Failure) -> RoundResult:
        """Go on with a call that was parked when it continued as new."""
        self._acknowledgements.resume()
        self._state.show()
        return await self._stay_parked(failure)

    def _hold_back(self, reason: str) -> Failure:
        standing = self._plan.standing
        code = (standing and standing.parked_reason) or "switched_off"
        return Failure(reason, code, notice="refused", is_held_back=True)

    # One round

    async def exchange(self, start: ReadyToSend) -> RoundResult:
        """Send the request and await its response; what stays open is acknowledged as failed."""
        state = self._state
        state.stop_waiting()
        cycle = state.cycles.next_to_send()
        state.cycle = cycle.number
        result: Decision | TimedOut | Woken
        match await self._sending.send(cycle, local=start.local, first_attempt=start.first_attempt):
            case Sent():
                state.cycles.rounds += 1
                state.enter(Stage.AWAITING_RESPONSE)
                polling = self._sending.start_polling(cycle)
                result = await self._messages.wait(
                    state.deadline or self._host.now(),
                    f"response deadline {self._plan.deadline_reason}",
                )
                if polling is not None:
                    polling.stop()
            case Failure() as not_received:
                result = await self._messages.drain()
                # A message may have shown that the provider has the request all the same.
                if isinstance(result, TimedOut) and state.stage is not Stage.AWAITING_RESPONSE:
                    return not_received
        return await self._finish_round(cycle, result)

    async def _finish_round(self, cycle: Cycle, result: Decision | TimedOut | Woken) -> RoundResult:
        """Ask the provider when it did not respond; acknowledge a failure."""
        state = self._state
        if self._plan.ask_status and isinstance(result, TimedOut):
            await self._sending.ask_status(cycle)
            until = state.deadline or self._host.now()
            result = await self._messages.wait(until, "response deadline, extended when asked")
        match result:
            case TimedOut() | Woken():
                state.cycles.time_out(cycle, self._host.now())
                reason = f"no response within {state.deadline_reason}"
                decision: Decision = Failure(
                    reason, "no_response", is_retryable=True, may_come_late=True
                )
            case _:
                decision = result
        if isinstance(decision, Failure):
            state.last_error = decision.reason
            await self._acknowledgements.acknowledge_failed(decision.reason)
        return decision

    def may_retry(self, failure: Failure) -> bool:
        """Whether another round may succeed right now."""
        cycles = self._state.cycles
        rounds = max(cycles.rounds, cycles.current.number)
        return failure.is_retryable and rounds < self._plan.cycles

    async def retry(self) -> RoundResult:
        """Send again, unless what has arrived meanwhile makes it needless."""
        if self._state.has_pending_input:
            return await self._drain_or_send()
        return ReadyToSend()

    async def reprocess(self) -> RoundResult:
        """Send a parked call again."""
        self._state.reprocessed += 1
        return await self.retry()

    async def _drain_or_send(self) -> RoundResult:
        match await self._messages.drain():
            case TimedOut() | Woken():
                return ReadyToSend()
            case decision:
                return decision

    # Parking

    def may_park(self, failure: Failure) -> bool:
        """Whether the call stays open for a late response, an operator, or a batch."""
        return self._parking_time(failure) > timedelta(0)

    def _parking_time(self, failure: Failure) -> timedelta:
        plan, not_at_all = self._plan, timedelta(0)
        if self._state.reprocessed >= plan.reprocess_attempts:
            return not_at_all
        if failure.is_held_back and plan.when_off is not None:
            return plan.parked_for if plan.when_off is WhenOff.PARK else not_at_all
        if plan.on_failure is OnFailure.PARK:
            return plan.parked_for
        return (plan.late_window or not_at_all) if failure.may_come_late else not_at_all

    async def park(self, failure: Failure) -> RoundResult:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        state, now = self._state, self._host.now()
        stay = self._parking_time(failure)
        until = state.wait_until(now + stay, f"parked for at most {stay}: {failure.reason}")
        state.parked_times += 1
        batches = (batch for batch in self._plan.next_batches if batch > now)
        state.delay(self._plan.notices.get("delayed"), next(batches, None))
        state.enter(Stage.PARKED)
        self._host.index(Stage.PARKED, failure.code, until)
        await self._store_parked(failure)
        return await self._stay_parked(failure)

    async def _store_parked(self, failure: Failure) -> None:
        """Let batches find the call, and learn when the next one is."""
        state = self._state
        stored = await self._conclusion.store(Stage.PARKED, failure.reason, failure.code)
        if stored.next_batch is not None:
            state.delay(state.notice, stored.next_batch)
            state.show()
        self._notifications.delayed(state.notice)

    async def _stay_parked(self, failure: Failure) -> RoundResult:
        result = await self._await_release(failure)
        self._host.index(IN_FLIGHT, None, None)
        return result

    async def _await_release(self, failure: Failure) -> RoundResult:
        state = self._state
        until, summary = state.deadline or self._host.now(), state.deadline_reason or ""
        while True:
            match await self._messages.wait(until, summary, self._is_woken):
                case Woken():
                    if not state.messages.has_suppressed:
                        await self._continue_as_new(failure)
                    await self._store_parked(failure)
                case ReprocessRequested() as requested:
                    if await self._sending.check_admission():
                        return requested
                    # Batches may select it again.
                    state.parked_times += 1
                    await self._store_parked(failure)
                case TimedOut():
                    return ParkingExpired(failure)
                case decision:
                    return decision

    def _is_woken(self) -> bool:
        return self._state.messages.has_suppressed or self._host.should_continue_as_new()

    async def _continue_as_new(self, failure: Failure) -> None:
        await self._acknowledgements.stop()
        await self._notifications.all_started()
        raise ContinueAsNewRequested(self._plan, failure.cause())

    # Ends

    async def complete(self, answered: Answered) -> CallOutcome:
        """End with a response: acknowledge it, and that nothing else is wanted."""
        was_delayed = self._state.parked_times > 0
        self._notifications.ended(answered.outcome, was_delayed=was_delayed)
        cycle = answered.cycle
        await self._acknowledgements.acknowledge_success(cycle, answered.acknowledgement)
        await self._acknowledgements.acknowledge_failed(
            f"the response of cycle {cycle.number} was accepted"
        )
        return await self._conclusion.end(answered.outcome)

    async def fail(self, failure: Failure) -> CallOutcome:
        """End as failed, unless a response arrives while the provider is told so."""
        await self._acknowledgements.acknowledge_failed(failure.reason)
        if self._state.messages:
            match await self._messages.drain():
                case Answered() as answered:
                    return await self.complete(answered)
        return await self._end(OutcomeStatus.FAILED, failure.reason, failure.notice)

    async def cancel(self) -> CallOutcome:
        """End as cancelled."""
        reason = describe_intervention("cancelled", self._state.operator_requests.cancelled)
        await self._acknowledgements.acknowledge_failed(reason)
        return await self._end(OutcomeStatus.CANCELLED, reason, "cancelled")

    async def _end(self, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        return await self._conclusion.end_without_response(
            status, reason, self._plan.notices.get(notice)
        )
