"""What a call says of the provider's side: its effect, its code and its notice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeCode, OutcomeStatus, Stage
from ackbridge.contracts.deliveries import NoticeEvent, ReplyPlan
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.plan import (
    LatePolicy,
    OnFailure,
    Prepared,
    ReconcilePlan,
    ResponseMode,
    WhenOff,
)
from ackbridge.contracts.signals import Reprocess, Resolve, WriteOff
from ackbridge.contracts.steps import (
    Acknowledged,
    Asked,
    FailedAttempt,
    InboxMessages,
    Sent,
    StepFailure,
)
from tests.model.scenario import running, setting_of
from tests.support.simulated_host import REQUEST, START, SimulatedHost, plan, response
from workflows.call.protocol import CallProtocol
from workflows.hosting.host import StepError
from workflows.hosting.steps import DELAYED_AFTER

RETRY = timedelta(seconds=1)
LOST = StepError(StepFailure.NO_RECEIPT, "no answer", reached=True, retry_after=RETRY)
NOT_CONNECTED = StepError(StepFailure.NO_RECEIPT, "could not connect", retry_after=RETRY)
REFUSED = StepError(StepFailure.REFUSED, "409: key in use", code="idempotency_key_in_use")
NOT_ACCEPTED = StepError(StepFailure.NOT_ACCEPTED, "503")
ACKNOWLEDGEMENT_REFUSED = StepError(StepFailure.ACKNOWLEDGEMENT_REFUSED, "409: voided")
ACCEPTED = Acknowledged(acknowledged_at=START)
SENT = Sent(sent_at=START, receipt_at=START, reference="r-1")


def failure(**changes: Any) -> ProviderMessage:
    """A failure of the provider."""
    message = ProviderMessage(kind=MessageKind.FAILURE, event_key="f-1", reason="no stock")
    return message.model_copy(update=changes)


def summary(outcome: CallOutcome) -> tuple[str, str | None, str | None]:
    """Effect, code and kind of the notice."""
    return outcome.effect, outcome.code, outcome.notice.kind if outcome.notice else None


async def test_a_response_has_an_effect() -> None:
    """A completed call is done, and carries what the receipt has for its caller."""
    sent = SENT.model_copy(update={"receipt": {"url": "https://pay"}})
    host = SimulatedHost(plan(), send=[sent]).at(1, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.DONE, None, None)
    assert outcome.receipt == {"url": "https://pay"}


async def test_a_refusal_of_the_only_attempt_has_no_effect() -> None:
    """It ends at once, whatever `on_failure` says, with the provider's own code."""
    host = SimulatedHost(plan(on_failure=OnFailure.PARK), send=[REFUSED])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.REFUSED, "refused")
    assert outcome.provider_code == "idempotency_key_in_use"
    assert (host.elapsed, host.indexed) == (0, [])


async def test_a_refusal_parks_where_the_operation_says_so() -> None:
    """`park` lists the codes that park."""
    planned = plan(on_failure=OnFailure.FAIL, park=("refused",))
    host = SimulatedHost(planned, send=[REFUSED])
    await host.protocol.run()
    assert host.elapsed == planned.parked_for.total_seconds()


async def test_a_refusal_after_a_lost_attempt_is_retried_and_then_awaited() -> None:
    """It answers its own attempt; the one before may still be answered."""
    host = SimulatedHost(plan(), send=[LOST, REFUSED]).at(20, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.DONE, None, None)
    assert host.sent_cycles == [1, 1, 1]
    assert [step.reached for step in host.steps(names.SEND)] == [False, True, True]


async def test_a_refusal_after_a_lost_attempt_ends_unknown() -> None:
    """Nobody is told to use another card."""
    planned = plan(acknowledge=None, cycles=1)
    host = SimulatedHost(planned, send=[LOST, REFUSED])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.REFUSED, "unknown")
    assert len(host.steps(names.LOOK_INBOX)) >= 1


async def test_an_accepted_failed_acknowledgement_calls_the_work_off() -> None:
    """The caller may try another way."""
    host = SimulatedHost(plan(cycles=1))
    assert summary(await host.protocol.run()) == (Effect.NONE, OutcomeCode.NO_RESPONSE, "failed")


async def test_an_acknowledgement_that_undoes_nothing_leaves_the_effect_unknown() -> None:
    """The same key is sent again."""
    host = SimulatedHost(plan(undoes=False))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.NO_RESPONSE, "unknown")
    assert host.sent_cycles == [1, 1]


async def test_an_answer_in_the_inbox_is_found_at_the_deadline() -> None:
    """The sweeper had not come by."""
    host = SimulatedHost(plan(), look_inbox=[InboxMessages(messages=(response(),))])
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.sent_cycles == [1]


async def test_a_reference_that_is_not_committed_is_a_step_of_its_own() -> None:
    """The request does not go out again."""
    sent = SENT.model_copy(update={"uncorrelated": True})
    found = InboxMessages(messages=(response(),))
    host = SimulatedHost(plan(), send=[sent], correlate=[found])
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert [step.reference for step in host.steps(names.CORRELATE)] == ["r-1"]
    assert host.sent_cycles == [1]


async def test_an_unreadable_receipt_is_not_sent_again() -> None:
    """The provider has the request."""
    error = StepError(StepFailure.UNREADABLE, "no reference in the receipt", reached=True)
    host = SimulatedHost(plan(acknowledge=None), send=[error])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.UNREADABLE, "unknown")
    assert outcome.reason == "no reference in the receipt"
    assert host.sent_cycles == [1]


# What may not be repeated


async def test_a_request_that_may_not_be_repeated_is_tried_until_it_may_have_arrived() -> None:
    """Not connected is tried again; a lost answer is not."""
    planned = plan(repeatable=False, acknowledge=None, on_failure=OnFailure.PARK, cycles=3)
    host = SimulatedHost(planned, send=[NOT_CONNECTED, LOST])
    host.at(100, lambda call: call.reprocess(Reprocess(by="ops")))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.NO_RECEIPT, "unknown")
    assert host.sent_cycles == [1, 1]
    errors = {status.last_error for status in host.shown}
    assert "not reprocessed: the request may have arrived, and must not be repeated" in errors


async def test_silence_of_a_request_that_may_not_be_repeated_ends_it() -> None:
    """Not even another cycle sends it."""
    host = SimulatedHost(plan(repeatable=False, acknowledge=None, cycles=3))
    outcome = await host.protocol.run()
    assert outcome.effect is Effect.UNKNOWN
    assert host.sent_cycles == [1]


# Failed acknowledgements that are owed


async def test_nothing_is_sent_while_a_failed_acknowledgement_is_owed() -> None:
    """Accepted, the next cycle goes out; callers are released meanwhile."""
    released: list[bool] = []

    def accepted(call: Any) -> Any:
        released.append(call.state.is_released)
        return ACCEPTED

    host = SimulatedHost(plan(), acknowledge=[NOT_ACCEPTED, accepted])
    host.at(35, lambda call: call.receive(response("e-2")))
    await host.protocol.run()
    tried = [name for name, _ in host.performed if name in (names.SEND, names.ACKNOWLEDGE)]
    assert tried[:4] == [names.SEND, names.ACKNOWLEDGE, names.ACKNOWLEDGE, names.SEND]
    assert released[0]
    assert [one.cycle for one in host.steps(names.SEND)] == [1, 2]


async def test_a_refused_failed_acknowledgement_ends_unknown() -> None:
    """The provider may have done the work: no other key is tried."""
    host = SimulatedHost(plan(), acknowledge=[NOT_ACCEPTED, ACKNOWLEDGEMENT_REFUSED])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.NO_RESPONSE, "unknown")
    assert host.sent_cycles == [1]


async def test_an_unknown_end_is_replaced_once_the_acknowledgement_is_accepted() -> None:
    """The outcome stands meanwhile, and both are in the ledger."""
    host = SimulatedHost(plan(cycles=1), acknowledge=[NOT_ACCEPTED, ACCEPTED])
    outcome = await host.protocol.run()
    stored = [step.outcome for step in host.steps(names.CONCLUDE)]
    assert [one.effect for one in stored] == [Effect.UNKNOWN, Effect.NONE]
    assert summary(outcome) == (Effect.NONE, OutcomeCode.NO_RESPONSE, "failed")


def test_a_parked_call_is_not_reprocessed_while_it_owes_a_failed_acknowledgement() -> None:
    """It says why."""
    with running(replace(setting_of(cycles=1), acknowledging="down")) as scenario:
        scenario.go(6)
        assert scenario.status.stage is Stage.PARKED
        scenario.operator("reprocess")
        assert scenario.status.last_error == "not reprocessed: a failed acknowledgement is owed"
        assert scenario.sent == [1]


async def test_a_refused_success_acknowledgement_is_disputed() -> None:
    """The response stands, and so does the doubt."""
    host = SimulatedHost(plan(), acknowledge=[NOT_ACCEPTED, ACKNOWLEDGEMENT_REFUSED])
    host.at(1, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert (outcome.status, outcome.effect) == (OutcomeStatus.COMPLETED, Effect.DONE)
    assert outcome.disputed
    assert outcome.acknowledgement_owed


async def test_an_acknowledgement_that_is_refused_at_first_is_tried_again() -> None:
    """Its first refusal is not final; accepted in time, nothing is disputed."""
    refused = StepError(
        StepFailure.ACKNOWLEDGEMENT_REFUSED, "409: too early", retry_after=timedelta(seconds=1)
    )
    host = SimulatedHost(plan(), acknowledge=[refused, ACCEPTED])
    host.at(1, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert not outcome.disputed
    assert not outcome.acknowledgement_owed


# Late answers, people, and asking on


async def test_a_late_response_that_is_not_delivered_has_an_effect_all_the_same() -> None:
    """`late` decides about the response, not about the truth."""
    planned = plan(cycles=1, on_failure=OnFailure.PARK, late=LatePolicy.HOLD, acknowledge=None)
    host = SimulatedHost(planned).at(100, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.DONE, OutcomeCode.NO_RESPONSE, "unknown")


async def test_a_failure_of_a_parked_call_ends_it() -> None:
    """Nothing can come of it any more."""
    planned = plan(cycles=1, on_failure=OnFailure.PARK, undoes=False)
    host = SimulatedHost(planned).at(100, lambda call: call.receive(failure(code="E7")))
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.PROVIDER_FAILED, "failed")
    assert outcome.provider_code == "E7"
    assert host.elapsed == 100


RECONCILED = plan(
    acknowledge=None,
    cycles=1,
    ask_status=True,
    reconcile=ReconcilePlan(every=timedelta(minutes=10), within=timedelta(hours=1)),
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response("s-1"), (OutcomeStatus.COMPLETED, Effect.DONE, True)),
        (failure(), (OutcomeStatus.FAILED, Effect.NONE, False)),
    ],
)
async def test_an_unknown_end_is_reconciled(answer: ProviderMessage, expected: object) -> None:
    """The outcome is set at once, and replaced when the provider says what happened."""
    host = SimulatedHost(RECONCILED, ask_status=[Asked(), Asked(), Asked(message=answer)])
    outcome = await host.protocol.run()
    assert (outcome.status, outcome.effect, outcome.late) == expected
    assert host.elapsed == 30 + 20 * 60
    (first, *_) = [status for status in host.shown if status.stage is Stage.RECONCILING]
    assert first.outcome is not None
    assert first.outcome.effect is Effect.UNKNOWN


async def test_the_next_status_request_waits_as_long_as_the_provider_says() -> None:
    """Answered or not; the next one after that comes at the usual interval."""
    later, soon = timedelta(minutes=25), timedelta(seconds=1)
    unavailable = StepError(StepFailure.NO_RECEIPT, "503", retry_after=timedelta(minutes=15))
    told = [Asked(retry_after=later), unavailable, Asked(retry_after=soon)]
    host = SimulatedHost(RECONCILED, ask_status=[*told, Asked(message=response("s-1"))])
    outcome = await host.protocol.run()
    assert outcome.effect is Effect.DONE
    assert host.elapsed == 30 + (25 + 15 + 10) * 60


async def test_the_provider_is_asked_once_more_at_the_end_of_the_time() -> None:
    """Also if it wants to be asked later than that."""
    told = [Asked(retry_after=timedelta(hours=1)), Asked(retry_after=timedelta(hours=1))]
    host = SimulatedHost(RECONCILED, ask_status=told)
    await host.protocol.run()
    assert host.elapsed == 30 + 3600
    assert len(host.steps(names.ASK_STATUS)) == 2


async def test_reconciling_ends_when_its_time_is_over() -> None:
    """It stays unknown."""
    host = SimulatedHost(RECONCILED)
    outcome = await host.protocol.run()
    assert outcome.effect is Effect.UNKNOWN
    assert host.elapsed == 30 + 3600


@pytest.mark.parametrize("seconds", [10, 100])
@pytest.mark.parametrize("effect", ["done", "none"])
async def test_an_operator_resolves_a_call(effect: str, seconds: int) -> None:
    """While it waits, and while it reconciles."""
    signal = Resolve.model_validate({"by": "ann", "reason": "seen", "as": effect})
    host = SimulatedHost(RECONCILED).at(seconds, lambda call: call.resolve(signal))
    outcome = await host.protocol.run()
    assert outcome.effect == effect
    assert outcome.status == ("completed" if effect == "done" else "failed")
    assert outcome.settled is not None
    assert outcome.settled.by == "ann"
    assert host.elapsed == seconds


async def test_an_operator_writes_an_acknowledgement_off() -> None:
    """It is not tried again, and the ledger knows who has decided that."""
    signal = WriteOff(by="ann", reason="closed account", cycle=1)
    parked = plan(cycles=1, on_failure=OnFailure.PARK)
    host = SimulatedHost(parked, acknowledge=[NOT_ACCEPTED])
    host.at(100, lambda call: call.write_off(signal))
    host.at(200, lambda call: call.write_off(signal))
    outcome = await host.protocol.run()
    assert not outcome.acknowledgement_owed
    written_off = [one for step in host.steps(names.CONCLUDE) for one in step.written_off]
    assert [(one.cycle, one.by) for one in written_off] == [(1, "ann")]


# Our own faults, and time


async def test_a_worker_that_lacks_something_decides_nothing_for_a_day() -> None:
    """Then the call was not sent, and has no effect."""
    missing = StepError(StepFailure.MISSING, "no file for acme")
    outcome = await SimulatedHost(plan(), prepare=[missing]).protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.NOT_SENT, "unavailable")


async def test_a_ledger_that_stays_away_leaves_the_effect_unknown() -> None:
    """A request may have been sent in a workflow task that was lost."""
    away = StepError(StepFailure.UNAVAILABLE, "the ledger is away")
    outcome = await SimulatedHost(plan(), prepare=[away]).protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.NOT_SENT, "unknown")


async def test_a_send_without_a_secret_waits_for_another_worker() -> None:
    """It is no attempt, and the status says what is missing."""
    missing = StepError(StepFailure.MISSING, "no secret ACME_TOKEN", retry_after=RETRY)
    host = SimulatedHost(plan(), send=[*[missing] * 9, SENT])
    host.at(20, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    waiting = [status.waiting for status in host.shown if status.waiting is not None]
    assert "no secret ACME_TOKEN" in {one.detail for one in waiting if one.what == "dependency"}


async def test_a_send_without_a_secret_ends_as_not_sent_after_a_day() -> None:
    """Callers hear of the delay after 30 s; the engine repeats one step for the whole time."""
    told = ReplyPlan(subscriber="shop", events=tuple(NoticeEvent))
    host = SimulatedHost(plan(reply=told))

    async def repeat(_: CallProtocol) -> StepError:
        await host.wait(lambda: False, START + timedelta(hours=24))
        return StepError(StepFailure.MISSING, "no secret", retry_after=timedelta(minutes=5))

    missing = StepError(StepFailure.MISSING, "no secret", retry_after=RETRY)
    host.answers[names.SEND] = [missing, repeat]
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.NOT_SENT, "unavailable")
    assert [step.missing for step in host.steps(names.SEND)] == [False, True]
    delayed = [one.waiting for one in host.shown if one.waiting and one.waiting.is_delayed]
    assert [(one.detail, one.since) for one in delayed] == [("no secret", START + DELAYED_AFTER)]
    assert [one.body.type for one in host.deliveries] == ["call.delayed", "call.failed"]


async def test_the_time_of_attempts_begins_when_the_secret_is_there() -> None:
    """The first one that fails is tried again, however long the secret was missing."""
    host = SimulatedHost(plan()).at(7210, lambda call: call.receive(response()))

    async def connect(_: CallProtocol) -> StepError:
        await host.wait(lambda: False, START + timedelta(hours=2))
        return NOT_CONNECTED

    missing = StepError(StepFailure.MISSING, "no secret", retry_after=RETRY)
    host.answers[names.SEND] = [missing, connect, SENT]
    outcome = await host.protocol.run()
    assert (outcome.status, len(host.steps(names.SEND))) == (OutcomeStatus.COMPLETED, 3)
    assert [step.missing for step in host.steps(names.SEND)] == [False, True, False]


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (StepError(StepFailure.NOT_NOW, "open", retry_after=RETRY), OutcomeCode.BREAKER_OPEN),
        (StepError(StepFailure.UNAVAILABLE, "no worker", attempts=0), OutcomeCode.NOT_SENT),
        (StepError(StepFailure.EXPIRED, "expired"), OutcomeCode.EXPIRED),
    ],
)
async def test_what_ends_the_wait_for_a_secret_has_no_effect(
    then: StepError, code: OutcomeCode
) -> None:
    """Nothing was sent."""
    missing = StepError(StepFailure.MISSING, "no secret", retry_after=RETRY)
    outcome = await SimulatedHost(plan(), send=[missing, then]).protocol.run()
    assert summary(outcome)[:2] == (Effect.NONE, code)


async def test_a_send_that_is_held_back_is_no_attempt() -> None:
    """It waits as long as requests may wait in their queue, and then nothing was sent."""
    held = StepError(StepFailure.HELD_BACK, "the provider asked for a pause", retry_after=RETRY)
    host = SimulatedHost(plan(), send=[*[held] * 9, SENT])
    host.at(20, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert (outcome.status, outcome.attempts) == (OutcomeStatus.COMPLETED, 1)
    assert "rate_limit" in {one.waiting.what for one in host.shown if one.waiting}

    host = SimulatedHost(plan(), send=[held])
    outcome = await host.protocol.run()
    assert summary(outcome)[:2] == (Effect.NONE, OutcomeCode.NOT_SENT)
    assert outcome.attempts == 0
    assert host.elapsed == pytest.approx(plan().send.queue_within.total_seconds(), abs=2)


async def test_nothing_is_sent_after_the_request_has_expired() -> None:
    """A retry would come too late."""
    request = REQUEST.model_copy(update={"expires_at": START + timedelta(seconds=1)})
    host = SimulatedHost(plan(), request, send=[NOT_CONNECTED])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.EXPIRED, "expired")
    assert host.sent_cycles == [1]


@pytest.mark.parametrize(("can_be_asked", "sent"), [(False, [1]), (True, [1, 1])])
async def test_a_key_is_trusted_as_long_as_the_provider_keeps_it(
    can_be_asked: bool, sent: list[int]
) -> None:
    """Later, the provider is asked first; where nobody can be asked, nothing is sent."""
    planned = plan(
        acknowledge=None,
        cycles=1,
        on_failure=OnFailure.PARK,
        key_retention=timedelta(hours=1),
        ask_status=can_be_asked,
    )
    host = SimulatedHost(planned).at(4000, lambda call: call.reprocess(Reprocess(by="ops")))
    await host.protocol.run()
    assert host.sent_cycles == sent


async def test_a_lost_first_attempt_is_retried_under_its_key() -> None:
    """The attempt that `prepare` has made counts."""
    lost = FailedAttempt(
        kind=StepFailure.NO_RECEIPT, reason="no answer", reached=True, again_after=RETRY
    )
    host = SimulatedHost(plan(), prepare=[Prepared(plan=plan(), sent=lost)], send=[LOST])
    outcome = await host.protocol.run()
    assert (outcome.attempts, outcome.code) == (3, OutcomeCode.NO_RECEIPT)
    assert [(step.tried, step.reached) for step in host.steps(names.SEND)] == [(1, True), (2, True)]


async def test_an_attempt_that_is_throttled_is_no_failure_for_the_breaker() -> None:
    """The first one that fails after it still counts."""
    slow = FailedAttempt(
        kind=StepFailure.NO_RECEIPT, reason="429", again_after=RETRY, throttled=True
    )
    host = SimulatedHost(plan(), prepare=[Prepared(plan=plan(), sent=slow)], send=[LOST])
    await host.protocol.run()
    assert [step.failed for step in host.steps(names.SEND)] == [False, True]


async def test_a_synchronous_call_asks_nobody_and_waits_for_nothing() -> None:
    """There is no inbox and no deadline."""
    host = SimulatedHost(plan(mode=ResponseMode.SYNC, acknowledge=None), send=[LOST, REFUSED])
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.UNKNOWN, OutcomeCode.REFUSED, "unknown")
    assert host.steps(names.LOOK_INBOX) == []


async def test_a_call_that_is_held_back_ends_when_it_expires() -> None:
    """Nothing can be sent any more, so it is not parked any longer."""
    request = REQUEST.model_copy(update={"expires_at": START + timedelta(hours=1)})
    host = SimulatedHost(plan(not_now="off", when_off=WhenOff.PARK), request)
    outcome = await host.protocol.run()
    assert summary(outcome) == (Effect.NONE, OutcomeCode.EXPIRED, "expired")
    assert host.elapsed == 3600
