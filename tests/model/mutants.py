"""Protocols that are broken on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ackbridge.contracts import (
    AcknowledgementKind,
    AcknowledgePlan,
    AcknowledgeStep,
    CallOutcome,
    HearingMemory,
    OutcomeStatus,
    Plan,
    ProviderMessage,
    Sent,
    Setback,
)
from workflows import steps
from workflows.capture import Capture
from workflows.closing import Closing
from workflows.conversation import Conversation
from workflows.cycles import Cycle, Cycles
from workflows.hearing import Hearing
from workflows.host import StepFailed
from workflows.keeping import Keeping
from workflows.line import Line
from workflows.orders import Orders
from workflows.progress import Progress
from workflows.settlement import Settlement

from .world import Facts, World

Mutant = Callable[[pytest.MonkeyPatch], None]


def acknowledges_before_recording(patch: pytest.MonkeyPatch) -> None:
    take = Capture.take

    async def early(self: Capture, message: ProviderMessage, cycle: Cycle) -> bool:
        if cycle.was_sent:
            await self._state.settlement.acknowledge(
                AcknowledgeStep(
                    request=self._state.request,
                    cycle=cycle.number,
                    kind=AcknowledgementKind.SUCCESS,
                )
            )
        return await take(self, message, cycle)

    patch.setattr(Capture, "take", early)


def takes_a_new_key_after_silence(patch: pytest.MonkeyPatch) -> None:
    give_up = Cycle.give_up
    patch.setattr(
        Cycle, "give_up", lambda self, *, is_definitive: give_up(self, is_definitive=True)
    )


def keeps_a_spent_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cycles, "next", lambda self: self.current)


def drops_late_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Capture, "_is_welcome", lambda self, message: False)


def takes_late_answers_against_the_operation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Capture, "_is_welcome", lambda self, message: True)


def holds_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hearing, "hold", Hearing.suppress)


def hears_duplicates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hearing, "suppress", lambda self, message, reason: None)


def forgets_debts_when_continued(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Settlement, "memory", lambda self: ())


def forgets_messages_when_continued(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hearing, "memory", lambda self: HearingMemory())


def pays_both_words(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Settlement, cycle: int) -> None: ...

    patch.setattr(Settlement, "_void", nothing)


def never_stops_paying(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Settlement, "is_settled", property(lambda self: not self._debts))


def forgets_what_is_not_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Settlement, "_owe", lambda self, debt: None)


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
    patch.setattr(Orders, "interrupts_work", lambda self: False)


def ends_without_a_notice(patch: pytest.MonkeyPatch) -> None:
    end = Closing.end

    def bare(self: Closing, status: OutcomeStatus, reason: str, notice: str) -> CallOutcome:
        return end(self, status, reason, "none of them")

    patch.setattr(Closing, "end", bare)


def takes_what_the_ledger_refuses(patch: pytest.MonkeyPatch) -> None:
    take = Capture.take

    async def greedy(self: Capture, message: ProviderMessage, cycle: Cycle) -> bool:
        if not await take(self, message, cycle):
            self._state.progress.outcome = self._state.progress.draft(OutcomeStatus.COMPLETED)
        return True

    patch.setattr(Capture, "take", greedy)


def forgets_a_send_that_was_lost(patch: pytest.MonkeyPatch) -> None:
    first = Conversation._first

    async def naive(self: Conversation) -> Any:
        self._may_have_sent = False
        return await first(self)

    patch.setattr(Conversation, "_first", naive)


def decides_otherwise_when_replayed(patch: pytest.MonkeyPatch) -> None:
    begin, owe, copies = World.__init__, Settlement._owe, [0]
    init = Settlement.__init__

    def start(self: World, facts: Facts) -> None:
        copies[0] = 0
        begin(self, facts)

    def count(self: Settlement, *arguments: Any) -> None:
        copies[0] += 1
        init(self, *arguments)

    patch.setattr(World, "__init__", start)
    patch.setattr(Settlement, "__init__", count)
    patch.setattr(
        Settlement, "_owe", lambda self, debt: owe(self, debt) if copies[0] == 1 else None
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
    patch.setattr(Hearing, "has_overtaken_answer", False)


def forgets_what_a_lost_task_has_recorded(patch: pytest.MonkeyPatch) -> None:
    first = Conversation._first

    async def naive(self: Conversation) -> Any:
        self._captured = None
        return await first(self)

    patch.setattr(Conversation, "_first", naive)


def sends_in_any_task(patch: pytest.MonkeyPatch) -> None:
    send = steps.send
    patch.setattr(steps, "send", lambda plan, cycle, **_: send(plan, cycle, local=True))


def spends_the_key_of_any_refusal(patch: pytest.MonkeyPatch) -> None:
    refused = Line._refused

    def spent(self: Line, cycle: Cycle, failure: StepFailed) -> Any:
        ending = refused(self, cycle, failure)
        cycle.spend()
        return ending

    patch.setattr(Line, "_refused", spent)


def hears_nothing_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keeping, "_end_hearing", lambda self, outcome: self._hearing._waiting.clear())


def stays_where_it_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keeping, "_enter", lambda self, stage: None)


def leaves_attempts_behind(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Settlement) -> None: ...

    patch.setattr(Settlement, "rest", at_once)


def forgets_what_may_have_arrived_along(patch: pytest.MonkeyPatch) -> None:
    sent = Line._sent

    async def naive(self: Line, cycle: Cycle, *, local: bool) -> Sent:
        if isinstance(self._first, Setback):
            self._first = self._first.model_copy(update={"reached": False})
        return await sent(self, cycle, local=local)

    patch.setattr(Line, "_sent", naive)


def forgets_what_was_not_accepted_along(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Settlement.acknowledge

    async def naive(self: Settlement, step: AcknowledgeStep, along: Any = None) -> None:
        if not isinstance(along, Setback):
            await acknowledge(self, step, along)

    patch.setattr(Settlement, "acknowledge", naive)


def sends_along_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Orders, "interrupts_work", lambda self: False)


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
