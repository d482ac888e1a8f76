"""The protocol of one call, driven in virtual time without an engine."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta

import pytest

from ackbridge.contracts import names
from ackbridge.contracts.calls import (
    CallOutcome,
    CallStatus,
    Effect,
    OutcomeStatus,
    Stage,
    Timings,
    WaitingFor,
)
from ackbridge.contracts.control import AdmissionState
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.plan import LatePolicy, OnFailure, Prepared, WhenOff
from ackbridge.contracts.signals import Cancel, ForceAck, Reprocess
from ackbridge.contracts.steps import Acknowledged, Asked, Concluded, Recorded, Sent, StepFailure
from tests.support.simulated_host import REQUEST, START, SimulatedHost, plan, response
from workflows.call.protocol import CallProtocol
from workflows.call.ui_details import render
from workflows.hosting.host import ContinueAsNewRequested, StepError

NOT_ACCEPTED = StepError(StepFailure.NOT_ACCEPTED, "503", retry_after=timedelta(0))
NOT_ADDRESSED = StepError(StepFailure.NOT_ADDRESSED, "there is no reference yet")
NO_RECEIPT = StepError(StepFailure.NO_RECEIPT, "no answer in time", reached=True)


async def test_happy_path_records_then_acknowledges_once() -> None:
    """A call sends once, records the response, acknowledges it, and completes."""
    host = SimulatedHost(plan()).at(2, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.response == {"ok": True}
    assert outcome.acknowledgement_owed is False
    assert [name for name, _ in host.performed] == [
        names.PREPARE,
        names.SEND,
        names.RECORD,
        names.ACKNOWLEDGE,
    ]
    assert host.acknowledgements == [(1, "success")]
    assert host.indexed == []


async def test_callback_that_overtakes_its_receipt_is_kept() -> None:
    """A message heard while the request is being sent is the answer."""

    def early(call: object) -> Sent:
        host.protocol.receive(response())
        return Sent(sent_at=START, receipt_at=START, reference="r-1")

    host = SimulatedHost(plan(), send=[early])
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.elapsed == 0


async def test_messages_from_the_inbox_come_with_the_receipt() -> None:
    """Messages that came before the receipt are handled like any others."""
    sent = Sent(sent_at=START, receipt_at=START, messages=(response(),))
    host = SimulatedHost(plan(), send=[sent])
    assert (await host.protocol.run()).status is OutcomeStatus.COMPLETED


async def test_duplicate_is_suppressed_and_logged() -> None:
    """The same event key again changes nothing and is kept in the log."""

    def slow_record(call: object) -> Recorded:
        host.protocol.receive(response())
        return Recorded(accepted=True)

    host = SimulatedHost(plan(), record=[slow_record]).at(1, lambda call: call.receive(response()))
    await host.protocol.run()
    assert host.protocol.state.status().duplicates == 1
    (concluded,) = host.steps(names.CONCLUDE)
    assert [one.event_key for one in concluded.suppressed] == ["evt-1"]
    assert len(host.steps(names.RECORD)) == 1


async def test_a_call_that_is_acknowledged_while_it_is_stored_does_not_move_out() -> None:
    """The ledger had it as acknowledging for ever: its next run found nothing to do."""
    accepted = asyncio.Event()

    async def second(_: object) -> Acknowledged:
        await accepted.wait()
        return Acknowledged(acknowledged_at=START)

    async def store(_: object) -> Concluded:
        accepted.set()
        host.moves_out = True
        while host.protocol.state.pending_acknowledgements:  # noqa: ASYNC110 -- it has no event
            await asyncio.sleep(0)
        return Concluded()

    host = SimulatedHost(plan(), acknowledge=[NOT_ACCEPTED, second], conclude=[store, Concluded()])
    host.at(1, lambda call: call.receive(response()))
    host.at(2, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.acknowledgement_owed is False
    assert [step.stage for step in host.steps(names.CONCLUDE)] == ["acknowledging", "completed"]


async def test_a_call_that_moves_out_acknowledging_is_stored_at_its_end() -> None:
    """The run before may have stored that it owes something."""

    def record(_: object) -> Recorded:
        host.moves_out = True
        return Recorded(accepted=True)

    host = SimulatedHost(plan(), record=[record], acknowledge=[NOT_ADDRESSED])
    host.at(1, lambda call: call.receive(response()))
    with pytest.raises(ContinueAsNewRequested) as requested:
        await host.protocol.run()
    continuation = host.protocol.continuation(requested.value)
    following = SimulatedHost(plan())
    following.protocol = CallProtocol(following, REQUEST, "run-1", continuation)
    outcome = await following.protocol.run()
    assert outcome.acknowledgement_owed is False
    assert [step.stage for step in following.steps(names.CONCLUDE)] == ["completed"]


async def test_timeout_is_acknowledged_as_failed_and_resent_under_a_new_key() -> None:
    """Two cycles that time out send under different keys, each acknowledged as failed."""
    host = SimulatedHost(plan())
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.notice is not None
    assert host.sent_cycles == [1, 2]
    assert host.acknowledgements == [(1, "failed"), (2, "failed")]
    assert host.elapsed == 60


async def test_deadline_counts_from_the_sending() -> None:
    """The time the receipt took is part of the deadline."""
    sent = Sent(sent_at=START, receipt_at=START + timedelta(seconds=4))
    host = SimulatedHost(plan(cycles=1), send=[sent])
    await host.protocol.run()
    assert host.elapsed == 26


async def test_no_receipt_parks_with_the_same_key_for_reprocessing() -> None:
    """An ambiguous end is resent under the same key, because the provider may have done it."""
    host = SimulatedHost(
        plan(on_failure=OnFailure.PARK),
        send=[NO_RECEIPT, Sent(sent_at=START, receipt_at=START, messages=(response(),))],
    ).at(100, lambda call: call.reprocess(Reprocess(by="ops")))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.sent_cycles == [1, 1]
    assert host.acknowledgements == [(1, "success")]
    assert host.indexed == [Stage.PARKED, "in_flight"]


async def test_refused_is_final_and_has_its_own_notice() -> None:
    """A 4xx ends the call at once; there is nothing to acknowledge."""
    host = SimulatedHost(plan(), send=[StepError(StepFailure.REFUSED, "422")])
    outcome = await host.protocol.run()
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, "422")
    assert outcome.notice is not None
    assert outcome.notice.kind == "refused"
    assert host.acknowledgements == []


async def test_nothing_sent_spends_no_cycle_and_acknowledges_nothing() -> None:
    """When no worker took the send up, there is nothing to acknowledge."""
    host = SimulatedHost(plan(), send=[StepError(StepFailure.UNAVAILABLE, "no worker")])
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert host.sent_cycles == [1]
    assert host.acknowledgements == []


async def test_extension_moves_the_deadline_up_to_the_ceiling() -> None:
    """A provider that asks for an hour gets the ten minutes the operation allows."""
    asks = ProviderMessage(
        kind=MessageKind.EXTENSION, event_key="more", extend_by=timedelta(hours=1)
    )
    host = SimulatedHost(plan(cycles=1)).at(5, lambda call: call.receive(asks))
    await host.protocol.run()
    assert host.elapsed == 600


@pytest.mark.parametrize(("retryable", "cycles"), [(True, [1, 2]), (False, [1])])
async def test_provider_failure_opens_a_cycle_only_if_retryable(
    retryable: bool, cycles: list[int]
) -> None:
    """A retryable failure is resent under a new key; a final one ends the call."""
    failure = ProviderMessage(
        kind=MessageKind.FAILURE, event_key="f", reason="no stock", retryable=retryable
    )
    host = SimulatedHost(plan()).at(1, lambda call: call.receive(failure))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert host.sent_cycles == cycles


@pytest.mark.parametrize(("seconds", "cancelled", "elapsed"), [(3, False, 3), (90, True, 20)])
async def test_next_cycle_comes_when_the_provider_is_ready(
    seconds: int, cancelled: bool, elapsed: int
) -> None:
    """A retryable failure says how long to wait; a cancel ends the waiting."""
    busy = ProviderMessage(
        kind=MessageKind.FAILURE,
        event_key="f",
        retryable=True,
        retry_after=timedelta(seconds=seconds),
    )
    first, second = (
        Sent(sent_at=START, receipt_at=START, messages=(message,)) for message in (busy, response())
    )
    host = SimulatedHost(plan(), send=[first, second])
    if cancelled:
        host.at(20, lambda call: call.cancel(Cancel(by="ops", reason="no need")))

    outcome = await host.protocol.run()

    waited = [status.waiting for status in host.shown if status.waiting]
    delayed = [one.is_delayed for one in waited if one.what is WaitingFor.RETRY]
    assert host.elapsed == elapsed
    assert host.sent_cycles == ([1] if cancelled else [1, 2])
    assert outcome.status is (OutcomeStatus.CANCELLED if cancelled else OutcomeStatus.COMPLETED)
    assert set(delayed) == {cancelled}


async def test_status_request_is_asked_before_giving_up() -> None:
    """A provider that only lost its callback is asked once, and its answer completes the call."""
    host = SimulatedHost(plan(ask_status=True), ask_status=[Asked(message=response("s"))])
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.sent_cycles == [1]
    assert host.acknowledgements == [(1, "success")]


async def test_cancel_acknowledges_as_failed_and_names_who() -> None:
    """A cancelled call acknowledges as failed what was sent."""
    host = SimulatedHost(plan()).at(
        3, lambda call: call.cancel(Cancel(by="ann", reason="wrong order"))
    )
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.CANCELLED
    assert outcome.cancelled is not None
    assert outcome.cancelled.by == "ann"
    assert host.acknowledgements == [(1, "failed")]


async def test_cancel_after_capture_is_too_late_and_says_so() -> None:
    """A captured response wins over a cancel."""

    def cancelled_meanwhile(call: object) -> object:
        host.protocol.cancel(Cancel(by="ann", reason="wrong order"))
        return host.answers["errors"][0]

    host = SimulatedHost(plan(), errors=[Recorded(accepted=True)]).at(
        1, lambda call: call.receive(response())
    )
    host.answers[names.ACKNOWLEDGE] = [cancelled_meanwhile]
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert "too late" in (host.protocol.state.status().last_error or "")


async def test_force_ack_records_the_operators_answer() -> None:
    """A forced end is recorded like a response and names who forced it."""
    host = SimulatedHost(plan()).at(
        3,
        lambda call: call.force_ack(
            ForceAck(by="bo", reason="seen in their UI", response={"id": 9})
        ),
    )
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.response == {"id": 9}
    assert outcome.forced is not None
    assert outcome.forced.by == "bo"
    assert len(host.steps(names.RECORD)) == 1


async def test_acknowledgement_that_is_not_accepted_stays_pending() -> None:
    """The outcome stands while the acknowledgement is still being tried."""
    refused = StepError(StepFailure.NOT_ACCEPTED, "503")
    host = SimulatedHost(plan(), acknowledge=[refused]).at(1, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert outcome.acknowledgement_owed is True
    assert host.acknowledgements == [(1, "success")] * 2


@pytest.mark.parametrize(
    ("late", "status"),
    [(LatePolicy.ACCEPT, OutcomeStatus.COMPLETED), (LatePolicy.HOLD, OutcomeStatus.FAILED)],
)
async def test_late_response_of_a_parked_call(late: LatePolicy, status: OutcomeStatus) -> None:
    """After a failed acknowledgement, a late answer counts as the operation says."""
    host = SimulatedHost(plan(cycles=1, on_failure=OnFailure.PARK, late=late, undoes=False)).at(
        1000, lambda call: call.receive(response())
    )
    outcome = await host.protocol.run()
    assert outcome.status is status
    assert outcome.late is (status is OutcomeStatus.COMPLETED)
    assert host.elapsed == (1000 if outcome.late else 30 + timedelta(days=7).total_seconds())


async def test_event_key_of_another_call_is_not_taken() -> None:
    """What the ledger gave to another call leaves this one waiting."""
    host = SimulatedHost(
        plan(cycles=1), record=[Recorded(accepted=False, reason="another call's")]
    ).at(1, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED


async def test_a_repeat_returns_what_was_recorded() -> None:
    """A call the ledger knows the end of sends nothing."""
    first = SimulatedHost(plan()).at(1, lambda call: call.receive(response()))
    recorded = await first.protocol.run()
    again = SimulatedHost(plan(), prepare=[Prepared(recorded=recorded)])
    assert await again.protocol.run() == recorded
    assert again.sent_cycles == []


async def test_switched_off_fails_with_a_notice_before_anything_is_sent() -> None:
    """A flag that is off costs the provider nothing and tells the user something."""
    host = SimulatedHost(plan(not_now="acme is switched off in prod"))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.notice is not None
    assert host.sent_cycles == []


@pytest.mark.parametrize("on_failure", list(OnFailure))
@pytest.mark.parametrize("when_off", list(WhenOff))
async def test_operation_decides_about_a_call_that_is_held_back(
    on_failure: OnFailure, when_off: WhenOff
) -> None:
    """Parked until its time is over, or refused at once; `on_failure` does not apply."""
    standing = AdmissionState(not_now="the breaker is open", parked_reason="breaker_open")
    host = SimulatedHost(
        plan(not_now=standing.not_now, standing=standing, when_off=when_off, on_failure=on_failure)
    )
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.notice is not None
    assert outcome.notice.kind == "unavailable"
    assert host.sent_cycles == []
    is_parked = when_off is WhenOff.PARK
    assert host.elapsed == (plan().parked_for.total_seconds() if is_parked else 0)
    assert host.indexed == (["parked", "in_flight"] if is_parked else [])


OFF = AdmissionState(not_now="acme is switched off in prod (ann: a trial)")


async def test_a_parked_call_asks_its_flags_again_before_it_is_sent() -> None:
    """Held back again, it stays as it was and shows why; let through, it is sent."""
    held_back = plan(not_now="off", when_off=WhenOff.PARK)
    host = (
        SimulatedHost(held_back, reconsider=[OFF, AdmissionState()])
        .at(10, lambda call: call.reprocess(Reprocess(by="ops")))
        .at(20, lambda call: call.reprocess(Reprocess(by="ops")))
        .at(25, lambda call: call.receive(response()))
    )
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.sent_cycles == [1]
    errors = [status.last_error for status in host.shown if status.stage is Stage.PARKED]
    assert errors[-1] == f"not reprocessed: {OFF.not_now}"
    assert len({status.deadline for status in host.shown if status.stage is Stage.PARKED}) == 1
    assert len(host.steps(names.RECONSIDER)) == 2


async def test_a_call_that_waits_for_its_control_looks_again_by_itself() -> None:
    """It was parked because nobody knew the flags; as soon as they are known, it is sent."""
    unknown = AdmissionState(
        not_now="the control of acme cannot be read", parked_reason="not_sent", is_known=False
    )
    held_back = plan(not_now=unknown.not_now, standing=unknown, when_off=WhenOff.PARK)
    host = SimulatedHost(held_back, reconsider=[unknown, AdmissionState()])
    host.at(100, lambda call: call.receive(response()))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert host.sent_cycles == [1]
    assert len(host.steps(names.RECONSIDER)) == 2
    assert host.indexed == ["parked", "in_flight"]


async def test_a_call_whose_flags_cannot_be_asked_stays_parked() -> None:
    """Not knowing is no reason to send."""
    host = SimulatedHost(
        plan(not_now="off", when_off=WhenOff.PARK),
        reconsider=[StepError("Unavailable", "no worker knows acme any more")],
    ).at(10, lambda call: call.reprocess(Reprocess(by="ops")))
    outcome = await host.protocol.run()
    assert outcome.status is OutcomeStatus.FAILED
    assert host.sent_cycles == []
    assert host.elapsed == plan().parked_for.total_seconds()


async def test_one_arrival_by_two_ways_is_no_duplicate() -> None:
    """A callback that came from the inbox and by signal is one; a repeated one is two."""
    came = response("evt-1", received_at=START)
    receipt = Sent(sent_at=START, receipt_at=START, reference="r-1", messages=(came,))
    host = SimulatedHost(plan(), send=[receipt])
    outcome = await host.protocol.run()
    host.protocol.receive(came)
    assert outcome.status is OutcomeStatus.COMPLETED
    assert not host.protocol.state.messages.has_suppressed
    host.protocol.receive(came.model_copy(update={"received_at": START + timedelta(seconds=1)}))
    assert host.protocol.state.messages.has_suppressed


async def test_the_path_to_the_recording_is_short() -> None:
    """Between the run of the protocol and the step that records the response lie few frames."""
    path: list[str] = []

    def is_protocol(file: str) -> bool:
        return "/workflows/call/" in file and "/tests/" not in file

    def record(call: object) -> Recorded:
        stack = (frame.function for frame in inspect.stack() if is_protocol(frame.filename))
        path.extend(reversed(list(stack)))
        return Recorded(accepted=True)

    host = SimulatedHost(plan(), record=[record]).at(2, lambda call: call.receive(response()))
    await host.protocol.run()
    assert path == ["run", "exchange", "_await_response", "wait", "_record"]


def test_current_details_show_the_notice_once() -> None:
    """What a user reads, when a response is expected, and the deadline with its reason."""
    notice = (
        plan()
        .notices["delayed"]
        .model_copy(update={"expected_at": START, "alternative": "Call us."})
    )
    status = CallStatus(
        call_id="acme.order.k-1",
        stage=Stage.PARKED,
        since=START,
        deadline=START,
        deadline_reason="parked for at most 7 days",
        notice=notice,
    )
    details = render(status)
    assert details.count("Expected by") == 1
    assert details.index("Expected by") < details.index("Call us.")
    assert "until 2026-01-01 00:00:00 UTC: parked for at most 7 days" in details


def test_ui_details_say_late_and_unknown() -> None:
    """In the headline, where the Temporal UI is opened."""
    status = CallStatus(call_id="acme.order.k-1", stage=Stage.FAILED, since=START)
    details = render(status.model_copy(update={"effect": Effect.UNKNOWN}))
    assert details.startswith("**Failed, effect unknown: the provider may have done the work")
    assert "effect unknown" not in render(status.model_copy(update={"effect": Effect.NONE}))
    times = Timings(started_at=START, ended_at=START)
    outcome = CallOutcome(
        call_id=status.call_id, status=OutcomeStatus.COMPLETED, late=True, timings=times
    )
    done = {"stage": Stage.COMPLETED, "effect": Effect.DONE, "outcome": outcome}
    assert render(status.model_copy(update=done)).startswith("**Completed, late: after a missed")


async def test_what_operators_ask_for_goes_to_the_workflow_that_conducts_the_call() -> None:
    """One that waits for the end of another's call passes it on, and keeps nothing for itself."""
    elsewhere = StepError(StepFailure.HOSTED_ELSEWHERE, "bulk:1 conducts this call", code="bulk:1")

    def early(call: CallProtocol) -> StepError:
        call.force_ack(ForceAck(by="ann", reason="seen", response={"id": 9}))
        return elsewhere

    def later(call: CallProtocol) -> StepError:
        call.reprocess(Reprocess(by="bo"))
        return elsewhere

    recorded = Prepared(recorded=ENDED_ELSEWHERE)
    host = SimulatedHost(plan(), prepare=[early, later, recorded])
    assert await host.protocol.run() == ENDED_ELSEWHERE
    assert [(to, name) for to, name, _ in host.passed_on] == [
        ("bulk:1", names.FORCE_ACK),
        ("bulk:1", names.REPROCESS),
    ]
    call_id = host.protocol.state.request.call_id
    said = {"by": "ann", "reason": "seen", "response": {"id": 9}}
    assert host.passed_on[0][2] == {**said, "call_id": call_id}
    state = host.protocol.state
    assert (state.conductor, state.operator_requests.forced) == (None, None)
    assert not state.messages


ENDED_ELSEWHERE = CallOutcome(
    call_id="acme.order.k-1",
    status=OutcomeStatus.COMPLETED,
    response={"ok": True},
    cycles=1,
    effect=Effect.DONE,
    timings=Timings(started_at=START),
)
"""How a call has ended that another workflow has conducted."""
