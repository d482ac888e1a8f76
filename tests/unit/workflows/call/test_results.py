"""Responses that are fetched, and receipts that are final."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallStatus, Effect, OutcomeCode, OutcomeStatus
from ackbridge.contracts.messages import MessageSource
from ackbridge.contracts.plan import OnFailure, PollPlan, ResponseMode, ResultPlan
from ackbridge.contracts.signals import Cancel
from ackbridge.contracts.steps import Asked, Sent, StepFailure
from tests.support.simulated_host import START, SimulatedHost, plan, response
from workflows.hosting.host import StepError

RESULT = ResultPlan(timeout=timedelta(seconds=10), within=timedelta(hours=24))
POLL = PollPlan(every=timedelta(seconds=5), timeout=timedelta(seconds=5))
FETCHED = Asked(message=response(data={"pages": 3}))
NOT_THERE = StepError(
    StepFailure.NO_RECEIPT, "the provider answered 404", retry_after=timedelta(seconds=1)
)
FORBIDDEN = StepError(StepFailure.REFUSED, "the provider refused with 403", code="expired")
KEPT = Sent(sent_at=START, receipt_at=START, reference="r-1", kept={"link": "https://l"})


def host(*fetched: Asked | StepError, **changes: Any) -> SimulatedHost:
    """A host of a call whose result is fetched after a success at 3 s."""
    planned = plan(result=RESULT, **changes)
    call = SimulatedHost(planned, fetch_result=fetched, send=[KEPT])
    return call.at(3, lambda protocol: protocol.receive(response()))


async def test_the_result_is_the_response() -> None:
    """It is recorded once, and acknowledged; the request knows what was kept."""
    call = host(FETCHED)
    outcome = await call.protocol.run()
    assert (outcome.status, outcome.effect) == (OutcomeStatus.COMPLETED, Effect.DONE)
    (recorded,) = call.steps(names.RECORD)
    assert recorded.message.data == {"pages": 3}
    (step,) = call.steps(names.FETCH_RESULT)
    assert (step.reference, step.kept, step.message.data) == ("r-1", KEPT.kept, {"ok": True})
    assert recorded.acknowledges
    assert call.acknowledgements == [(1, "success")]


async def test_whoever_waits_is_told_when_the_result_takes_long() -> None:
    """It goes on for as long as the operation allows."""
    call = host(NOT_THERE, FETCHED)
    outcome = await call.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    delayed: list[CallStatus] = [
        one for one in call.shown if one.waiting and one.waiting.is_delayed
    ]
    assert delayed
    assert delayed[0].notice is not None
    assert delayed[0].notice.kind == "delayed"


async def test_a_result_that_cannot_be_had_ends_the_call() -> None:
    """The work is done: nothing is sent again, nothing is called off, and nothing is parked."""
    call = host(FORBIDDEN, on_failure=OnFailure.PARK)
    outcome = await call.protocol.run()
    assert (outcome.status, outcome.effect) == (OutcomeStatus.FAILED, Effect.DONE)
    assert (outcome.code, outcome.provider_code) == (OutcomeCode.UNREADABLE, "expired")
    assert outcome.notice is not None
    assert outcome.notice.kind == "unknown"
    assert (call.sent_cycles, call.acknowledgements) == ([1], [])
    assert call.elapsed == 3


async def test_a_cancel_while_the_result_is_fetched_is_heard() -> None:
    """What the provider has done is said all the same."""
    call = host(NOT_THERE, NOT_THERE).at(
        3, lambda protocol: protocol.cancel(Cancel(by="ann", reason="not needed"))
    )
    outcome = await call.protocol.run()
    assert outcome.status in (OutcomeStatus.CANCELLED, OutcomeStatus.FAILED)
    assert outcome.effect is not Effect.NONE or call.acknowledgements


async def test_a_final_receipt_needs_no_poll() -> None:
    """Nothing is asked for what is there."""
    final = Sent(
        sent_at=START,
        receipt_at=START,
        reference="r-1",
        messages=(response("receipt:1", source=MessageSource.SYNC),),
    )
    call = SimulatedHost(plan(mode=ResponseMode.POLL, poll=POLL), send=[final])
    outcome = await call.protocol.run()
    assert outcome.status is OutcomeStatus.COMPLETED
    assert (call.elapsed, call.steps(names.POLL)) == (0, [])
