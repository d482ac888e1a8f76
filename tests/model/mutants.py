"""Protocols that are broken on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeCode, OutcomeStatus
from ackbridge.contracts.continuation import MessagesState
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.plan import AcknowledgePlan, Plan, Prepared
from ackbridge.contracts.steps import AcknowledgementKind, AcknowledgeStep, FailedAttempt, Sent
from workflows.call.acknowledgements import Acknowledgements
from workflows.call.conclusion import Conclusion
from workflows.call.conduct import Conduct
from workflows.call.cycles import Answered, Cycle, Cycles, Failure, RoundResult
from workflows.call.messages import MessageHandler
from workflows.call.sending import Sending
from workflows.call.state import CallState, MessageQueue, OperatorRequests
from workflows.hosting import steps
from workflows.hosting.host import StepError

from .world import Setting, World

Mutant = Callable[[pytest.MonkeyPatch], None]


def acknowledges_before_recording(patch: pytest.MonkeyPatch) -> None:
    record = MessageHandler._record

    async def early(self: MessageHandler, message: ProviderMessage, cycle: Cycle) -> Any:
        if cycle.was_sent:
            await self._acknowledgements.acknowledge(
                AcknowledgeStep(
                    request=self._state.request,
                    cycle=cycle.number,
                    kind=AcknowledgementKind.SUCCESS,
                )
            )
        return await record(self, message, cycle)

    patch.setattr(MessageHandler, "_record", early)


def takes_a_new_key_after_a_timeout(patch: pytest.MonkeyPatch) -> None:
    give_up = Cycle.give_up

    def called_off(self: Cycle) -> None:
        give_up(self)
        self.call_off()

    patch.setattr(Cycle, "give_up", called_off)


def keeps_a_spent_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "next_to_send", lambda self: self.current)


def drops_late_responses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageHandler, "_accepts_late", lambda self, message: False)


def accepts_late_responses_against_the_operation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageHandler, "_accepts_late", lambda self, message: True)


def holds_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageQueue, "hold", MessageQueue.suppress)


def logs_no_duplicates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageQueue, "suppress", lambda self, message, reason: None)


def forgets_pending_acknowledgements_when_continued(patch: pytest.MonkeyPatch) -> None:
    snapshot = CallState.snapshot

    def without(self: CallState) -> Any:
        return snapshot(self).model_copy(update={"pending_acknowledgements": ()})

    patch.setattr(CallState, "snapshot", without)


def forgets_messages_when_continued(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageQueue, "state", lambda self: MessagesState())


def sends_both_acknowledgements(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Acknowledgements, cycle: int) -> None: ...

    patch.setattr(Acknowledgements, "_void_pending", nothing)


def never_stops_acknowledging(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        CallState, "is_acknowledged", property(lambda self: not self.pending_acknowledgements)
    )


def forgets_what_is_not_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Acknowledgements, "_add_pending", lambda self, step, failure, **_: None)


def gives_up_without_acknowledging(patch: pytest.MonkeyPatch) -> None:
    async def silent(self: Acknowledgements, reason: str) -> None:
        for cycle in self._state.cycles.open:
            cycle.give_up()

    patch.setattr(Acknowledgements, "acknowledge_failed", silent)


def acknowledges_only_the_last_cycle(patch: pytest.MonkeyPatch) -> None:
    acknowledge_failed = Acknowledgements.acknowledge_failed

    async def last_only(self: Acknowledgements, reason: str) -> None:
        if not reason.startswith("the response of cycle"):
            await acknowledge_failed(self, reason)

    patch.setattr(Acknowledgements, "acknowledge_failed", last_only)


def ignores_references(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "cycle_for", lambda self, message: self.last_sent)


def extends_without_end(patch: pytest.MonkeyPatch) -> None:
    extend = CallState.extend_deadline
    patch.setattr(
        CallState,
        "extend_deadline",
        lambda self, until, ceiling: extend(self, until, ceiling * 100),
    )


def counts_from_the_receipt(patch: pytest.MonkeyPatch) -> None:
    arrived = CallState.receipt_arrived

    def late(self: CallState, sent: Sent, *deadline: Any) -> None:
        arrived(self, sent.model_copy(update={"sent_at": sent.receipt_at}), *deadline)

    patch.setattr(CallState, "receipt_arrived", late)


def sends_on_after_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OperatorRequests, "interrupts_work", lambda self: False)


def ends_without_a_notice(patch: pytest.MonkeyPatch) -> None:
    without_response = Conclusion.without_response

    def bare(self: Conclusion, status: OutcomeStatus, failure: Failure) -> CallOutcome:
        return without_response(self, status, failure).model_copy(update={"notice": None})

    patch.setattr(Conclusion, "without_response", bare)


def takes_what_the_ledger_refuses(patch: pytest.MonkeyPatch) -> None:
    record = MessageHandler._record

    async def greedy(self: MessageHandler, message: ProviderMessage, cycle: Cycle) -> Any:
        answered = await record(self, message, cycle)
        if answered is not None:
            return answered
        self._state.outcome = self._state.draft_outcome(OutcomeStatus.COMPLETED)
        return Answered(cycle, self._state.outcome)

    patch.setattr(MessageHandler, "_record", greedy)


def forgets_a_send_that_was_lost(patch: pytest.MonkeyPatch) -> None:
    _prepare_as(patch, {"repeated": False})


def _prepare_as(patch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    begin = Conduct.begin

    async def naive(self: Conduct, prepared: Prepared) -> RoundResult:
        return await begin(self, prepared.model_copy(update=changes))

    patch.setattr(Conduct, "begin", naive)


def decides_otherwise_when_replayed(patch: pytest.MonkeyPatch) -> None:
    begin, add, copies = World.__init__, Acknowledgements._add_pending, [0]
    init = Acknowledgements.__init__

    def start(self: World, setting: Setting) -> None:
        copies[0] = 0
        begin(self, setting)

    def count(self: Acknowledgements, *arguments: Any) -> None:
        copies[0] += 1
        init(self, *arguments)

    patch.setattr(World, "__init__", start)
    patch.setattr(Acknowledgements, "__init__", count)
    patch.setattr(
        Acknowledgements,
        "_add_pending",
        lambda self, *arguments, **named: (
            add(self, *arguments, **named) if copies[0] == 1 else None
        ),
    )


def repeats_what_may_not_be_repeated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sending, "forbids", lambda self, cycle: None)
    next_attempt = Sending._next_attempt_at

    def anyway(self: Sending, cycle: Cycle, attempts: Any, error: StepError) -> Any:
        self._plan = self._plan.model_copy(update={"repeatable": True})
        return next_attempt(self, cycle, attempts, error)

    patch.setattr(Sending, "_next_attempt_at", anyway)


def sends_while_an_acknowledgement_is_owed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CallState, "owes_failed_acknowledgement", False)


def never_looks(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Sending, timed_out: Cycle | None = None) -> bool:
        return True

    patch.setattr(Sending, "look", nothing)


def takes_every_end_for_one_without_effect(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "effect", Effect.NONE)


def believes_a_success_of_called_off_work(patch: pytest.MonkeyPatch) -> None:
    async def believe(self: MessageHandler, message: ProviderMessage, cycle: Cycle) -> bool:
        return True

    patch.setattr(MessageHandler, "_is_consistent", believe)


# What the model has found, undone


def gives_up_in_the_task(patch: pytest.MonkeyPatch) -> None:
    once = steps.acknowledge_once

    def local(plan: Plan, acknowledge: AcknowledgePlan, kind: str, **_: bool) -> Any:
        return once(plan, acknowledge, kind, local=True)

    patch.setattr(steps, "acknowledge_once", local)


def concludes_in_the_task(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "CONCLUDE_FOR_GOOD", steps.CONCLUDE)


def handles_messages_in_order_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MessageQueue, "pop", lambda self: self._waiting.popleft())


def forgets_what_a_lost_task_has_recorded(patch: pytest.MonkeyPatch) -> None:
    _prepare_as(patch, {"recorded": None})


def sends_in_any_task(patch: pytest.MonkeyPatch) -> None:
    send = steps.send
    patch.setattr(steps, "send", lambda *arguments: replace(send(*arguments), local_first=True))


def spends_the_key_of_any_refusal(patch: pytest.MonkeyPatch) -> None:
    not_received = Sending._not_received

    def spent(self: Sending, cycle: Cycle, error: StepError) -> Failure:
        failure = not_received(self, cycle, error)
        if failure.code is OutcomeCode.REFUSED:
            cycle.refuse()
        return failure

    patch.setattr(Sending, "_not_received", spent)


def drops_messages_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Conclusion,
        "_receive_after_end",
        lambda self, outcome: self._state.messages._waiting.clear(),
    )


def keeps_its_stage_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Conclusion, "_enter", lambda self, stage: None)


def leaves_attempts_behind(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Acknowledgements) -> None: ...

    patch.setattr(Acknowledgements, "stop", at_once)


def forgets_that_the_first_attempt_may_have_arrived(patch: pytest.MonkeyPatch) -> None:
    send = Sending.send

    async def naive(self: Sending, cycle: Cycle, first: Any = None) -> Sent | Failure:
        if isinstance(first, FailedAttempt):
            first = first.model_copy(update={"reached": False})
        return await send(self, cycle, first)

    patch.setattr(Sending, "send", naive)


def forgets_a_combined_acknowledgement_that_failed(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Acknowledgements.acknowledge_success

    async def naive(self: Acknowledgements, cycle: Cycle, combined: Any, **how: Any) -> None:
        if not isinstance(combined, FailedAttempt):
            await acknowledge(self, cycle, combined, **how)

    patch.setattr(Acknowledgements, "acknowledge_success", naive)


def sends_with_prepare_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OperatorRequests, "interrupts_work", lambda self: False)


MUTANTS: list[Mutant] = [
    acknowledges_before_recording,
    takes_a_new_key_after_a_timeout,
    keeps_a_spent_key,
    drops_late_responses,
    accepts_late_responses_against_the_operation,
    holds_nothing,
    logs_no_duplicates,
    forgets_pending_acknowledgements_when_continued,
    forgets_messages_when_continued,
    sends_both_acknowledgements,
    never_stops_acknowledging,
    forgets_what_is_not_accepted,
    gives_up_without_acknowledging,
    acknowledges_only_the_last_cycle,
    ignores_references,
    extends_without_end,
    counts_from_the_receipt,
    sends_on_after_requests,
    ends_without_a_notice,
    takes_what_the_ledger_refuses,
    forgets_a_send_that_was_lost,
    decides_otherwise_when_replayed,
    repeats_what_may_not_be_repeated,
    sends_while_an_acknowledgement_is_owed,
    never_looks,
    takes_every_end_for_one_without_effect,
    believes_a_success_of_called_off_work,
    gives_up_in_the_task,
    concludes_in_the_task,
    handles_messages_in_order_only,
    forgets_what_a_lost_task_has_recorded,
    sends_in_any_task,
    spends_the_key_of_any_refusal,
    drops_messages_at_the_end,
    keeps_its_stage_at_the_end,
    leaves_attempts_behind,
    forgets_that_the_first_attempt_may_have_arrived,
    forgets_a_combined_acknowledgement_that_failed,
    sends_with_prepare_after_a_cancel,
]

EASY: list[Mutant] = [
    gives_up_without_acknowledging,
    takes_every_end_for_one_without_effect,
    never_looks,
    ends_without_a_notice,
    keeps_its_stage_at_the_end,
]
"""Those that random examples find soon; the others may take them minutes."""
