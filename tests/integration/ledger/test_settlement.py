"""Unknown effects, and what operators settle."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    Effect,
    Intervention,
    OutcomeCode,
    OutcomeStatus,
    Stage,
)
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind, Parking, WrittenOff
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.inbox import InboxState
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.settlement import UnknownCall, UnknownTotal

from .samples import START, MovableClock, entry, outcome_of, request_for, response

MINUTE = timedelta(minutes=1)
ADA = Intervention(by="ada", reason="asked the provider")
FAILURE = ProviderMessage(
    kind=MessageKind.FAILURE, event_key="e-1", reason="declined", code="card_declined"
)


async def end(
    ledger: Ledger, request: CallRequest, amount: str | None = None, **changes: Any
) -> CallOutcome:
    """End a call without response; with an unknown effect, unless changes say otherwise."""
    fields = {
        "status": OutcomeStatus.FAILED,
        "effect": Effect.UNKNOWN,
        "code": OutcomeCode.NO_RESPONSE,
    }
    outcome = outcome_of(request, **fields | changes)
    await ledger.calls.claim(request, "run-1")
    await ledger.calls.record_stage(
        request.call_id, Stage(outcome.status), outcome.reason, outcome, amount=amount
    )
    return outcome


def settling(request: CallRequest, **what: Any) -> SettleRequest:
    """A request by Ada."""
    return SettleRequest.model_validate(
        {"call_id": request.call_id, "by": ADA.by, "reason": ADA.reason, **what}
    )


async def hold(ledger: Ledger, request: CallRequest, message: ProviderMessage) -> int:
    """Store a message of a call as held, and return its id."""
    known = {"call_id": request.call_id, "message": message}
    await ledger.inbox.store(entry(message.event_key, **known))
    (stored,) = await ledger.inbox.look(request.call_id, "acme", [])
    await ledger.inbox.settle([stored.id], InboxState.HELD, "the call had ended")
    return stored.id


async def effect_of(ledger: Ledger, request: CallRequest) -> tuple[Effect | None, str | None]:
    """The recorded effect, and who stated it."""
    row = await ledger.calls.get(request.call_id)
    assert row is not None
    assert row.outcome is None or row.outcome.effect is row.effect
    return row.effect, row.settled_by


async def test_unknown_calls_are_listed_and_summed(ledger: Ledger, clock: MovableClock) -> None:
    """Oldest first; parked ones too; not those whose effect is known."""
    await end(ledger, request_for("b"), "0.10")
    clock.advance(MINUTE)
    await end(ledger, request_for("a"), "0.20")
    parked = request_for("c")
    await ledger.calls.claim(parked, "run-1")
    parking = Parking(reason="no_receipt", times=1)
    await ledger.calls.record_stage(
        parked.call_id, Stage.PARKED, None, None, parking=parking, effect=Effect.UNKNOWN
    )
    await end(ledger, request_for("known"), "5", effect=Effect.NONE)
    other = CallRequest(provider="other", operation="order", key="1")
    await end(ledger, other)

    rows = await ledger.settlement.unknown("acme")
    assert rows == [
        UnknownCall("acme.order.b", "acme", "order", Stage.FAILED, "no_response", START, "0.10"),
        UnknownCall(
            "acme.order.a", "acme", "order", Stage.FAILED, "no_response", START + MINUTE, "0.20"
        ),
        UnknownCall(
            "acme.order.c", "acme", "order", Stage.PARKED, "no_receipt", START + MINUTE, None
        ),
    ]
    assert rows[:1] == await ledger.settlement.unknown(limit=1)
    acme = UnknownTotal("acme", 3, START, Decimal("0.30"))
    assert await ledger.settlement.unknown_totals() == [
        acme,
        UnknownTotal("other", 1, START + MINUTE, None),
    ]
    assert await ledger.settlement.unknown_totals("acme") == [acme]


async def test_an_unknown_effect_keeps_its_age(ledger: Ledger, clock: MovableClock) -> None:
    """Recording it again does not make it younger; once it is known, it has none."""
    request = request_for("1")
    await end(ledger, request)
    clock.advance(MINUTE)
    await end(ledger, request)
    assert [one.since for one in await ledger.settlement.unknown()] == [START]

    await end(ledger, request, effect=Effect.NONE)
    assert await ledger.settlement.unknown() == []


async def test_a_response_replaces_an_unknown_outcome(ledger: Ledger) -> None:
    """The protocol has found out later; the duplicate index has the event once."""
    request = request_for("1")
    await end(ledger, request)
    late = outcome_of(request, late=True, effect=Effect.DONE)
    for repeated in (False, True):
        recorded = await ledger.calls.record_response(request.call_id, 1, response("e-1"), late)
        assert (recorded.accepted, recorded.repeated) == (True, repeated)

    row = await ledger.calls.get(request.call_id)
    assert row is not None
    assert (row.outcome, row.stage, row.code) == (late, Stage.COMPLETED, None)
    assert await ledger.settlement.unknown() == []


async def test_an_operator_resolves_a_call_as_done(ledger: Ledger) -> None:
    """With its response, which is then the call's; a repeat changes nothing."""
    request = request_for("1")
    await end(ledger, request)
    done = settling(request, response={"id": 7}, **{"as": "done"})

    outcome = await ledger.settlement.settle(done)

    assert (outcome.status, outcome.effect, outcome.code) == (
        OutcomeStatus.COMPLETED,
        Effect.DONE,
        None,
    )
    assert (outcome.response, outcome.settled) == ({"id": 7}, ADA)
    assert await ledger.settlement.settle(done) == outcome
    assert await effect_of(ledger, request) == (Effect.DONE, "ada")
    assert [one.data for one in await ledger.calls.responses(request.call_id)] == [{"id": 7}]


async def test_an_operator_resolves_a_call_as_not_done(ledger: Ledger) -> None:
    """It has failed, without any effect."""
    request = request_for("1")
    await end(ledger, request, reason="no answer")

    outcome = await ledger.settlement.settle(settling(request, **{"as": "none"}))

    assert (outcome.status, outcome.effect, outcome.reason) == (
        OutcomeStatus.FAILED,
        Effect.NONE,
        "no answer",
    )
    assert await effect_of(ledger, request) == (Effect.NONE, "ada")


async def test_what_the_provider_has_reported_is_not_undone(ledger: Ledger) -> None:
    """Unless the provider refused our acknowledgement, or an operator had ended the call."""
    none = {"as": "none"}
    done = {"status": OutcomeStatus.COMPLETED, "effect": Effect.DONE, "code": None}
    await end(ledger, request_for("1"), **done)
    with pytest.raises(InvalidInputError, match="as: the provider has reported that it is done"):
        await ledger.settlement.settle(settling(request_for("1"), **none))
    for key, doubt in (("2", {"disputed": True}), ("3", {"forced": ADA})):
        await end(ledger, request_for(key), **done | doubt)
        outcome = await ledger.settlement.settle(settling(request_for(key), **none))
        assert (outcome.status, outcome.effect) == (OutcomeStatus.FAILED, Effect.NONE)


async def test_a_second_response_is_refused(ledger: Ledger) -> None:
    """The provider's own stays."""
    request = request_for("1")
    await ledger.calls.claim(request, "run-1")
    outcome = outcome_of(request, effect=Effect.UNKNOWN)
    await ledger.calls.record_response(request.call_id, 1, response("e-1", "own"), outcome)

    with pytest.raises(InvalidInputError, match="another response"):
        await ledger.settlement.settle(settling(request, response="other", **{"as": "done"}))
    settled = await ledger.settlement.settle(settling(request, **{"as": "done"}))

    assert settled.response == "own"


async def test_open_and_unknown_calls_are_refused(ledger: Ledger) -> None:
    """An open call takes a signal. One whose run was terminated can be settled."""
    request = request_for("1")
    done = settling(request, **{"as": "done"})
    with pytest.raises(InvalidInputError, match=r"no call acme\.order\.1"):
        await ledger.settlement.settle(done)
    await ledger.calls.claim(request, "run-1")
    with pytest.raises(InvalidInputError, match="signal"):
        await ledger.settlement.settle(done, is_open=True)

    outcome = await ledger.settlement.settle(done)

    assert outcome.effect is Effect.DONE


async def test_a_held_response_is_applied(ledger: Ledger) -> None:
    """It completes the call; it is delivered, and its event is in the duplicate index."""
    request = request_for("1")
    await end(ledger, request)
    held = await hold(ledger, request, response("e-1", {"id": 7}))
    for _ in range(2):
        outcome = await ledger.settlement.settle(settling(request, held_id=held))
        assert (outcome.effect, outcome.response, outcome.late) == (Effect.DONE, {"id": 7}, True)

    assert await ledger.inbox.held() == []
    assert [one.state for one in await ledger.inbox.entries()] == [InboxState.DELIVERED]
    assert await ledger.calls.is_event_recorded("acme", "e-1")


async def test_a_held_failure_is_applied(ledger: Ledger) -> None:
    """The provider says that nothing was done, and why."""
    request = request_for("1")
    await end(ledger, request)
    held = await hold(ledger, request, FAILURE)

    outcome = await ledger.settlement.settle(settling(request, held_id=held))

    assert (outcome.effect, outcome.code, outcome.provider_code, outcome.reason) == (
        Effect.NONE,
        OutcomeCode.PROVIDER_FAILED,
        "card_declined",
        "declined",
    )
    assert await ledger.inbox.held_entry(held) is None


async def test_a_message_of_another_call_is_not_applied(ledger: Ledger) -> None:
    """Nor one that is not held; nothing changes."""
    first, second = request_for("1"), request_for("2")
    await end(ledger, first)
    await end(ledger, second)
    held = await hold(ledger, first, FAILURE)

    with pytest.raises(InvalidInputError, match=r"held_id: the message is for acme\.order\.1"):
        await ledger.settlement.settle(settling(second, held_id=held))
    with pytest.raises(InvalidInputError, match="held_id: no message"):
        await ledger.settlement.settle(settling(first, held_id=held + 1))

    assert len(await ledger.settlement.unknown()) == 2


async def test_an_open_call_writes_off_an_acknowledgement(ledger: Ledger) -> None:
    """It has received a signal; the row says by whom, and why."""
    failed = AcknowledgementKind.FAILED
    await ledger.calls.record_owed("acme.order.1", 1, failed, "503")
    written_off = WrittenOff(cycle=1, kind=failed, **ADA.model_dump())

    await ledger.calls.record_stage(
        "acme.order.1", Stage.FAILED, None, None, written_off=[written_off]
    )

    assert await ledger.calls.owed() == []


async def test_a_written_off_acknowledgement_is_not_owed(ledger: Ledger) -> None:
    """Not again either, when an attempt is recorded late."""
    request = request_for("1")
    await ledger.calls.claim(request, "run-1")
    owing = outcome_of(request, effect=Effect.DONE, acknowledgement_owed=True)
    await ledger.calls.record_response(request.call_id, 1, response("e-1"), owing)
    success = AcknowledgementKind.SUCCESS
    await ledger.calls.record_owed(request.call_id, 1, success, "410", refused=True)
    assert [one.refused for one in await ledger.calls.owed()] == [True]
    write_off = settling(request, write_off={"cycle": 1, "kind": "success"})

    for _ in range(2):
        outcome = await ledger.settlement.settle(write_off)
        assert not outcome.acknowledgement_owed
    await ledger.calls.record_owed(request.call_id, 1, success, "late")

    assert await ledger.calls.owed() == []
    with pytest.raises(InvalidInputError, match="no failed acknowledgement of cycle 1"):
        await ledger.settlement.settle(settling(request, write_off={"cycle": 1, "kind": "failed"}))


@pytest.mark.parametrize(
    ("message", "effect"),
    [
        (response("e-2", {"id": 7}), Effect.DONE),
        (FAILURE, Effect.NONE),
        (ProviderMessage(kind=MessageKind.EXTENSION, event_key="e-2", until=START), Effect.NONE),
    ],
)
async def test_a_message_that_says_nothing_new_is_not_held(
    ledger: Ledger, message: ProviderMessage, effect: Effect
) -> None:
    """Neither when its call stores it, nor when the gateway does."""
    for number, by_gateway in (("1", True), ("2", False)):
        request = request_for(number)
        one = message.model_copy(update={"event_key": f"e-{number}"})
        outcome = await end(ledger, request, effect=effect)
        if effect is Effect.DONE:
            own = response(f"own-{number}", {"id": 7})
            await ledger.calls.record_response(request.call_id, 1, own, outcome)
        if by_gateway:
            await hold(ledger, request, one)
        else:
            await ledger.calls.record_stage(
                request.call_id, Stage.FAILED, None, outcome, held=[one]
            )

    states = [one.state for one in await ledger.inbox.entries()]
    assert states == [InboxState.DUPLICATE] * 2


@pytest.mark.parametrize(
    ("message", "effect"),
    [
        (response("e-1"), Effect.NONE),
        (response("e-1"), Effect.UNKNOWN),
        (FAILURE, Effect.DONE),
        (FAILURE, Effect.UNKNOWN),
    ],
)
async def test_a_contradiction_is_held(
    ledger: Ledger, message: ProviderMessage, effect: Effect
) -> None:
    """Also what may settle an unknown effect."""
    request = request_for("1")
    await end(ledger, request, effect=effect)

    await hold(ledger, request, message)

    assert [one.entry.message for one in await ledger.inbox.held()] == [message]


async def test_a_response_about_other_work_is_held(ledger: Ledger) -> None:
    """The provider has done the work twice."""
    request = request_for("1")
    await ledger.calls.claim(request, "run-1")
    outcome = outcome_of(request, effect=Effect.DONE, reference="r-1")
    await ledger.calls.record_response(request.call_id, 1, response("e-1", 1), outcome)

    await hold(ledger, request, response("e-2", 2).model_copy(update={"reference": "r-2"}))

    assert len(await ledger.inbox.held()) == 1


async def test_a_held_message_is_discarded_once(ledger: Ledger) -> None:
    """The entry says by whom, and why."""
    request = request_for("1")
    await end(ledger, request)
    held = await hold(ledger, request, FAILURE)

    assert await ledger.inbox.discard_held(held, "ada", "a test")
    assert not await ledger.inbox.discard_held(held, "ada", "a test")

    (stored,) = await ledger.inbox.entries("acme", InboxState.DISCARDED)
    assert (stored.id, stored.reason) == (held, "discarded by ada: a test")


async def test_an_unclassified_message_is_kept_and_replayed(
    ledger: Ledger, clock: MovableClock
) -> None:
    """It is not delivered before; then it is due like any other."""
    message = entry("e-1", call_id="acme.order.1")
    assert await ledger.inbox.store_unclassified(message, "no rule matches")
    assert not await ledger.inbox.store_unclassified(message, "no rule matches")
    (stored,) = await ledger.inbox.entries(state=InboxState.UNCLASSIFIED)
    assert (stored.entry, stored.reason, stored.settled_at) == (message, "no rule matches", START)
    assert await ledger.inbox.due(timedelta(0), 10) == []
    assert await ledger.inbox.held() == []

    clock.advance(MINUTE)
    assert await ledger.inbox.replay([stored.id, stored.id + 1], "ada", "new rule") == [stored.id]
    assert await ledger.inbox.replay([stored.id], "ada", "again") == []

    (due,) = await ledger.inbox.due(timedelta(0), 10)
    assert (due.entry, due.state) == (message, InboxState.PENDING)


async def test_a_look_finds_what_was_held_before_the_reference_was_known(ledger: Ledger) -> None:
    """By every reference; what is held for the call itself stays with the operators."""
    request = request_for("1")
    await end(ledger, request)
    await hold(ledger, request, FAILURE)
    for number in ("2", "3", "4"):
        await ledger.inbox.store(entry(f"e-{number}", reference=f"r-{number}"))
    (second, *_) = await ledger.inbox.due(timedelta(0), 10)
    await ledger.inbox.settle([second.id], InboxState.HELD, "no call has appeared")

    found = await ledger.inbox.look(request.call_id, "acme", ["r-2", "r-3"])

    assert [one.entry.event_key for one in found] == ["e-2", "e-3"]
    await ledger.calls.record_response(
        request.call_id, 1, response("e-2"), outcome_of(request, effect=Effect.DONE)
    )
    assert [one.entry.event_key for one in await ledger.inbox.held()] == ["e-1"]
