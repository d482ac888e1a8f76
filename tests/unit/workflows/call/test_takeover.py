"""A call whose workflow has ended without an outcome, and which another one has taken over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import Effect, OutcomeCode, OutcomeStatus
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.plan import (
    AcknowledgePlan,
    OnFailure,
    Plan,
    Prepared,
    ReconcilePlan,
    ResponseMode,
    WhenOff,
)
from ackbridge.contracts.signals import Cancel
from ackbridge.contracts.steps import Asked, InboxMessages, StepFailure
from tests.support.simulated_host import REQUEST, START, SimulatedHost, plan, response
from workflows.call.protocol import CallProtocol
from workflows.hosting.host import StepError
from workflows.hosting.steps import PREPARE_WITHIN

FAILED = ProviderMessage(kind=MessageKind.FAILURE, event_key="f-1", reason="no stock")
RECONCILE = ReconcilePlan(every=timedelta(hours=1), within=timedelta(days=1))
MINUTE = timedelta(minutes=1)


def planned(**changes: Any) -> Plan:
    """A plan without acknowledgements, and one round."""
    return plan(**{"acknowledge": None, "cycles": 1, **changes})


def taken_over(of: Plan, age: timedelta = MINUTE, **more: Any) -> SimulatedHost:
    """The host of a call that another workflow has claimed a while ago.

    `repeated` is not set: of its own activities, none that prepares has sent anything.
    """
    prepared = Prepared(plan=of, taken_over=True, first_claimed_at=START - age)
    return SimulatedHost(of, prepare=[prepared], **more)


@pytest.mark.parametrize("mode", list(ResponseMode))
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("reconcile", [None, RECONCILE])
async def test_what_may_not_be_repeated_is_not_sent_again(
    mode: ResponseMode, reconcile: ReconcilePlan | None, *, asks: bool
) -> None:
    """It is looked for, and asked about where it can be; without an answer it ends as unknown."""
    of = planned(mode=mode, repeatable=False, ask_status=asks, reconcile=reconcile)
    host = taken_over(of)
    outcome = await host.protocol.run()
    assert host.sent_cycles == []
    assert (outcome.effect, outcome.code) == (Effect.UNKNOWN, OutcomeCode.NO_RECEIPT)
    assert outcome.notice is not None
    assert outcome.notice.kind == "unknown"
    assert bool(host.steps(names.ASK_STATUS)) is asks
    assert bool(host.steps(names.LOOK_INBOX)) is (mode is not ResponseMode.SYNC)


@pytest.mark.parametrize(
    ("answers", "late"),
    [
        ({"look_inbox": [InboxMessages(messages=(response(reference="r-1"),))]}, False),
        ({"ask_status": [Asked(message=response())]}, False),
        ({"ask_status": [Asked()]}, True),
    ],
    ids=["inbox", "status", "parked"],
)
async def test_its_response_is_found(answers: dict[str, Any], *, late: bool) -> None:
    """In the inbox, by asking, or while it is parked; nothing is sent for it."""
    of = planned(repeatable=False, ask_status=True, on_failure=OnFailure.PARK)
    host = taken_over(of, **answers)
    if late:
        host.at(3600, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert (outcome.status, outcome.effect) == (OutcomeStatus.COMPLETED, Effect.DONE)
    assert host.sent_cycles == []


async def test_its_reference_is_taken_over() -> None:
    """The provider is asked, and told, about the work that it has begun."""
    acknowledge = AcknowledgePlan(timeout=MINUTE, within=MINUTE, on_success=True, on_failed=True)
    of = planned(repeatable=False, ask_status=True, acknowledge=acknowledge)
    prepared = Prepared(plan=of, taken_over=True, first_claimed_at=START, reference="r-7")
    host = SimulatedHost(of, prepare=[prepared])
    outcome = await host.protocol.run()
    for name in (names.ASK_STATUS, names.ACKNOWLEDGE):
        assert {step.reference for step in host.steps(name)} == {"r-7"}
    assert (outcome.effect, host.sent_cycles) == (Effect.NONE, [])


async def test_its_failure_is_found() -> None:
    """The provider says that nothing has happened."""
    of = planned(repeatable=False, ask_status=True)
    outcome = await taken_over(of, ask_status=[Asked(message=FAILED)]).protocol.run()
    assert (outcome.effect, outcome.code) == (Effect.NONE, OutcomeCode.PROVIDER_FAILED)


async def test_what_may_be_repeated_is_sent_again_under_its_key() -> None:
    """As after an attempt that may have arrived."""
    host = taken_over(planned()).at(2, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert (outcome.status, host.sent_cycles) == (OutcomeStatus.COMPLETED, [1])
    assert [step.reached for step in host.steps(names.SEND)] == [True]


@pytest.mark.parametrize("kind", [StepFailure.REFUSED, StepFailure.NO_RECEIPT, StepFailure.NOT_NOW])
@pytest.mark.parametrize("asks", [False, True])
async def test_what_does_not_arrive_this_time_may_have_arrived_before(
    kind: StepFailure, *, asks: bool
) -> None:
    """A refusal answers this attempt only, and a provider that is away none."""
    of = planned(ask_status=asks)
    host = taken_over(of, send=[lambda _: StepError(kind, "409", retry_after=MINUTE)])
    outcome = await host.protocol.run()
    assert outcome.effect is Effect.UNKNOWN
    assert bool(host.steps(names.ASK_STATUS)) is asks


def cancel(call: CallProtocol) -> None:
    """By an operator."""
    call.cancel(Cancel(by="ann", reason="a mistake"))


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("acknowledges", [False, True])
async def test_a_cancelled_one_is_called_off_where_it_can_be(
    *, repeatable: bool, acknowledges: bool
) -> None:
    """A cancel before anything is sent is not the end of what was sent before."""

    def prepare(call: CallProtocol) -> Prepared:
        cancel(call)
        return Prepared(plan=of, taken_over=True, first_claimed_at=START)

    acknowledge = AcknowledgePlan(timeout=MINUTE, within=MINUTE, on_success=True, on_failed=True)
    of = planned(repeatable=repeatable, acknowledge=acknowledge if acknowledges else None)
    host = SimulatedHost(of, prepare=[prepare])
    outcome = await host.protocol.run()
    assert (outcome.status, host.sent_cycles) == (OutcomeStatus.CANCELLED, [])
    assert host.acknowledgements == ([(1, "failed")] if acknowledges else [])
    assert outcome.effect is (Effect.NONE if acknowledges else Effect.UNKNOWN)


@pytest.mark.parametrize("repeatable", [False, True])
async def test_an_expired_one_may_have_arrived(*, repeatable: bool) -> None:
    """Nothing is sent any more."""
    of = planned(repeatable=repeatable)
    request = REQUEST.model_copy(update={"expires_at": START})
    host = SimulatedHost(
        of, request, prepare=[Prepared(plan=of, taken_over=True, first_claimed_at=START - MINUTE)]
    )
    outcome = await host.protocol.run()
    assert (outcome.effect, outcome.code) == (Effect.UNKNOWN, OutcomeCode.EXPIRED)
    assert (host.sent_cycles, len(host.steps(names.LOOK_INBOX))) == ([], 1)


@pytest.mark.parametrize("when_off", list(WhenOff))
@pytest.mark.parametrize("repeatable", [False, True])
async def test_a_provider_that_is_off_now_may_have_got_it(
    when_off: WhenOff, *, repeatable: bool
) -> None:
    """What was switched off since says nothing about what was sent before."""
    host = taken_over(planned(repeatable=repeatable, not_now="off", when_off=when_off))
    outcome = await host.protocol.run()
    assert (outcome.effect, outcome.code) == (Effect.UNKNOWN, OutcomeCode.SWITCHED_OFF)
    assert host.sent_cycles == []


@pytest.mark.parametrize(("asks", "sent"), [(False, []), (True, [1])])
async def test_a_key_that_may_be_forgotten_is_asked_about_first(
    sent: list[int], *, asks: bool
) -> None:
    """The key is as old as the claim of the workflow that has ended."""
    of = planned(key_retention=timedelta(hours=1), ask_status=asks)
    host = taken_over(of, age=timedelta(hours=2))
    outcome = await host.protocol.run()
    assert (outcome.effect, host.sent_cycles) == (Effect.UNKNOWN, sent)
    performed = [name for name, _ in host.performed]
    assert performed[1:3] == [names.LOOK_INBOX, names.ASK_STATUS if asks else names.CONCLUDE]


async def test_the_answer_about_an_old_key_ends_the_call() -> None:
    """Nothing is sent for it."""
    of = planned(key_retention=timedelta(hours=1), ask_status=True)
    host = taken_over(of, age=timedelta(hours=2), ask_status=[Asked(message=response())])
    outcome = await host.protocol.run()
    assert (outcome.status, host.sent_cycles) == (OutcomeStatus.COMPLETED, [])


@pytest.mark.parametrize(("was_claimed", "effect"), [(False, Effect.NONE), (True, Effect.UNKNOWN)])
@pytest.mark.parametrize("happens", [None, cancel])
async def test_what_no_worker_can_prepare_may_have_been_sent(
    effect: Effect, happens: Callable[[CallProtocol], None] | None, *, was_claimed: bool
) -> None:
    """If the call was claimed before; else nothing of it was ever sent."""

    def prepare(call: CallProtocol) -> StepError:
        if happens is not None:
            happens(call)
        return StepError(StepFailure.MISSING, "env:TOKEN: is not set", reached=was_claimed)

    host = SimulatedHost(planned(), prepare=[prepare])
    outcome = await host.protocol.run()
    assert (outcome.effect, outcome.code) == (effect, OutcomeCode.NOT_SENT)


async def test_who_follows_another_workflow_waits_for_it_beyond_the_expiry() -> None:
    """The call may be open for long; asking about it without a pause would fill the history."""
    within: list[timedelta | None] = []

    class Following(SimulatedHost):
        async def perform(self, provider: str, step: Any, *more: Any) -> Any:
            if step.name == names.PREPARE:
                within.append(step.within)
            return await super().perform(provider, step, *more)

    elsewhere = StepError(StepFailure.HOSTED_ELSEWHERE, "bulk:1 conducts it", code="bulk:1")
    request = REQUEST.model_copy(update={"expires_at": START})
    answers = [elsewhere, elsewhere, Prepared(plan=planned(), taken_over=True)]
    outcome = await Following(planned(), request, prepare=answers).protocol.run()
    assert outcome.code is OutcomeCode.EXPIRED
    assert within == [timedelta(seconds=1), PREPARE_WITHIN, PREPARE_WITHIN]
