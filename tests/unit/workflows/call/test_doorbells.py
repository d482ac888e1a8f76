"""Doorbells: callbacks that say only that there is something."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.contracts.continuation import MessagesState
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.plan import OnFailure
from ackbridge.contracts.steps import Asked, Sent, StepFailure
from tests.support.simulated_host import START, SimulatedHost, plan, response
from workflows.call.protocol import CallProtocol
from workflows.call.state import MessageQueue
from workflows.hosting.host import StepError

DONE = Asked(message=response("status:1", source=MessageSource.STATUS, reference="r-1"))
NOT_YET = Asked()
UNANSWERED = StepError(StepFailure.NO_RECEIPT, "no answer")


def doorbell(event_key: str = "ring-1", **changes: Any) -> ProviderMessage:
    """A callback that says only that there is something."""
    ring = ProviderMessage(
        kind=MessageKind.DOORBELL,
        event_key=event_key,
        source=MessageSource.CALLBACK,
        received_at=START,
        reference="r-1",
    )
    return ring.model_copy(update=changes)


def host(*answers: Asked | StepError, **changes: Any) -> SimulatedHost:
    """A host of a call that can be asked about."""
    return SimulatedHost(plan(ask_status=True, **changes), ask_status=answers)


def rings(event_key: str = "ring-1") -> Any:
    """Let a doorbell arrive."""
    return lambda protocol: protocol.receive(doorbell(event_key))


async def test_a_doorbell_makes_the_call_ask() -> None:
    """The answer to the question is the response."""
    call = host(DONE).at(3, rings())
    outcome = await call.protocol.run()
    assert (outcome.status, outcome.response) == (OutcomeStatus.COMPLETED, {"ok": True})
    assert call.elapsed == 3
    assert [step.reference for step in call.steps(names.ASK_STATUS)] == ["r-1"]
    assert call.sent_cycles == [1]


async def test_each_new_doorbell_is_a_question_and_a_repeated_one_is_none() -> None:
    """An answer without a response changes nothing, and the deadline stays."""
    call = host(NOT_YET, NOT_YET, DONE)
    call.at(3, rings()).at(4, rings()).at(5, rings("ring-2")).at(6, rings("ring-3"))
    outcome = await call.protocol.run()
    assert (outcome.status, call.elapsed) == (OutcomeStatus.COMPLETED, 6)
    assert len(call.steps(names.ASK_STATUS)) == 3
    assert call.protocol.state.messages.duplicates == 0  # the very same delivery


async def test_a_question_without_an_answer_is_asked_again() -> None:
    """After a growing pause, without another doorbell."""
    call = host(UNANSWERED, UNANSWERED, DONE, deadline=timedelta(minutes=2)).at(3, rings())
    outcome = await call.protocol.run()
    assert (outcome.status, call.elapsed) == (OutcomeStatus.COMPLETED, 33)


async def test_a_new_doorbell_does_not_wait_for_the_pause() -> None:
    """The provider answers again."""
    call = host(UNANSWERED, DONE).at(3, rings()).at(5, rings("ring-2"))
    await call.protocol.run()
    assert call.elapsed == 5
    assert len(call.steps(names.ASK_STATUS)) == 2


async def test_the_deadline_holds_while_nobody_answers() -> None:
    """A doorbell is no response."""
    call = host(UNANSWERED, cycles=1).at(3, rings())
    outcome = await call.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert call.elapsed == 30


async def test_a_doorbell_before_the_receipt_waits_for_it() -> None:
    """It does not interrupt the sending, and is asked about once there is a reference."""

    def receipt(protocol: CallProtocol) -> Sent:
        protocol.receive(doorbell())
        return Sent(sent_at=START, receipt_at=START, reference="r-1")

    call = SimulatedHost(plan(ask_status=True), ask_status=[DONE], send=[receipt])
    outcome = await call.protocol.run()
    assert (outcome.status, outcome.attempts, call.elapsed) == (OutcomeStatus.COMPLETED, 1, 0)


async def test_a_parked_call_answers_the_door() -> None:
    """What it finds is a late response."""
    call = host(NOT_YET, DONE, cycles=1, on_failure=OnFailure.PARK).at(3600, rings())
    outcome = await call.protocol.run()
    assert (outcome.status, outcome.late, call.elapsed) == (OutcomeStatus.COMPLETED, True, 3600)


async def test_a_doorbell_that_cannot_be_asked_about_is_logged() -> None:
    """Nothing can be asked by a plan without a status request."""
    call = SimulatedHost(plan()).at(3, rings()).at(4, lambda one: one.receive(response()))
    outcome = await call.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert call.steps(names.ASK_STATUS) == []


@pytest.mark.parametrize("is_taken", [True, False])
def test_the_next_run_knows_the_doorbells(is_taken: bool) -> None:
    """Those that nobody has answered."""
    queue = MessageQueue(MessagesState())
    queue.add(doorbell())
    if is_taken:
        queue.put_back_doorbells(queue.take_doorbells(), START)
        assert queue.ask_at == START + timedelta(seconds=10)
    again = MessageQueue(queue.state())
    assert ([one.event_key for one in again.doorbells], again.ask_at) == (["ring-1"], None)
    assert not again
