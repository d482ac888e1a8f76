"""One attempt of an activity: what it does to the provider and the ledger, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.plan import Plan, Prepared, ResponseMode
from ackbridge.contracts.steps import (
    Acknowledged,
    AcknowledgementKind,
    AcknowledgeStep,
    Asked,
    AskStep,
    Concluded,
    ConcludeStep,
    CorrelateStep,
    FailedAttempt,
    InboxMessages,
    LookStep,
    PollStep,
    PrepareStep,
    ReconsiderStep,
    RecordStep,
    SendStep,
    Sent,
    StepFailure,
)
from ackbridge.contracts.wire import Wire

from .engine import End, Failed, Silent
from .simulated_services import Ledger, Provider


class AttemptResult(StrEnum):
    """What happens to one attempt, as far as the parties let it."""

    GOOD = "good"
    LOST = "lost"
    """It has its effect, and the answer is lost."""
    UNREACHED = "unreached"
    THROTTLED = "throttled"
    REFUSED = "refused"
    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"
    """The worker dies with the answer in hand."""

    @property
    def kills(self) -> bool:
        return self in (AttemptResult.DIES_BEFORE, AttemptResult.DIES_AFTER)


MAX_REFUSALS = 4
"""Attempts after which a refused acknowledgement is refused for good."""

LOST_ANSWER = Failed(StepFailure.NO_RECEIPT, reached=True)
NOT_REACHED = Failed(StepFailure.NO_RECEIPT)
NO_LEDGER = Failed(StepFailure.UNAVAILABLE)


StatusAnswer = Callable[[int, str], ProviderMessage | None]


class Workers:
    """Performs attempts as the activities do.

    Attributes:
        status_answer: makes the answer to a status request, if there is one.
        combines: as in `Setting`.
    """

    def __init__(
        self, provider: Provider, ledger: Ledger, plan: Plan, clock: Callable[[], datetime]
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._plan = plan
        self._clock = clock
        self.status_answer: StatusAnswer = lambda *_: None
        self.combines = True
        self._activities: dict[type, Callable[..., End]] = {
            PrepareStep: self._prepare,
            ReconsiderStep: self._reconsider,
            SendStep: self._send,
            CorrelateStep: self._read_inbox,
            LookStep: self._read_inbox,
            AskStep: self._ask,
            PollStep: self._poll,
            RecordStep: self._record,
            AcknowledgeStep: self._acknowledge,
            ConcludeStep: self._conclude,
        }

    def attempt(
        self, argument: Any, result: AttemptResult, began: datetime, number: int = 1
    ) -> End:
        """Do it; `number` counts the attempts of this activity."""
        if result is AttemptResult.DIES_BEFORE:
            return Silent()
        end = self._activities[type(argument)](argument, result, began, number)
        return Silent() if result is AttemptResult.DIES_AFTER else end

    def _prepare(
        self, step: PrepareStep, result: AttemptResult, began: datetime, number: int
    ) -> End:
        if not self._ledger.is_up or result is AttemptResult.UNREACHED:
            return NO_LEDGER
        was_claimed = self._ledger.claim()
        if result is AttemptResult.LOST and (was_claimed or not self.sends_with_prepare(step)):
            return NO_LEDGER
        captured = self._ledger.response and self._ledger.outcomes[-1]
        prepared = Prepared(
            plan=self._plan, repeated=was_claimed and self._plan.send.local, recorded=captured
        )
        if was_claimed or not self.sends_with_prepare(step):
            return prepared
        end = self._send(SendStep(request=step.request, cycle=1), result, began, 1)
        return prepared.model_copy(update={"sent": _combined_result(end)})

    def sends_with_prepare(self, step: PrepareStep) -> bool:
        """Whether the request goes out with this preparation, if it is the first one."""
        plan = self._plan
        may_ride = plan.send.local and plan.repeatable and plan.not_now is None
        return self.combines and step.sends and may_ride

    def _reconsider(
        self, step: ReconsiderStep, result: AttemptResult, began: datetime, number: int
    ) -> End:
        if result is AttemptResult.REFUSED:
            return AdmissionState(not_now="switched off", parked_reason="switched_off")
        return AdmissionState()

    def _send(self, step: SendStep, result: AttemptResult, began: datetime, number: int) -> End:
        self._provider.asked.append((step.cycle, len(self._provider.accepted)))
        return self._sent(step, result, began, number)

    def _sent(self, step: SendStep, result: AttemptResult, began: datetime, number: int) -> End:
        provider = self._provider
        if not provider.is_up or result is AttemptResult.UNREACHED:
            return NOT_REACHED
        if result is AttemptResult.THROTTLED:
            return Failed(StepFailure.NO_RECEIPT, delay=timedelta(seconds=20))
        if result is AttemptResult.REFUSED or step.cycle in provider.refused:
            if step.cycle not in provider.works:
                provider.refused.add(step.cycle)
            return Failed(StepFailure.REFUSED, final=True)
        reference = provider.take(step.cycle)
        if result is AttemptResult.LOST:
            return LOST_ANSWER
        messages = tuple(self._ledger.inbox)
        if self._plan.mode is ResponseMode.SYNC:
            said = self.status_answer(step.cycle, f"sync:{step.cycle}")
            if said is None:
                return Failed(StepFailure.UNREADABLE, reached=True, final=True)
            messages = (said,)
        is_uncorrelated = self._plan.mode is not ResponseMode.SYNC and not self._ledger.is_up
        return Sent(
            sent_at=began,
            receipt_at=self._clock(),
            reference=reference if provider.tells_reference else None,
            messages=() if is_uncorrelated else messages,
            again=step.reached,
            uncorrelated=is_uncorrelated,
        )

    def _read_inbox(
        self, step: CorrelateStep | LookStep, result: AttemptResult, began: datetime, number: int
    ) -> End:
        if not self._ledger.is_up or result in (AttemptResult.UNREACHED, AttemptResult.LOST):
            return NO_LEDGER
        new = (one for one in self._ledger.inbox if one.event_key not in step.seen)
        return InboxMessages(messages=tuple(new))

    def _ask(self, step: AskStep, result: AttemptResult, began: datetime, number: int) -> End:
        if not self._provider.is_up or result in (
            AttemptResult.UNREACHED,
            AttemptResult.THROTTLED,
            AttemptResult.LOST,
        ):
            return NOT_REACHED
        if result is AttemptResult.REFUSED or step.cycle not in self._provider.works:
            return Asked()
        return Asked(message=self.status_answer(step.cycle, f"status:{step.cycle}"))

    def _poll(self, step: PollStep, result: AttemptResult, began: datetime, number: int) -> End:
        if not self._provider.is_up or result in (
            AttemptResult.UNREACHED,
            AttemptResult.THROTTLED,
            AttemptResult.LOST,
        ):
            return Failed(StepFailure.NO_RECEIPT, delay=step.every)
        known = step.cycle in self._provider.works
        said = self.status_answer(step.cycle, f"poll:{step.cycle}") if known else None
        if said is None or said.event_key in step.answered:
            return Failed(StepFailure.NOT_YET, delay=step.every)
        return Asked(message=said)

    def _record(self, step: RecordStep, result: AttemptResult, began: datetime, number: int) -> End:
        if not self._ledger.is_up or result is AttemptResult.UNREACHED:
            return NO_LEDGER
        recorded = self._ledger.record(step)
        if not (self.combines and step.acknowledges and recorded.accepted):
            return NO_LEDGER if result is AttemptResult.LOST else recorded
        success = AcknowledgeStep(
            request=step.request,
            cycle=step.cycle,
            kind=AcknowledgementKind.SUCCESS,
            reference=step.reference,
            outcome=step.outcome.model_copy(update={"response": step.message.data}),
        )
        end = self._acknowledge(success, result, began, number)
        return recorded.model_copy(update={"acknowledged": _combined_result(end)})

    def _acknowledge(
        self, step: AcknowledgeStep, result: AttemptResult, began: datetime, number: int
    ) -> End:
        end = self._accept(step, result, number)
        if isinstance(end, Failed) and self._ledger.is_up:
            self._ledger.owed.add((step.cycle, step.kind))
        return end

    def _accept(self, step: AcknowledgeStep, result: AttemptResult, number: int) -> End:
        provider = self._provider
        if provider.needs_reference and step.reference is None:
            return Failed(StepFailure.NOT_ADDRESSED, final=True)
        if provider.acknowledging == "down" or result in (
            AttemptResult.UNREACHED,
            AttemptResult.THROTTLED,
        ):
            return Failed(StepFailure.NOT_ACCEPTED)
        if provider.acknowledging == "refuses" or result is AttemptResult.REFUSED:
            return Failed(
                StepFailure.ACKNOWLEDGEMENT_REFUSED, reached=True, final=number >= MAX_REFUSALS
            )
        is_known = result is not AttemptResult.LOST and self._ledger.is_up
        provider.hear(self._clock(), step, is_known=is_known)
        if not is_known:
            return Failed(StepFailure.NOT_ACCEPTED, reached=True)
        self._ledger.acknowledged(self._clock(), step)
        return Acknowledged(acknowledged_at=self._clock())

    def _conclude(
        self, step: ConcludeStep, result: AttemptResult, began: datetime, number: int
    ) -> End:
        if not self._ledger.is_up or result is AttemptResult.UNREACHED:
            return NO_LEDGER
        self._ledger.conclude(step)
        return NO_LEDGER if result is AttemptResult.LOST else Concluded()


def _combined_result(end: End) -> Wire:
    """How what rode along with a step has ended, as its activity answers."""
    if isinstance(end, Wire):
        return end
    if not isinstance(end, Failed):
        raise TypeError("only the whole attempt is silent")
    again = None if end.final else end.delay or timedelta(0)
    return FailedAttempt(kind=end.kind, reason=end.kind, reached=end.reached, again_after=again)
