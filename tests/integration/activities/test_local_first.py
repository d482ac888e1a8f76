"""Activities that run another one: prepare with send, record with acknowledge."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Timings
from ackbridge.contracts.messages import BodyRef, MessageKind, ProviderMessage
from ackbridge.contracts.plan import Prepared
from ackbridge.contracts.steps import (
    Acknowledged,
    AcknowledgementKind,
    AcknowledgeStep,
    FailedAttempt,
    PrepareStep,
    Recorded,
    RecordStep,
    Sent,
)
from activities.acknowledge import Acknowledge
from activities.prepare import Prepare
from activities.record import Record
from activities.send import Send
from activities.support.provider_http import store_if_large

from .world import NOW, World, attempt, failed


async def prepared(of: World, operation: str = "order", **fields: Any) -> Prepared:
    """The result of a preparation that may send."""
    step = PrepareStep(request=of.request(operation), run_chain="chain-1", sends=True, **fields)
    activity = Prepare(of.deps, Send(of.deps)).prepare
    return await attempt().run(activity, step)


async def recorded(of: World, event_key: str = "e1", data: Any = None, **fields: Any) -> Recorded:
    """The result of a recording that may acknowledge."""
    request = of.request()
    outcome = CallOutcome(
        call_id=request.call_id,
        status=OutcomeStatus.COMPLETED,
        acknowledgement_owed=True,
        timings=Timings(started_at=NOW),
    )
    message = ProviderMessage(
        kind=MessageKind.RESPONSE, event_key=event_key, data=data or {"ok": True}
    )
    step = RecordStep(
        request=request, cycle=1, message=message, outcome=outcome, acknowledges=True, **fields
    )
    activity = Record(of.deps, Acknowledge(of.deps)).record
    return await attempt().run(activity, step)


async def test_what_exceeds_the_share_of_its_provider_goes_through_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the request nor the acknowledgement is sent; nothing is owed, and slots come back."""
    monkeypatch.setattr(world.deps.rides, "share", 1)
    with world.deps.rides.ride("acme"):
        assert (await prepared(world)).sent is None
        answer = await recorded(world)
        assert (answer.accepted, answer.acknowledged, answer.needs_queue) == (True, None, True)
        local = attempt(is_local=True)
        step = AcknowledgeStep(
            request=world.request(), cycle=1, kind=AcknowledgementKind.SUCCESS, reference="r-1"
        )
        error = await failed(local.run(Acknowledge(world.deps).acknowledge, step))
        assert (error.type, error.non_retryable) == ("Unavailable", False)
    assert world.script.asked == []
    assert await local.run(Acknowledge(world.deps).acknowledge, step)
    assert world.script.asked == ["POST /orders/r-1/ack"]


async def test_prepare_sends(world: World) -> None:
    """One activity returns the plan and the receipt."""
    answer = await prepared(world)

    assert answer.sent == Sent(sent_at=NOW, receipt_at=NOW, reference="r-1")
    assert answer.plan is not None
    assert world.script.asked == ["POST /orders"]


@pytest.mark.parametrize(
    ("status", "expected"), [(500, ("NoReceipt", True)), (422, ("Refused", False))]
)
async def test_failed_send_is_part_of_the_result(
    world: World, status: int, expected: tuple[str, bool]
) -> None:
    """The plan stands, and the workflow learns the same as from a send of its own."""
    world.script.says({}, status)

    answer = await prepared(world)

    assert answer.plan is not None
    assert isinstance(answer.sent, FailedAttempt)
    assert (answer.sent.kind, answer.sent.reached) == expected
    assert (answer.sent.again_after is None) is (status == 422)


async def test_repeated_prepare_sends_nothing(world: World) -> None:
    """The workflow first has to know that the request may have been sent."""
    await prepared(world)

    again = await prepared(world)

    assert (again.repeated, again.taken_over, again.sent) == (True, False, None)
    assert world.script.asked == ["POST /orders"]


@pytest.mark.parametrize("operation", ["order", "wire"])
async def test_a_claim_that_is_taken_over_says_so(world: World, operation: str) -> None:
    """Whatever the operation, and also when it is asked again: its request may have been sent."""
    request = world.request(operation)
    await world.ledger.calls.claim(request, "chain-0")

    for _ in range(2):
        answer = await prepared(world, operation)
        assert (answer.taken_over, answer.sent) == (True, None)
        assert answer.first_claimed_at == NOW
    assert world.script.asked == []


async def test_slow_request_is_not_sent_by_prepare(world: World) -> None:
    """A workflow task must not take longer than the engine's timeout."""
    answer = await prepared(world, "ponder")

    assert (answer.plan is not None, answer.sent) == (True, None)
    assert world.script.asked == []


async def test_request_without_a_key_is_not_sent_by_prepare(world: World) -> None:
    """A workflow task that is lost would send it twice."""
    answer = await prepared(world, "wire")

    assert (answer.plan is not None, answer.sent) == (True, None)
    assert world.script.asked == []


async def test_provider_code_is_part_of_the_result(world: World) -> None:
    """As in the details of a failure."""
    world.script.says({"why": "none is left", "code": "sold_out"}, 422)

    answer = await prepared(world, "book")

    assert isinstance(answer.sent, FailedAttempt)
    assert (answer.sent.kind, answer.sent.code) == ("Refused", "sold_out")


async def test_retried_prepare_sends_as_for_the_first_time(world: World) -> None:
    """An attempt that claimed nothing has sent nothing."""
    step = PrepareStep(request=world.request(), run_chain="chain-1", sends=True)

    answer = await attempt(2).run(Prepare(world.deps, Send(world.deps)).prepare, step)

    assert isinstance(answer.sent, Sent)
    assert answer.sent.again is False


async def test_record_acknowledges(world: World) -> None:
    """One activity writes the response and acknowledges it; nothing stays pending."""
    await prepared(world)

    answer = await recorded(world, reference="r-1")

    assert answer == Recorded(accepted=True, acknowledged=Acknowledged(acknowledged_at=NOW))
    assert world.script.asked[-1] == "POST /orders/r-1/ack"
    row = await world.ledger.calls.get(world.request().call_id)
    assert row is not None
    assert row.outcome is not None
    assert not row.outcome.acknowledgement_owed


async def test_record_keeps_a_reference_and_acknowledges_the_body(world: World) -> None:
    """Templates of an acknowledgement see the response itself."""
    await prepared(world)
    data = await store_if_large(world.deps, world.request().call_id, "e1", {"n": "x" * 300_000})
    bodies: list[bytes] = []

    async def keep(request: httpx.Request) -> None:
        bodies.append(request.content)

    world.deps.http.event_hooks["request"].append(keep)

    await recorded(world, data=data, reference="r-1")

    (response,) = await world.ledger.calls.responses(world.request().call_id)
    assert response.data == data
    assert BodyRef.of_data(data) is not None
    assert json.loads(bodies[0]) == {"got": {"n": "x" * 300_000}}


async def test_refused_acknowledgement_stays_pending(world: World) -> None:
    """The response is recorded, and the workflow learns that the acknowledgement is pending."""
    await prepared(world)
    world.script.says({}, 503)

    answer = await recorded(world, reference="r-1")

    assert answer.accepted
    assert isinstance(answer.acknowledged, FailedAttempt)
    assert answer.acknowledged.kind == "NotAccepted"
    assert len(await world.ledger.calls.owed("acme")) == 1


async def test_rejected_response_is_not_acknowledged(world: World) -> None:
    """Another response was recorded first."""
    await prepared(world)
    await recorded(world, reference="r-1")

    second = await recorded(world, "e2", reference="r-1")

    assert (second.accepted, second.acknowledged) == (False, None)
    assert world.script.asked.count("POST /orders/r-1/ack") == 1
