"""Everything between the plan of a call and its outcome."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow

from workflows.hosting import steps
from workflows.hosting.host import ContinueAsNewRequested, Host

from .acknowledgements import Acknowledgements
from .conclusion import Conclusion
from .cycles import (
    CONTRADICTION,
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
    from ackbridge.contracts.calls import (
        CallOutcome,
        Effect,
        OutcomeCode,
        OutcomeStatus,
        Stage,
        WaitingFor,
    )
    from ackbridge.contracts.plan import OnFailure, Plan, Prepared, ResponseMode, WhenOff
    from ackbridge.contracts.search_attributes import IN_FLIGHT
    from ackbridge.contracts.steps import Parking, Sent
    from ackbridge.contracts.wire import duration_text

FIRST_RECHECK = timedelta(seconds=30)
LONGEST_RECHECK = timedelta(hours=1)
"""How often a call that is parked because its provider's control could not be read looks again."""

BUSY_AFTER = timedelta(seconds=1)
"""How late a timer may fire. Later than that, the worker or the engine is overloaded, and the
response may be queued already: the silence counts with the step after the look for it."""

PARK_UNKNOWN = "unknown"
"""In `Plan.park`: every end with unknown effect."""


class Conduct:
    """Sends, waits, parks and ends a call as its plan says."""

    def __init__(self, host: Host, state: CallState, plan: Plan) -> None:
        self._host = host
        self._state = state
        self._plan = plan
        self._acknowledgements = Acknowledgements(host, state, plan)
        self._notifications = Notifications(host, state, plan.reply, plan.notices)
        self._sending = Sending(host, state, plan, self._notifications)
        self._messages = MessageHandler(host, state, plan, self._acknowledgements, self._sending)
        self._conclusion = Conclusion(
            host, state, self._notifications, plan, self._move_out_acknowledging
        )
        self._has_looked = False

    # Beginnings

    async def begin(self, prepared: Prepared) -> RoundResult:
        """Find out what is to be done first."""
        if prepared.recorded is not None:
            return self._messages.restore(prepared.recorded)
        if prepared.sent is not None:
            return ReadyToSend(first_attempt=prepared.sent)
        cycle = self._state.cycles.current
        if prepared.taken_over:
            # The workflow that has ended may have sent it in any way, and nobody knows how it went.
            since, reference = prepared.first_claimed_at, prepared.reference
            cycle.presume_sent(self._host.now(), since, reference)
            self._state.reference = reference
        elif prepared.repeated and self._plan.repeatable:
            # A send may have been lost with the workflow task that has prepared the call before:
            # only what may be repeated is sent there.
            cycle.mark_sent(self._host.now())
        if self._plan.not_now is not None:
            return self._hold_back(self._plan.not_now)
        if self._state.operator_requests.interrupts_work():
            return await self._drain_or_send()
        if prepared.taken_over and self._sending.forbids(cycle) is None:
            return await self._check_key(cycle)
        return ReadyToSend()

    async def _check_key(self, cycle: Cycle) -> RoundResult:
        """Send under the key of a call that is taken over, unless it may be forgotten by now."""
        problem = await self._sending.problem_of_repeating(cycle)
        if problem is None:
            return ReadyToSend()
        self._has_looked = True
        failure = Failure(problem, OutcomeCode.NO_RECEIPT, may_come_late=True)
        return await self._go_on_without_receipt(cycle, failure)

    async def resume(self, failure: Failure) -> RoundResult:
        """Go on with a call that was parked when it continued as new."""
        self._acknowledgements.resume()
        self._state.show()
        return await self._stay_parked(failure)

    async def resume_reconciling(self, failure: Failure) -> CallOutcome:
        """Go on with a call that had an unknown end when it continued as new."""
        self._acknowledgements.resume()
        self._state.show()
        return await self.reconcile(failure, has_moved=True)

    async def resume_waiting(self) -> RoundResult:
        """Go on with a call that awaited its response when it moved into another workflow."""
        self._acknowledgements.resume()
        self._state.show()
        cycle = self._state.cycles.current
        return await self._finish_round(cycle, await self._await_response(cycle))

    def _hold_back(self, reason: str) -> Failure:
        standing = self._plan.standing
        code = (standing and standing.parked_reason) or OutcomeCode.SWITCHED_OFF
        return Failure(reason, OutcomeCode(code), is_held_back=True)

    # One round

    async def exchange(self, start: ReadyToSend) -> RoundResult:
        """Send the request and await its response; what stays open is acknowledged as failed."""
        state = self._state
        state.stop_waiting()
        self._has_looked = False
        cycle = state.cycles.next_to_send()
        state.cycle, state.reference = cycle.number, cycle.reference
        match await self._sending.send(cycle, start.first_attempt):
            case Sent():
                state.cycles.rounds += 1
                state.enter(Stage.AWAITING_RESPONSE)
                return await self._finish_round(cycle, await self._await_response(cycle))
            case Failure() as failure:
                if failure.code is OutcomeCode.REFUSED and start.first_attempt is not None:
                    await self._sending.look_when_refused()
                return await self._go_on_without_receipt(cycle, failure)

    async def _go_on_without_receipt(self, cycle: Cycle, failure: Failure) -> RoundResult:
        """Look for what became of a request that may have arrived; it may still be answered."""
        result = await self._messages.drain()
        is_interrupted = self._state.operator_requests.interrupts_work()
        if self._is_unanswered(result) and failure.is_interrupted and not is_interrupted:
            # The message that has interrupted the sending was not about this call.
            return ReadyToSend()
        if self._is_unanswered(result) and cycle.was_sent:
            await self._look()
            result = await self._messages.drain()
        if self._is_unanswered(result):
            is_refused = failure.code is OutcomeCode.REFUSED and cycle.was_sent
            if not is_refused or self._plan.mode is ResponseMode.SYNC:
                return failure
            self._presume_receipt()
            result = await self._await_response(cycle, may_move_out=False)
            return await self._finish_round(cycle, result, failure)
        if isinstance(result, TimedOut):
            # An extension has shown that the provider has the request.
            result = await self._await_response(cycle)
        return await self._finish_round(cycle, result)

    def _is_unanswered(self, result: Decision | TimedOut | Woken) -> bool:
        """Whether no message has shown what became of the request."""
        return isinstance(result, TimedOut) and self._state.stage is not Stage.AWAITING_RESPONSE

    def _presume_receipt(self) -> None:
        self._state.receipt_presumed(self._plan.deadline, self._plan.deadline_reason)
        self._state.cycles.rounds += 1
        self._state.enter(Stage.AWAITING_RESPONSE)

    async def _await_response(
        self, cycle: Cycle, *, may_move_out: bool = True
    ) -> Decision | TimedOut | Woken:
        """Wait until the deadline, and look for an answer before it is acted on.

        Args:
            may_move_out: whether another workflow could go on with what is known of the call.
        """
        woken = self._host.should_move_out if may_move_out else None
        while True:
            polling = self._sending.start_polling(cycle)
            deadline = self._state.deadline or self._host.now()
            summary = f"response deadline {self._state.deadline_reason}"
            until = min(self._state.delayed_at or deadline, deadline)
            result = await self._messages.wait(until, summary, woken)
            while isinstance(result, TimedOut) and self._tell_delay():
                result = await self._messages.wait(self._state.deadline or deadline, summary, woken)
            if polling is not None:
                polling.stop()
            if isinstance(result, Woken):
                await self._continue_as_new(None)
            if not isinstance(result, TimedOut):
                return result
            self._has_looked = False
            is_busy = self._host.now() - (self._state.deadline or deadline) >= BUSY_AFTER
            await self._look(None if is_busy else cycle)
            looked_at = self._host.now()
            result = await self._messages.drain()
            # An extension has moved the deadline, which has passed by now.
            if not isinstance(result, TimedOut) or self._host.now() == looked_at:
                return result

    def _tell_delay(self) -> bool:
        """Tell the caller once that the response takes longer than usual, if it does."""
        state = self._state
        is_over = state.deadline is None or self._host.now() >= state.deadline
        if state.delayed_at is None or is_over:
            return False
        state.delayed_at = None
        state.delay(self._conclusion.notice("delayed"), None)
        state.wait_for(WaitingFor.RESPONSE, is_delayed=True)
        self._notifications.delayed(state.notice)
        return True

    async def _look(self, timed_out: Cycle | None = None) -> None:
        """Look for an answer, once for each decision and what follows from it.

        Args:
            timed_out: the cycle whose deadline has passed.
        """
        if not self._has_looked and self._state.cycles.was_sent:
            self._has_looked = True
            await self._sending.look(timed_out)

    async def _finish_round(
        self,
        cycle: Cycle,
        result: Decision | TimedOut | Woken,
        without_receipt: Failure | None = None,
    ) -> RoundResult:
        """Acknowledge a failure to the provider.

        Args:
            without_receipt: why there was no receipt, if there was none.
        """
        match result:
            case TimedOut() | Woken():
                reason = f"no response within {self._state.deadline_reason}"
                sent_at = self._state.timings.sent_at
                self._state.cycles.time_out(cycle, sent_at, self._host.now())
                decision: Decision = without_receipt or Failure(
                    reason, OutcomeCode.NO_RESPONSE, is_retryable=True, may_come_late=True
                )
            case _:
                decision = result
        if isinstance(decision, Failure):
            self._state.last_error = decision.reason
            await self._acknowledgements.acknowledge_failed(decision.reason)
        return decision

    def may_retry(self, failure: Failure) -> bool:
        """Whether another round may succeed right now."""
        cycles, state = self._state.cycles, self._state
        rounds = max(cycles.rounds, cycles.current.number)
        is_owed = self._plan.undoes and state.owes_failed_acknowledgement
        may_send = is_owed or cycles.current.is_spent or self._plan.repeatable
        return failure.is_retryable and rounds < self._plan.cycles and may_send

    async def retry(self, failure: Failure) -> RoundResult:
        """Send again, unless what has arrived meanwhile makes it needless."""
        if self._plan.undoes and self._state.owes_failed_acknowledgement:
            return await self._await_failed_acknowledgement(failure)
        return await self._send_again(failure)

    async def _await_failed_acknowledgement(self, failure: Failure) -> RoundResult:
        """Send nothing while a failed acknowledgement is owed: accepted later, it may undo work."""
        state = self._state
        state.delay(self._conclusion.notice("delayed"), None)
        state.enter(Stage.ACKNOWLEDGING)
        state.wait_for(WaitingFor.ACKNOWLEDGEMENT, detail=failure.reason, is_delayed=True)
        self._notifications.delayed(state.notice)
        within = self._plan.acknowledge.within if self._plan.acknowledge else timedelta(0)
        result = await self._messages.wait(
            self._host.now() + within,
            "a failed acknowledgement is owed",
            lambda: not state.owes_failed_acknowledgement,
        )
        if not isinstance(result, TimedOut | Woken):
            return result
        if not state.cycles.uncertain:
            return await self._send_again(failure)
        self._has_looked = False
        await self._look()
        match await self._messages.drain():
            case TimedOut() | Woken():
                return replace(failure, is_retryable=False)
            case decision:
                return decision

    async def _send_again(self, failure: Failure) -> RoundResult:
        """Send when the provider is ready for it, unless something else decides before."""
        state, retry_at = self._state, failure.retry_at
        if retry_at is None or retry_at <= self._host.now():
            return await self._drain_or_send(failure)
        until = min(retry_at, state.request.expires_at or retry_at)
        is_delayed = until - self._host.now() > steps.DELAYED_AFTER
        if is_delayed:
            state.delay(self._conclusion.notice("delayed"), None)
        state.enter(Stage.SENDING)
        state.wait_for(WaitingFor.RETRY, until, failure.reason, is_delayed=is_delayed)
        if is_delayed:
            self._notifications.delayed(state.notice)
        match await self._messages.wait(until, f"next cycle: {failure.reason}"):
            case TimedOut() | Woken():
                return self._ready_to_send(failure)
            case decision:
                return decision

    async def reprocess(self) -> RoundResult:
        """Send a parked call again."""
        self._state.reprocessed += 1
        # That the provider answers again is news.
        self._state.cycles.count(answered=False, responded=False)
        return await self._drain_or_send()

    async def _drain_or_send(self, failure: Failure | None = None) -> RoundResult:
        match await self._messages.drain():
            case TimedOut() | Woken():
                return self._ready_to_send(failure)
            case decision:
                return decision

    def _ready_to_send(self, failure: Failure | None) -> ReadyToSend | Failure:
        """After a contradiction the work may be done: nothing is sent under any key."""
        if not self._state.cycles.is_contradicted:
            return ReadyToSend()
        failure = failure or Failure(CONTRADICTION, OutcomeCode.NO_RESPONSE)
        return replace(failure, reason=CONTRADICTION, is_retryable=False, may_come_late=True)

    # Parking

    def may_park(self, failure: Failure) -> bool:
        """Whether the call stays open for a late response, an operator, or a batch."""
        return self._parking_time(failure) > timedelta(0)

    def _parking_time(self, failure: Failure) -> timedelta:
        plan, not_at_all = self._plan, timedelta(0)
        if self._state.reprocessed >= plan.reprocess_attempts or self._is_settled(failure):
            return not_at_all
        if failure.is_held_back and plan.when_off is not None:
            return plan.parked_for if plan.when_off is WhenOff.PARK else not_at_all
        if self._parks(failure):
            return plan.parked_for
        is_open = failure.may_come_late and self._state.effect is Effect.UNKNOWN
        return (plan.late_window or not_at_all) if is_open else not_at_all

    def _is_settled(self, failure: Failure) -> bool:
        """Whether nothing can come of the call any more."""
        return (
            failure.code is OutcomeCode.EXPIRED
            or (failure.code is OutcomeCode.UNREADABLE and self._state.effect is Effect.DONE)
            or self._state.operator_requests.resolved is not None
        )

    def _parks(self, failure: Failure) -> bool:
        """Whether the operation parks this end: see `Plan.park`."""
        plan, effect = self._plan, self._state.effect
        if plan.park is not None:
            is_unknown = effect is Effect.UNKNOWN and PARK_UNKNOWN in plan.park
            return is_unknown or failure.code in plan.park
        is_final = failure.code in (OutcomeCode.REFUSED, OutcomeCode.PROVIDER_FAILED)
        is_definitive = is_final and not failure.is_retryable and effect is Effect.NONE
        return plan.on_failure is OnFailure.PARK and not is_definitive

    async def park(self, failure: Failure) -> RoundResult:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        state, now = self._state, self._host.now()
        stay, expires_at = self._parking_time(failure), state.request.expires_at
        if state.effect is Effect.NONE and expires_at is not None:
            stay = min(stay, max(expires_at - now, timedelta(0)))
        until = state.wait_until(
            now + stay, f"parked for at most {duration_text(stay)}: {failure.reason}"
        )
        state.parked_times += 1
        state.code, state.provider_code = failure.code, failure.provider_code
        batches = (batch for batch in self._plan.next_batches if batch > now)
        state.delay(self._conclusion.notice("delayed"), next(batches, None))
        state.enter(Stage.PARKED)
        self._host.index(Stage.PARKED, failure.code, until)
        await self._store_parked(failure)
        return await self._stay_parked(failure)

    async def _store_parked(self, failure: Failure, *, is_put_back: bool = False) -> None:
        """Let batches find the call, and learn when the next one is."""
        state = self._state
        parking = Parking(
            reason=failure.code,
            times=state.parked_times,
            put_back=is_put_back,
            released=state.operator_requests.is_released,
        )
        stored = await self._conclusion.store(Stage.PARKED, failure.reason, parking)
        if stored.quarantined is not None:
            state.last_error = f"in quarantine: {stored.quarantined}; {failure.reason}"
            state.show()
        if stored.next_batch is not None:
            state.delay(state.notice, stored.next_batch)
            state.show()
        self._notifications.delayed(state.notice)

    async def _stay_parked(self, failure: Failure) -> RoundResult:
        result = await self._await_release(failure)
        self._host.index(IN_FLIGHT, None, None)
        return result

    async def _await_release(self, failure: Failure) -> RoundResult:
        state, recheck_after = self._state, FIRST_RECHECK
        while True:
            until, summary = state.deadline or self._host.now(), state.deadline_reason or ""
            recheck_at = self._host.now() + recheck_after if self._awaits_control() else until
            self._has_looked = False
            match await self._messages.wait(min(recheck_at, until), summary, self._is_woken):
                case TimedOut() if recheck_at < until:
                    recheck_after = min(recheck_after * 2, LONGEST_RECHECK)
                    if await self._sending.may_reprocess():
                        return ReprocessRequested()
                case Woken():
                    if not state.has_entries:
                        await self._continue_as_new(failure)
                    await self._store_parked(failure)
                case ReprocessRequested() as requested:
                    if await self._sending.may_reprocess():
                        return requested
                    # Batches may select it again.
                    state.parked_times += 1
                    await self._store_parked(failure, is_put_back=True)
                case TimedOut():
                    expiry = self._sending.expiry() if state.effect is Effect.NONE else None
                    return ParkingExpired(expiry or failure)
                case decision:
                    return decision

    def _awaits_control(self) -> bool:
        """Whether the call waits only for the control of its provider to be known again."""
        standing = self._plan.standing
        return standing is not None and standing.awaits_control and not self._state.reprocessed

    def _is_woken(self) -> bool:
        return self._state.has_entries or self._host.should_continue_as_new()

    async def _continue_as_new(self, failure: Failure | None) -> None:
        """Leave this run; `failure`: why there is no response, unless it is awaited."""
        await self._acknowledgements.stop()
        await self._notifications.all_started()
        raise ContinueAsNewRequested(self._plan, failure.cause() if failure else None)

    async def _move_out_acknowledging(self, outcome: CallOutcome) -> None:
        """Leave the host with an outcome, to go on acknowledging."""
        reason = outcome.reason or "the provider has not accepted an acknowledgement"
        await self._continue_as_new(Failure(reason, outcome.code or OutcomeCode.NO_RESPONSE))

    # Ends

    async def complete(self, answered: Answered) -> CallOutcome:
        """End with a response: acknowledge it, and that nothing else is wanted."""
        was_delayed = self._state.parked_times > 0
        self._notifications.ended(answered.outcome, was_delayed=was_delayed)
        cycle = answered.cycle
        await self._acknowledgements.acknowledge_success(
            cycle, answered.acknowledgement, needs_queue=answered.needs_queue
        )
        await self._acknowledgements.acknowledge_failed(
            f"the response of cycle {cycle.number} was accepted"
        )
        return await self._conclusion.end(answered.outcome)

    async def fail(self, failure: Failure) -> CallOutcome:
        """End as failed, unless there is a response after all."""
        return await self._end(OutcomeStatus.FAILED, failure)

    async def cancel(self) -> CallOutcome:
        """End as cancelled, unless there is a response after all."""
        reason = describe_intervention("cancelled", self._state.operator_requests.cancelled)
        return await self._end(OutcomeStatus.CANCELLED, Failure(reason, OutcomeCode.CANCELLED))

    async def resolve(self) -> CallOutcome:
        """End as failed without effect, as an operator states."""
        reason = describe_intervention("resolved as none", self._state.operator_requests.resolved)
        code = self._state.code or OutcomeCode.NO_RESPONSE
        return await self._end(OutcomeStatus.FAILED, Failure(reason, code))

    async def _end(self, status: OutcomeStatus, failure: Failure) -> CallOutcome:
        state = self._state
        await self._look()
        answered = await self._drain_all()
        if answered is None:
            await self._acknowledgements.acknowledge_failed(failure.reason)
            answered = await self._drain_all()
        if answered is not None:
            return await self.complete(answered)
        outcome = self._conclusion.without_response(status, failure)
        reconcile = self._plan.reconcile
        is_open = reconcile is not None or not state.is_acknowledged
        if outcome.effect is not Effect.UNKNOWN or not is_open:
            return await self._conclusion.end(outcome)
        stage = Stage.ACKNOWLEDGING if reconcile is None else Stage.RECONCILING
        await self._conclusion.publish(outcome, stage)
        if reconcile is not None:
            until = self._host.now() + reconcile.within
            state.wait_until(until, f"asking until the outcome is known: {failure.reason}")
            self._host.index(Stage.RECONCILING, failure.code, until)
        return await self.reconcile(failure)

    async def _drain_all(self) -> Answered | None:
        while self._state.messages:
            match await self._messages.drain():
                case Answered() as answered:
                    return answered
        return None

    async def reconcile(self, failure: Failure, *, has_moved: bool = False) -> CallOutcome:
        """Go on with the outcome set until the truth is known, or the time for it is over.

        Args:
            has_moved: as in `Conclusion.end`.
        """
        state = self._state
        reported: Failure | None = None
        state.is_reconciling = True
        while state.effect is Effect.UNKNOWN and self._may_be_corrected():
            is_asking = self._time_to_ask() > timedelta(0)
            match await self._messages.wait(self._next_turn(), "ask again", self._has_news):
                case Answered() as answered:
                    state.is_reconciling = False
                    return await self.complete(answered)
                case Failure() as failed:
                    reported = failed
                case TimedOut() if is_asking:
                    await self._sending.look()
                case Woken() if state.has_entries:
                    await self._conclusion.store(state.stage, failure.reason)
                case Woken() if self._is_outdated():
                    await self._continue_as_new(failure)
        if state.effect is Effect.UNKNOWN and self._asks_after_acknowledging():
            match await self._look_again():
                case Answered() as answered:
                    state.is_reconciling = False
                    return await self.complete(answered)
                case reported:
                    pass
        state.is_reconciling = False
        return await self._conclusion.end(self._corrected(reported), has_moved=has_moved)

    def _asks_after_acknowledging(self) -> bool:
        """Whether to ask once more when the last acknowledgement is refused, or its time over."""
        plan = self._plan
        is_asked = plan.ask_status and plan.acknowledge is not None and plan.acknowledge.asks_after
        return is_asked and plan.reconcile is None

    async def _look_again(self) -> Answered | Failure | None:
        """Look for an answer, whatever was found before."""
        await self._sending.look()
        while self._state.messages:
            match await self._messages.drain():
                case Answered() | Failure() as decision:
                    return decision
        return None

    def _corrected(self, reported: Failure | None) -> CallOutcome:
        """What is known by now of the outcome that was set.

        Args:
            reported: the failure that the provider has reported meanwhile.
        """
        if self._state.outcome is None:
            raise RuntimeError("only an outcome that is set can be corrected")
        return self._conclusion.corrected(self._state.outcome, reported)

    def _may_be_corrected(self) -> bool:
        return not self._state.is_acknowledged or self._time_to_ask() > timedelta(0)

    def _time_to_ask(self) -> timedelta:
        deadline = self._state.deadline
        if self._plan.reconcile is None or deadline is None:
            return timedelta(0)
        return deadline - self._host.now()

    def _next_turn(self) -> datetime:
        """When the provider is asked again, or the last acknowledgement is given up."""
        reconcile, left, now = self._plan.reconcile, self._time_to_ask(), self._host.now()
        if reconcile is not None and left > timedelta(0):
            asked = max(now + reconcile.every, self._state.ask_from or now)
            # It is asked once more when the time is over, whatever it has said.
            at = min(asked, now + left)
            self._state.wait_for(WaitingFor.RECONCILIATION, at)
            return at
        within = self._plan.acknowledge.within if self._plan.acknowledge else timedelta(0)
        return now + within

    def _has_news(self) -> bool:
        state = self._state
        is_known = state.effect is not Effect.UNKNOWN or not self._may_be_corrected()
        return is_known or state.has_entries or self._is_outdated()

    def _is_outdated(self) -> bool:
        is_reconciling = self._state.stage is Stage.RECONCILING
        is_outdated = is_reconciling and self._host.should_continue_as_new()
        return is_outdated or self._host.should_move_out()
