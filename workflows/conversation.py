"""Talking with the provider: cycles of sending and listening, until something decides the call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from temporalio import workflow

from . import steps
from .hearing import Hearing
from .host import Host, StepFailed
from .orders import Orders
from .progress import Progress
from .settlement import Settlement, is_due

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import (
        AcknowledgementKind,
        AcknowledgeStep,
        AskStep,
        CallOutcome,
        CallRequest,
        ConcludeStep,
        LatePolicy,
        MessageKind,
        OnFailure,
        OutcomeStatus,
        Plan,
        ProviderMessage,
        RecordStep,
        SendStep,
        Sent,
        Stage,
        StepFailure,
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
        parked_reason: under which name operators find it when it is parked.
        again: whether another cycle may do better right now.
        notice: which of the operation's notices fits.
        is_final: parking is over as well.
    """

    reason: str
    parked_reason: str
    again: bool = False
    notice: str = "failed"
    is_final: bool = False


class Conversation:
    """Everything between a plan and an outcome."""

    def __init__(
        self,
        host: Host,
        request: CallRequest,
        plan: Plan,
        progress: Progress,
        hearing: Hearing,
        orders: Orders,
        settlement: Settlement,
    ) -> None:
        self._host = host
        self._request = request
        self._plan = plan
        self._progress = progress
        self._hearing = hearing
        self._orders = orders
        self._settlement = settlement
        # The provider may be working on a request we have neither answered nor given up.
        self._is_exposed = False
        self._was_exposed = False
        # The cycle's key is used up: a provider would only replay what it stored under it.
        self._is_key_spent = False
        self._has_given_up = False

    async def hold(self) -> CallOutcome:
        """Cycles, and parking, until there is an outcome."""
        ending: Heard | Unanswered
        if self._plan.not_now:
            ending = Unanswered(self._plan.not_now, "switched_off", notice="refused")
        else:
            ending = await self._one_cycle()
        while True:
            if ending is Heard.ANSWER:
                return await self._confirm()
            if ending is Heard.CANCEL:
                return await self._end_cancelled()
            if not isinstance(ending, Unanswered) or self._may_try_again(ending):
                ending = await self._one_cycle()
            elif self._plan.on_failure is OnFailure.PARK and not ending.is_final:
                ending = await self._park(ending)
            else:
                return await self._give_up(ending)

    def is_unrecorded(self, outcome: CallOutcome) -> bool:
        """Whether capture and acknowledgement have not kept the whole end in the ledger."""
        return outcome.status is not OutcomeStatus.COMPLETED or self._hearing.has_suppressed

    async def conclude(self, stage: Stage, reason: str | None) -> None:
        """Keep in the ledger where the call stands, with what was suppressed."""
        await self._host.perform(
            self._request.provider,
            steps.CONCLUDE,
            ConcludeStep(
                request=self._request,
                stage=stage,
                reason=reason,
                outcome=self._progress.outcome,
                suppressed=self._hearing.take_suppressed(),
            ),
        )

    def _may_try_again(self, ending: Unanswered) -> bool:
        return ending.again and self._progress.cycle < self._plan.cycles

    async def _one_cycle(self) -> Heard | Unanswered:
        """Send, and listen until the deadline; what remains open is acknowledged as failed."""
        if self._is_key_spent:
            self._progress.cycle += 1
            self._is_key_spent = False
        sent = await self._send()
        ending: Heard | Unanswered
        if isinstance(sent, Unanswered):
            ending = await self._listen(self._host.now(), "")
            return sent if ending is Heard.SILENCE else ending
        deadline = self._progress.received(sent, self._plan)
        self._enter(Stage.AWAITING_RESPONSE)
        ending = await self._listen(deadline, f"response deadline {self._plan.deadline_reason}")
        if ending is Heard.SILENCE:
            ending = await self._ask()
        if ending is Heard.SILENCE:
            reason = f"no response within {self._progress.deadline_reason}"
            ending = Unanswered(reason, "no_response", again=True)
        if isinstance(ending, Unanswered):
            self._progress.last_error = ending.reason
            await self._acknowledge(AcknowledgementKind.FAILED, ending.reason)
        return ending

    async def _send(self) -> Sent | Unanswered:
        """Send under the cycle's key until the provider has it."""
        self._enter(Stage.SENDING)
        cycle = self._progress.cycle
        try:
            sent = await self._host.perform(
                self._request.provider,
                steps.send(self._plan, cycle),
                SendStep(request=self._request, cycle=cycle),
            )
        except StepFailed as failure:
            return self._not_received(failure)
        self._progress.attempts += sent.attempt
        self._progress.reference = sent.reference or self._progress.reference
        self._is_exposed = self._was_exposed = True
        for message in sent.messages:
            self._hearing.hear(message)
        return sent

    def _not_received(self, failure: StepFailed) -> Unanswered:
        """Tell apart what never left us, what was refused, and what may have arrived."""
        self._progress.attempts += failure.attempts
        self._progress.last_error = failure.reason
        if failure.kind == StepFailure.REFUSED:
            self._is_exposed = False
            self._is_key_spent = True
            return Unanswered(failure.reason, "refused", notice="refused")
        if failure.kind != StepFailure.NO_RECEIPT:
            return Unanswered(failure.reason, "not_sent")
        self._is_exposed = self._is_exposed or failure.reached
        self._was_exposed = self._was_exposed or failure.reached
        return Unanswered(failure.reason, "no_receipt")

    async def _listen(self, until: datetime, summary: str) -> Heard | Unanswered:
        """Take messages as they come, until one decides, an order comes, or time is up."""
        while True:
            if self._hearing:
                message = self._hearing.next()
                if message.kind is MessageKind.EXTENSION:
                    until = self._extend(message) or until
                elif message.kind is MessageKind.RESPONSE:
                    if await self._capture(message):
                        return Heard.ANSWER
                elif self._progress.stage is Stage.PARKED:
                    self._hearing.suppress(message, "a failure of a call that is parked already")
                else:
                    said = message.reason or "no reason given"
                    reason = f"the provider reported a failure: {said}"
                    return Unanswered(reason, "provider_failure", again=message.retryable)
            elif self._orders.cancelled is not None:
                return Heard.CANCEL
            elif self._orders.reprocess:
                self._orders.reprocess = False
                return Heard.REPROCESS
            elif not await self._host.wait(self._is_roused, until, summary):
                return Heard.SILENCE

    def _is_roused(self) -> bool:
        return bool(self._hearing) or self._orders.interrupt

    def _extend(self, message: ProviderMessage) -> datetime | None:
        """Move the deadline as the provider asks, up to the operation's ceiling."""
        wanted = message.until or self._host.now() + (message.extend_by or self._plan.deadline)
        moved = self._progress.extended(wanted, self._plan.ceiling)
        if moved is None:
            stage = self._progress.stage
            self._hearing.suppress(message, f"an extension of a call that is {stage}")
        else:
            self._show()
        return moved

    async def _ask(self) -> Heard | Unanswered:
        """Ask the provider once before giving up on it."""
        if not self._plan.ask_status:
            return Heard.SILENCE
        try:
            asked = await self._host.perform(
                self._request.provider,
                steps.ask_status(self._plan),
                AskStep(
                    request=self._request,
                    cycle=self._progress.cycle,
                    reference=self._progress.reference,
                ),
            )
        except StepFailed as failure:
            self._progress.last_error = failure.reason
            return Heard.SILENCE
        if asked.message is not None:
            self._hearing.hear(asked.message)
        deadline = self._progress.deadline or self._host.now()
        return await self._listen(deadline, "the provider was asked, and wanted more time")

    async def _capture(self, message: ProviderMessage) -> bool:
        """Write the response exactly once. False: it is not this call's to have."""
        is_forced = message.event_key == self._orders.forced_key(self._request.call_id)
        before = self._progress.stage
        late = self._has_given_up and before is Stage.PARKED and not is_forced
        if late and self._plan.late is not LatePolicy.ACCEPT:
            self._hearing.suppress(message, f"late, and the operation says: {self._plan.late}")
            return False
        self._enter(Stage.CAPTURING)
        self._progress.answered()
        outcome = self._progress.draft(OutcomeStatus.COMPLETED).model_copy(
            update={
                "response": message.data,
                "late": late,
                "forced": self._orders.forced if is_forced else None,
                "acknowledgement_owed": self._is_owed(AcknowledgementKind.SUCCESS),
            }
        )
        recorded = await self._host.perform(
            self._request.provider,
            steps.RECORD,
            RecordStep(
                request=self._request,
                cycle=self._progress.cycle,
                message=message,
                outcome=outcome,
            ),
        )
        if not recorded.accepted:
            self._hearing.suppress(message, recorded.reason or "the ledger has it already")
            self._enter(before)
            return False
        self._progress.notice = None
        self._progress.outcome = outcome
        return True

    async def _park(self, ending: Unanswered) -> Heard | Unanswered:
        """Wait, open and durable, for a late response, an operator, or a batch."""
        reason = f"parked for at most {self._plan.parked_for}: {ending.reason}"
        until = self._progress.wait_until(self._host.now() + self._plan.parked_for, reason)
        self._progress.notice = self._plan.notices.get("delayed")
        self._enter(Stage.PARKED)
        self._host.index(Stage.PARKED, ending.parked_reason, until)
        await self.conclude(Stage.PARKED, ending.reason)
        heard = await self._listen(until, reason)
        self._host.index(IN_FLIGHT, None, None)
        return replace(ending, is_final=True) if heard is Heard.SILENCE else heard

    async def _confirm(self) -> CallOutcome:
        """The response is ours; tell the provider so."""
        await self._acknowledge(AcknowledgementKind.SUCCESS, None)
        return self._progress.outcome or self._progress.draft(OutcomeStatus.COMPLETED)

    async def _give_up(self, ending: Unanswered) -> CallOutcome:
        """End as failed, with a notice; the provider is told if it may still be working."""
        await self._acknowledge(AcknowledgementKind.FAILED, ending.reason)
        return self._end(OutcomeStatus.FAILED, ending.reason, ending.notice)

    async def _end_cancelled(self) -> CallOutcome:
        """End as cancelled; the provider is told if it may still be working."""
        steering = self._orders.cancelled
        reason = f"cancelled by {steering.by}: {steering.reason}" if steering else "cancelled"
        await self._acknowledge(AcknowledgementKind.FAILED, reason)
        return self._end(OutcomeStatus.CANCELLED, reason, "cancelled")

    def _end(self, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        self._progress.notice = self._plan.notices.get(notice)
        is_cancelled = status is OutcomeStatus.CANCELLED
        outcome = self._progress.draft(status).model_copy(
            update={
                "reason": reason,
                "notice": self._progress.notice,
                "cancelled": self._orders.cancelled if is_cancelled else None,
            }
        )
        self._progress.outcome = outcome
        return outcome

    def _is_owed(self, kind: AcknowledgementKind) -> bool:
        """Whether the provider is owed this acknowledgement: never for what was not sent."""
        is_success = kind is AcknowledgementKind.SUCCESS
        return (self._was_exposed if is_success else self._is_exposed) and is_due(self._plan, kind)

    async def _acknowledge(self, kind: AcknowledgementKind, reason: str | None) -> None:
        """Close the cycle towards the provider."""
        is_owed = self._is_owed(kind)
        if kind is AcknowledgementKind.FAILED and self._is_exposed:
            self._has_given_up = True
            self._is_key_spent = True
        self._is_exposed = False
        if not is_owed:
            return
        self._enter(Stage.ACKNOWLEDGING)
        outcome = self._progress.outcome
        await self._settlement.acknowledge(
            self._plan,
            AcknowledgeStep(
                request=self._request,
                cycle=self._progress.cycle,
                kind=kind,
                reference=self._progress.reference,
                response=outcome.response if outcome else None,
                reason=reason,
                outcome=outcome,
            ),
        )

    def _enter(self, stage: Stage) -> None:
        self._progress.enter(stage)
        self._show()

    def _show(self) -> None:
        self._host.show(self._progress.status(self._settlement.owed, self._hearing.duplicates))
