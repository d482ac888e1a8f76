"""What pages show of calls: each change has a number, and what is no change has none."""

from __future__ import annotations

from datetime import timedelta

from ackbridge.contracts.calls import (
    CallRequest,
    Effect,
    Notice,
    NoticeStatus,
    OutcomeCode,
    OutcomeStatus,
    Stage,
)
from ackbridge.contracts.deliveries import Delivery, NoticeBody, NoticeData
from ackbridge.contracts.steps import AcknowledgementKind, Parking
from ackbridge.ledger.call_events import CallEvent
from ackbridge.ledger.ledger import Ledger

from .samples import START, MovableClock, outcome_of, request_for, response

DELAYED = Notice(kind="delayed", title="Later", message="We keep working on it.")


async def newest(ledger: Ledger, request: CallRequest) -> CallEvent:
    """The newest event of a call."""
    (found,) = await ledger.call_events.newest([request.call_id, "acme.order.other"])
    return found


async def park(ledger: Ledger, request: CallRequest, times: int, notice: Notice) -> None:
    """Park a call, as `conclude` does."""
    await ledger.calls.record_stage(
        request.call_id,
        Stage.PARKED,
        "silence",
        None,
        parking=Parking(reason="no_response", times=times),
        effect=Effect.UNKNOWN,
        notice=notice,
    )


async def test_an_event_has_a_number_that_only_a_change_increases(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Parked, parked with the same notice, parked with another one, and completed late."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    assert await ledger.call_events.numbers([request.call_id]) == {}

    await park(ledger, request, 1, DELAYED)
    clock.advance(timedelta(minutes=1))
    await park(ledger, request, 2, DELAYED)
    first = await newest(ledger, request)
    assert (first.number, first.status, first.at) == (1, NoticeStatus.DELAYED, START)
    assert (first.notice, first.effect, first.code) == (
        DELAYED,
        Effect.UNKNOWN,
        OutcomeCode.NO_RESPONSE,
    )

    await park(ledger, request, 3, DELAYED.model_copy(update={"expected_at": START}))
    assert await ledger.call_events.numbers([request.call_id]) == {request.call_id: 2}

    outcome = outcome_of(request, effect=Effect.DONE)
    own = Notice(kind="completed_late", title="Room 7 is yours", message="Welcome.")
    await ledger.calls.record_response(
        request.call_id, 1, response("e-1"), outcome, was_parked=True, notice=own
    )
    await ledger.calls.record_acknowledgement(
        request.call_id, 1, AcknowledgementKind.SUCCESS, START, outcome
    )
    last = await newest(ledger, request)
    assert (last.number, last.status, last.late) == (3, NoticeStatus.COMPLETED, True)
    assert last.notice == own, "the acknowledgement has not replaced it"


async def test_an_outcome_that_is_replaced_is_an_event(ledger: Ledger) -> None:
    """Failed with unknown effect, then without any."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    unknown = Notice(kind="unknown", title="Unknown", message="It may still go through.")
    failed = outcome_of(
        request,
        status=OutcomeStatus.FAILED,
        effect=Effect.UNKNOWN,
        code=OutcomeCode.NO_RESPONSE,
        notice=unknown,
    )
    await ledger.calls.record_stage(request.call_id, Stage.RECONCILING, None, failed)
    first = await newest(ledger, request)
    assert (first.number, first.effect, first.notice) == (1, Effect.UNKNOWN, unknown)

    known = failed.model_copy(update={"effect": Effect.NONE, "notice": DELAYED})
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, None, known)
    await ledger.calls.record_stage(request.call_id, Stage.FAILED, None, known)
    last = await newest(ledger, request)
    assert (last.number, last.status, last.effect) == (2, NoticeStatus.FAILED, Effect.NONE)
    assert not last.late


async def test_a_delay_of_a_call_that_is_not_parked_comes_with_its_notice(
    ledger: Ledger, clock: MovableClock
) -> None:
    """Once, and not after something newer."""
    request = request_for("1")
    await ledger.calls.claim(request, "chain-1")
    data = NoticeData(
        call_id=request.call_id,
        provider=request.provider,
        operation=request.operation,
        key=request.key,
        sequence=1,
        status=NoticeStatus.DELAYED,
        notice=DELAYED,
    )
    body = NoticeBody(id="n-1", type="call.delayed", timestamp=START, data=data)
    delivery = Delivery(subscriber="shop", body=body)

    for _ in range(2):
        await ledger.notices.start_attempt(delivery)
    event = await newest(ledger, request)
    assert (event.number, event.status, event.notice) == (1, NoticeStatus.DELAYED, DELAYED)

    clock.advance(timedelta(minutes=1))
    await park(ledger, request, 1, DELAYED.model_copy(update={"expected_at": START}))
    old = delivery.model_copy(update={"body": body.model_copy(update={"id": "n-0"})})
    await ledger.notices.start_attempt(old)
    assert await ledger.call_events.numbers([request.call_id]) == {request.call_id: 2}


async def test_ids_that_are_hard_to_store_are_found(ledger: Ledger) -> None:
    """They are escaped in the table, and in the question."""
    request = request_for("a\\b'\"{,}")
    await ledger.calls.claim(request, "chain-1")
    await park(ledger, request, 1, DELAYED)

    assert await ledger.call_events.numbers([request.call_id]) == {request.call_id: 1}
    assert (await newest(ledger, request)).call_id == request.call_id
