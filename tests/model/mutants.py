"""Protocols that are broken on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ackbridge.contracts.calls import CallOutcome, OutcomeStatus
from ackbridge.contracts.continuation import MessagesState
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.plan import AcknowledgePlan, Plan
from ackbridge.contracts.steps import AcknowledgementKind, AcknowledgeStep, FailedAttempt, Sent
from workflows.call.acknowledgements import Acknowledgements
from workflows.call.closing import Closing
from workflows.call.conclusion import Conclusion
from workflows.call.conduct import Conduct
from workflows.call.cycles import Cycle, Cycles
from workflows.call.messages import Messages
from workflows.call.operator_requests import OperatorRequests
from workflows.call.progress import Progress
from workflows.call.recording import Recording
from workflows.call.sending import Sending
from workflows.hosting import steps
from workflows.hosting.host import StepError

from .world import Facts, World

Mutant = Callable[[pytest.MonkeyPatch], None]


def acknowledges_before_recording(patch: pytest.MonkeyPatch) -> None:
    take = Recording.take

    async def early(self: Recording, message: ProviderMessage, cycle: Cycle) -> bool:
        if cycle.was_sent:
            await self._state.settlement.acknowledge(
                AcknowledgeStep(
                    request=self._state.request,
                    cycle=cycle.number,
                    kind=AcknowledgementKind.SUCCESS,
                )
            )
        return await take(self, message, cycle)

    patch.setattr(Recording, "take", early)


def takes_a_new_key_after_silence(patch: pytest.MonkeyPatch) -> None:
    give_up = Cycle.give_up
    patch.setattr(
        Cycle, "give_up", lambda self, *, is_definitive: give_up(self, is_definitive=True)
    )


def keeps_a_spent_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "next", lambda self: self.current)


def drops_late_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "_is_welcome", lambda self, message: False)


def takes_late_answers_against_the_operation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "_is_welcome", lambda self, message: True)


def holds_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Messages, "hold", Messages.suppress)


def hears_duplicates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Messages, "suppress", lambda self, message, reason: None)


def forgets_debts_when_continued(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Acknowledgements, "memory", lambda self: ())


def forgets_messages_when_continued(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Messages, "memory", lambda self: MessagesState())


def pays_both_words(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Acknowledgements, cycle: int) -> None: ...

    patch.setattr(Acknowledgements, "_void", nothing)


def never_stops_paying(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Acknowledgements, "is_settled", property(lambda self: not self._debts))


def forgets_what_is_not_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Acknowledgements, "_owe", lambda self, debt: None)


def gives_up_silently(patch: pytest.MonkeyPatch) -> None:
    async def silent(self: Closing, reason: str) -> None:
        for cycle in self._state.cycles.open:
            cycle.give_up(is_definitive=False)

    patch.setattr(Closing, "acknowledge_failed", silent)


def tells_only_of_the_last_cycle(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Closing, "acknowledge_failed", _only_when_it_ends(Closing.acknowledge_failed))


def _only_when_it_ends(told: Any) -> Any:
    async def late(self: Closing, reason: str) -> None:
        if not reason.startswith("the response of cycle"):
            await told(self, reason)

    return late


def speaks_of_the_last_cycle(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "spoken_of", lambda self, message: self.last_sent)


def extends_without_end(patch: pytest.MonkeyPatch) -> None:
    extended = Progress.extended
    patch.setattr(
        Progress, "extended", lambda self, wanted, at_most: extended(self, wanted, at_most * 100)
    )


def counts_from_the_receipt(patch: pytest.MonkeyPatch) -> None:
    received = Progress.received

    def late(self: Progress, sent: Sent, plan: Any) -> Any:
        return received(self, sent.model_copy(update={"sent_at": sent.receipt_at}), plan)

    patch.setattr(Progress, "received", late)


def sends_on_after_orders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OperatorRequests, "interrupts_work", lambda self: False)


def ends_without_a_notice(patch: pytest.MonkeyPatch) -> None:
    end = Closing.end

    def bare(self: Closing, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        return end(self, status, reason, "none of them")

    patch.setattr(Closing, "end", bare)


def takes_what_the_ledger_refuses(patch: pytest.MonkeyPatch) -> None:
    take = Recording.take

    async def greedy(self: Recording, message: ProviderMessage, cycle: Cycle) -> bool:
        if not await take(self, message, cycle):
            self._state.progress.outcome = self._state.progress.draft(OutcomeStatus.COMPLETED)
        return True

    patch.setattr(Recording, "take", greedy)


def forgets_a_send_that_was_lost(patch: pytest.MonkeyPatch) -> None:
    first = Conduct._first

    async def naive(self: Conduct) -> Any:
        self._may_have_sent = False
        return await first(self)

    patch.setattr(Conduct, "_first", naive)


def decides_otherwise_when_replayed(patch: pytest.MonkeyPatch) -> None:
    begin, owe, copies = World.__init__, Acknowledgements._owe, [0]
    init = Acknowledgements.__init__

    def start(self: World, facts: Facts) -> None:
        copies[0] = 0
        begin(self, facts)

    def count(self: Acknowledgements, *arguments: Any) -> None:
        copies[0] += 1
        init(self, *arguments)

    patch.setattr(World, "__init__", start)
    patch.setattr(Acknowledgements, "__init__", count)
    patch.setattr(
        Acknowledgements, "_owe", lambda self, debt: owe(self, debt) if copies[0] == 1 else None
    )


# What the model has found, undone


def gives_up_in_the_task(patch: pytest.MonkeyPatch) -> None:
    once = steps.acknowledge_once

    def local(plan: Plan, acknowledge: AcknowledgePlan, kind: str, **_: bool) -> Any:
        return once(plan, acknowledge, kind, local=True)

    patch.setattr(steps, "acknowledge_once", local)


def concludes_in_the_task(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "CONCLUDE_FOR_GOOD", steps.CONCLUDE)


def records_polled_answers_in_the_task(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "record", lambda plan, *, acknowledges: steps.RECORD)


def hears_in_order_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Messages, "has_overtaken_answer", False)


def forgets_what_a_lost_task_has_recorded(patch: pytest.MonkeyPatch) -> None:
    first = Conduct._first

    async def naive(self: Conduct) -> Any:
        self._captured = None
        return await first(self)

    patch.setattr(Conduct, "_first", naive)


def sends_in_any_task(patch: pytest.MonkeyPatch) -> None:
    send = steps.send
    patch.setattr(steps, "send", lambda plan, cycle, **_: send(plan, cycle, local=True))


def spends_the_key_of_any_refusal(patch: pytest.MonkeyPatch) -> None:
    refused = Sending._refused

    def spent(self: Sending, cycle: Cycle, failure: StepError) -> Any:
        ending = refused(self, cycle, failure)
        cycle.spend()
        return ending

    patch.setattr(Sending, "_refused", spent)


def hears_nothing_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Conclusion, "_end_hearing", lambda self, outcome: self._hearing._waiting.clear())


def stays_where_it_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Conclusion, "_enter", lambda self, stage: None)


def leaves_attempts_behind(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Acknowledgements) -> None: ...

    patch.setattr(Acknowledgements, "rest", at_once)


def forgets_what_may_have_arrived_along(patch: pytest.MonkeyPatch) -> None:
    sent = Sending._sent

    async def naive(self: Sending, cycle: Cycle, *, local: bool) -> Sent:
        if isinstance(self._first, FailedAttempt):
            self._first = self._first.model_copy(update={"reached": False})
        return await sent(self, cycle, local=local)

    patch.setattr(Sending, "_sent", naive)


def forgets_what_was_not_accepted_along(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Acknowledgements.acknowledge

    async def naive(self: Acknowledgements, step: AcknowledgeStep, along: Any = None) -> None:
        if not isinstance(along, FailedAttempt):
            await acknowledge(self, step, along)

    patch.setattr(Acknowledgements, "acknowledge", naive)


def sends_along_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OperatorRequests, "interrupts_work", lambda self: False)


MUTANTS: list[Mutant] = [
    acknowledges_before_recording,
    takes_a_new_key_after_silence,
    keeps_a_spent_key,
    drops_late_answers,
    takes_late_answers_against_the_operation,
    holds_nothing,
    hears_duplicates,
    forgets_debts_when_continued,
    forgets_messages_when_continued,
    pays_both_words,
    never_stops_paying,
    forgets_what_is_not_accepted,
    gives_up_silently,
    tells_only_of_the_last_cycle,
    speaks_of_the_last_cycle,
    extends_without_end,
    counts_from_the_receipt,
    sends_on_after_orders,
    ends_without_a_notice,
    takes_what_the_ledger_refuses,
    forgets_a_send_that_was_lost,
    decides_otherwise_when_replayed,
    gives_up_in_the_task,
    concludes_in_the_task,
    records_polled_answers_in_the_task,
    hears_in_order_only,
    forgets_what_a_lost_task_has_recorded,
    sends_in_any_task,
    spends_the_key_of_any_refusal,
    hears_nothing_at_the_end,
    stays_where_it_was,
    leaves_attempts_behind,
    forgets_what_may_have_arrived_along,
    forgets_what_was_not_accepted_along,
    sends_along_after_a_cancel,
]

EASY: list[Mutant] = [
    acknowledges_before_recording,
    gives_up_silently,
    forgets_what_is_not_accepted,
    ends_without_a_notice,
    stays_where_it_was,
]
"""Those that random examples find soon; the others may take them minutes."""
