"""The acknowledgement protocol of one call, whatever hosts it.

prepare ─► send ─► await response ─► capture ─► acknowledge(success)
            │            │  ▲ extension
            │ no receipt │ deadline or failure: ask once, acknowledge(failed), next cycle
            ▼            ▼
          park or fail, with a notice
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from temporalio import workflow

from . import steps
from .host import Host, StepFailed
from .settlement import Settlement, is_due

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        AcknowledgementKind,
        AcknowledgeStep,
        AskStep,
        CallOutcome,
        CallRequest,
        CallStatus,
        Cancel,
        ConcludeStep,
        ForceAck,
        LatePolicy,
        MessageKind,
        MessageSource,
        Notice,
        OnFailure,
        OutcomeStatus,
        Plan,
        PrepareStep,
        ProviderMessage,
        RecordStep,
        Reprocess,
        SendStep,
        Sent,
        Stage,
        Steering,
        StepFailure,
        SuppressedMessage,
        Timings,
    )
    from ackbridge.contracts.search import IN_FLIGHT


class Heard(Enum):
    """Why listening ended, other than by a failure."""

    ANSWER = auto()
    SILENCE = auto()
    CANCEL = auto()
    REPROCESS = auto()


@dataclass(frozen=True)
class Unanswered:
    """A cycle that ended without an answer.

    Attributes:
        reason: why, for people.
        again: whether another cycle may do better right now.
        parked_reason: under which name operators find it when it is parked.
        notice: which of the operation's notices fits.
        is_final: parking is over as well.
    """

    reason: str
    again: bool
    parked_reason: str
    notice: str = "failed"
    is_final: bool = False


class CallProtocol:
    """One call from its request to its outcome.

    The host feeds it with what arrives (`hear`, `cancel`, `force`, `reprocess`, `reject`), asks it
    (`status`, `released`) and runs it (`run`).

    Attributes:
        refusal: why `prepare` refused the call, if it did; nothing was sent then.
    """

    def __init__(self, host: Host, request: CallRequest, run_chain: str) -> None:
        self._host = host
        self._request = request
        self._run_chain = run_chain
        self._plan: Plan | None = None
        self._timings = Timings(started_at=host.now())

        self._stage = Stage.PREPARING
        self._since = host.now()
        self._cycle = 1
        self._attempts = 0
        self._deadline: datetime | None = None
        self._deadline_reason: str | None = None
        self._reference: str | None = None
        self._last_error: str | None = None
        self._notice: Notice | None = None

        self._heard: deque[ProviderMessage] = deque()
        self._seen: set[str] = set()
        self._duplicates = 0
        self._suppressed: list[SuppressedMessage] = []
        self._cancelled: Steering | None = None
        self._forced: Steering | None = None
        self._reprocess = False

        # The provider may be working on a request we have neither answered nor given up.
        self._exposed = False
        self._was_exposed = False
        # The current key is used up: a provider would only replay what it stored under it.
        self._key_spent = False
        self._gave_up = False
        self._settlement = Settlement(host, self._show)
        self._outcome: CallOutcome | None = None
        self.refusal: StepFailed | None = None

    # What it is told

    def hear(self, message: ProviderMessage) -> None:
        """Take a provider's message; one that was heard before is suppressed."""
        if message.event_key in self._seen:
            self._duplicates += 1
            self._suppress(message, "duplicate: this call has seen the event key")
        elif self._outcome is not None:
            self._suppress(message, f"the call is {self._outcome.status} already")
        else:
            self._seen.add(message.event_key)
            self._heard.append(message)

    def cancel(self, order: Cancel) -> None:
        """Stop waiting, tell the provider, end as cancelled; too late once there is an outcome."""
        if self._outcome is not None:
            self.reject(f"cancel by {order.by}: too late, the call is {self._outcome.status}")
        elif self._cancelled is None:
            self._cancelled = Steering(by=order.by, reason=order.reason)

    def force(self, order: ForceAck) -> None:
        """Take an operator's word for the answer; too late once there is an outcome."""
        if self._outcome is not None:
            self.reject(f"force_ack by {order.by}: too late, the call is {self._outcome.status}")
            return
        self._forced = Steering(by=order.by, reason=order.reason)
        self.hear(
            ProviderMessage(
                kind=MessageKind.RESPONSE,
                event_key=self._forced_key,
                data=order.response,
                source=MessageSource.OPERATOR,
                received_at=self._host.now(),
            )
        )

    def reprocess(self, order: Reprocess) -> None:
        """Take a parked call up again."""
        if self._stage is Stage.PARKED:
            self._reprocess = True
        else:
            self.reject(f"reprocess by {order.by}: the call is not parked but {self._stage}")

    def reject(self, problem: str) -> None:
        """Keep what was wrong with something we were sent, for whoever looks at the status."""
        self._last_error = problem
        self._show()

    # What it is asked

    @property
    def released(self) -> bool:
        """Whether whoever waits for the outcome can be answered now."""
        return self._outcome is not None or self._stage is Stage.PARKED or self.refusal is not None

    @property
    def outcome(self) -> CallOutcome | None:
        """How the call ended, once it did."""
        return self._outcome

    def status(self) -> CallStatus:
        """Where the call is."""
        return CallStatus(
            call_id=self._request.call_id,
            stage=self._stage,
            since=self._since,
            cycle=self._cycle,
            attempts=self._attempts,
            deadline=self._deadline,
            deadline_reason=self._deadline_reason,
            reference=self._reference,
            last_error=self._last_error,
            notice=self._notice,
            acknowledgements_owed=self._settlement.owed,
            duplicates=self._duplicates,
            outcome=self._outcome,
        )

    # What it does

    async def run(self) -> CallOutcome:
        """Conduct the call to its end.

        Raises:
            StepFailed: it was refused before anything was sent.
        """
        try:
            prepared = await self._host.perform(
                self._request.provider,
                steps.PREPARE,
                PrepareStep(request=self._request, run_chain=self._run_chain),
            )
        except StepFailed as refusal:
            self.refusal = refusal
            self._last_error = refusal.reason
            self._enter(Stage.FAILED)
            raise
        if prepared.plan is None:
            self._outcome = prepared.recorded
        else:
            self._plan = prepared.plan
            if prepared.plan.indexed:
                self._host.index_at_start(self._request.provider, self._request.operation)
            await self._converse(prepared.plan)
            await self._host.wait(
                lambda: self._settlement.is_settled, None, "acknowledgements we owe"
            )
            await self._conclude_if_needed()
        return self._finish()

    async def _converse(self, plan: Plan) -> None:
        """Cycles, and parking, until there is an outcome."""
        ending = self._not_now(plan.not_now) if plan.not_now else await self._one_cycle(plan)
        while True:
            if ending is Heard.ANSWER:
                return await self._acknowledge(plan, AcknowledgementKind.SUCCESS)
            if ending is Heard.CANCEL:
                return await self._end_cancelled(plan)
            if not isinstance(ending, Unanswered) or (ending.again and self._cycle < plan.cycles):
                ending = await self._one_cycle(plan)
            elif plan.on_failure is OnFailure.PARK and not ending.is_final:
                ending = await self._park(plan, ending)
            else:
                return await self._give_up(plan, ending)

    async def _one_cycle(self, plan: Plan) -> Heard | Unanswered:
        """Send, and listen until the deadline; what remains open is acknowledged as failed."""
        if self._key_spent:
            self._cycle += 1
            self._key_spent = False
        sent = await self._send(plan)
        ending: Heard | Unanswered
        if isinstance(sent, Unanswered):
            ending = await self._listen(plan, until=self._host.now(), summary="")
            return sent if ending is Heard.SILENCE else ending
        self._set_deadline(sent, plan)
        self._enter(Stage.AWAITING_RESPONSE)
        ending = await self._listen(plan, self._deadline, f"response {plan.deadline_reason}")
        if ending is Heard.SILENCE:
            ending = await self._ask(plan)
        if ending is Heard.SILENCE:
            ending = Unanswered(
                reason=f"no response by the deadline ({plan.deadline_reason})",
                again=True,
                parked_reason="no_response",
            )
        if isinstance(ending, Unanswered):
            self._last_error = ending.reason
            await self._acknowledge(plan, AcknowledgementKind.FAILED, ending.reason)
        return ending

    async def _send(self, plan: Plan) -> Sent | Unanswered:
        """Send under the cycle's key until the provider has it."""
        self._enter(Stage.SENDING)
        try:
            sent = await self._host.perform(
                self._request.provider,
                steps.send(plan, self._cycle),
                SendStep(request=self._request, cycle=self._cycle),
            )
        except StepFailed as failure:
            return self._not_received(failure)
        self._attempts += sent.attempt
        self._exposed = self._was_exposed = True
        self._reference = sent.reference or self._reference
        for message in sent.messages:
            self.hear(message)
        return sent

    def _not_received(self, failure: StepFailed) -> Unanswered:
        """Tell apart what never left us, what was refused, and what may have arrived."""
        self._attempts += failure.attempts
        self._exposed = self._exposed or failure.reached
        self._was_exposed = self._was_exposed or failure.reached
        self._last_error = failure.reason
        if failure.kind == StepFailure.REFUSED:
            self._exposed = False
            self._key_spent = True
            return Unanswered(failure.reason, False, "refused", notice="refused")
        if failure.kind == StepFailure.UNAVAILABLE:
            return Unanswered(failure.reason, False, "not_sent")
        return Unanswered(failure.reason, False, "no_receipt")

    async def _listen(self, plan: Plan, until: datetime | None, summary: str) -> Heard | Unanswered:
        """Take messages as they come, until one decides, an order comes, or time is up."""
        while True:
            if self._heard:
                message = self._heard.popleft()
                if message.kind is MessageKind.EXTENSION:
                    until = self._extend(plan, message, until)
                elif message.kind is MessageKind.RESPONSE:
                    if await self._capture(plan, message):
                        return Heard.ANSWER
                elif self._stage is Stage.PARKED:
                    self._suppress(message, "a failure of a call that is parked already")
                else:
                    return self._provider_failed(message)
            elif self._cancelled is not None:
                return Heard.CANCEL
            elif self._reprocess:
                self._reprocess = False
                return Heard.REPROCESS
            elif not await self._host.wait(self._is_roused, until, summary):
                return Heard.SILENCE

    def _is_roused(self) -> bool:
        return bool(self._heard) or self._cancelled is not None or self._reprocess

    def _provider_failed(self, message: ProviderMessage) -> Unanswered:
        return Unanswered(
            reason=f"the provider reported a failure: {message.reason or 'no reason given'}",
            again=message.retryable,
            parked_reason="provider_failure",
        )

    def _extend(
        self, plan: Plan, message: ProviderMessage, until: datetime | None
    ) -> datetime | None:
        """Move the deadline as the provider asks, up to the operation's ceiling."""
        sent_at = self._timings.sent_at
        if self._stage is not Stage.AWAITING_RESPONSE or until is None or sent_at is None:
            self._suppress(message, f"an extension of a call that is {self._stage}")
            return until
        wanted = message.until or (self._host.now() + (message.extend_by or plan.deadline))
        until = max(until, min(wanted, sent_at + plan.ceiling))
        self._deadline = until
        self._deadline_reason = f"extended by the provider, at most {plan.ceiling} from the sending"
        self._enter(Stage.AWAITING_RESPONSE)
        return until

    async def _ask(self, plan: Plan) -> Heard | Unanswered:
        """Ask the provider once before giving up on it."""
        if not plan.ask_status:
            return Heard.SILENCE
        try:
            asked = await self._host.perform(
                self._request.provider,
                steps.ask_status(plan),
                AskStep(request=self._request, cycle=self._cycle, reference=self._reference),
            )
        except StepFailed as failure:
            self._last_error = failure.reason
            return Heard.SILENCE
        if asked.message is not None:
            self.hear(asked.message)
        return await self._listen(
            plan, self._deadline, f"response, {self._deadline_reason} (asked once)"
        )

    async def _capture(self, plan: Plan, message: ProviderMessage) -> bool:
        """Write the response exactly once. False: it is not this call's to have."""
        is_forced = message.event_key == self._forced_key
        late = self._gave_up and self._stage is Stage.PARKED and not is_forced
        if late and plan.late is not LatePolicy.ACCEPT:
            self._suppress(message, f"late, and the operation says: {plan.late}")
            return False
        before = self._stage
        self._enter(Stage.CAPTURING)
        self._timings = self._timings.model_copy(update={"answered_at": self._host.now()})
        outcome = self._draft(OutcomeStatus.COMPLETED).model_copy(
            update={
                "response": message.data,
                "late": late,
                "forced": self._forced if is_forced else None,
                "acknowledgement_owed": self._owes(plan, AcknowledgementKind.SUCCESS),
            }
        )
        recorded = await self._host.perform(
            self._request.provider,
            steps.RECORD,
            RecordStep(request=self._request, cycle=self._cycle, message=message, outcome=outcome),
        )
        if not recorded.accepted:
            self._suppress(message, recorded.reason or "the ledger has it already")
            self._enter(before)
            return False
        self._notice = None
        self._outcome = outcome
        return True

    async def _park(self, plan: Plan, ending: Unanswered) -> Heard | Unanswered:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        self._deadline = self._host.now() + plan.parked_for
        self._deadline_reason = f"parked for at most {plan.parked_for}: {ending.reason}"
        self._notice = self._notice_of(plan, "delayed")
        self._enter(Stage.PARKED)
        self._host.index(Stage.PARKED, ending.parked_reason, self._deadline)
        await self._conclude(Stage.PARKED, ending.reason)
        heard = await self._listen(plan, self._deadline, self._deadline_reason)
        self._host.index(IN_FLIGHT, None, None)
        return replace(ending, is_final=True) if heard is Heard.SILENCE else heard

    async def _give_up(self, plan: Plan, ending: Unanswered) -> None:
        """End as failed, with a notice, and tell the provider if it may still be working."""
        await self._acknowledge(plan, AcknowledgementKind.FAILED, ending.reason)
        self._notice = self._notice_of(plan, ending.notice)
        self._outcome = self._draft(OutcomeStatus.FAILED).model_copy(
            update={"reason": ending.reason, "notice": self._notice}
        )

    async def _end_cancelled(self, plan: Plan) -> None:
        """End as cancelled; the provider is told if it may still be working."""
        steering = self._cancelled
        reason = f"cancelled by {steering.by}: {steering.reason}" if steering else "cancelled"
        await self._acknowledge(plan, AcknowledgementKind.FAILED, reason)
        self._notice = self._notice_of(plan, "cancelled")
        self._outcome = self._draft(OutcomeStatus.CANCELLED).model_copy(
            update={"reason": reason, "notice": self._notice, "cancelled": steering}
        )

    # What it owes, and what it leaves behind

    def _owes(self, plan: Plan, kind: AcknowledgementKind) -> bool:
        """Whether the provider is owed this acknowledgement: never for what was not sent."""
        is_open = self._was_exposed if kind is AcknowledgementKind.SUCCESS else self._exposed
        return is_open and is_due(plan, kind)

    async def _acknowledge(
        self, plan: Plan, kind: AcknowledgementKind, reason: str | None = None
    ) -> None:
        """Close the cycle towards the provider."""
        owes = self._owes(plan, kind)
        if kind is AcknowledgementKind.FAILED:
            self._gave_up = self._gave_up or self._exposed
            self._key_spent = self._key_spent or self._exposed
        self._exposed = False
        if not owes or plan.acknowledge is None:
            return
        self._enter(Stage.ACKNOWLEDGING)
        outcome = self._outcome
        if outcome is not None:
            outcome = outcome.model_copy(update={"acknowledgement_owed": False})
        await self._settlement.acknowledge(
            plan,
            plan.acknowledge,
            AcknowledgeStep(
                request=self._request,
                cycle=self._cycle,
                kind=kind,
                reference=self._reference,
                response=outcome.response if outcome else None,
                reason=reason,
                outcome=outcome,
            ),
        )

    async def _conclude_if_needed(self) -> None:
        """Keep the end in the ledger, unless capture and acknowledgement have done so already."""
        if self._outcome is None:
            return
        if self._outcome.status is not OutcomeStatus.COMPLETED or self._suppressed:
            self._outcome = self._final(self._outcome)
            await self._conclude(Stage(self._outcome.status), self._outcome.reason)

    async def _conclude(self, stage: Stage, reason: str | None) -> None:
        suppressed, self._suppressed = tuple(self._suppressed), []
        await self._host.perform(
            self._request.provider,
            steps.CONCLUDE,
            ConcludeStep(
                request=self._request,
                stage=stage,
                reason=reason,
                outcome=self._outcome,
                suppressed=suppressed,
            ),
        )

    def _finish(self) -> CallOutcome:
        if self._outcome is None:
            raise StepFailed("NoOutcome", "the protocol ended without an outcome")
        if self._plan is not None:
            self._outcome = self._final(self._outcome)
        self._deadline = self._deadline_reason = None
        self._enter(Stage(self._outcome.status))
        return self._outcome

    def _final(self, outcome: CallOutcome) -> CallOutcome:
        """The outcome as it stands when the call is over."""
        timings = outcome.timings.model_copy(update={"ended_at": self._host.now()})
        return outcome.model_copy(
            update={"acknowledgement_owed": self._settlement.owed > 0, "timings": timings}
        )

    def _draft(self, status: OutcomeStatus) -> CallOutcome:
        return CallOutcome(
            call_id=self._request.call_id,
            status=status,
            reference=self._reference,
            cycles=self._cycle,
            attempts=self._attempts,
            timings=self._timings,
        )

    def _not_now(self, reason: str) -> Unanswered:
        return Unanswered(reason, again=False, parked_reason="switched_off", notice="refused")

    def _set_deadline(self, sent: Sent, plan: Plan) -> None:
        """Count from the moment of sending, in the host's clock: the sender's may differ."""
        receipt_at = self._host.now()
        sent_at = receipt_at - (sent.receipt_at - sent.sent_at)
        self._timings = self._timings.model_copy(
            update={"sent_at": sent_at, "receipt_at": receipt_at}
        )
        self._deadline = sent_at + plan.deadline
        self._deadline_reason = plan.deadline_reason

    def _notice_of(self, plan: Plan, kind: str) -> Notice | None:
        return plan.notices.get(kind)

    def _suppress(self, message: ProviderMessage, reason: str) -> None:
        self._suppressed.append(SuppressedMessage(event_key=message.event_key, reason=reason))

    @property
    def _forced_key(self) -> str:
        return f"operator:{self._request.call_id}"

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._since = self._host.now()
        self._show()

    def _show(self) -> None:
        self._host.show(self.status())
