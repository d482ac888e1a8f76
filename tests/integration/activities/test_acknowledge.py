"""prepare, acknowledge and conclude."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from ackbridge.contracts.calls import CallRequest, Stage
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.notices import CALLER_KINDS, DEFAULT_NOTICES
from ackbridge.contracts.plan import Plan, PollPlan, ReconcilePlan, ResponseMode
from ackbridge.contracts.steps import (
    AcknowledgementKind,
    AcknowledgeStep,
    ConcludeStep,
    PrepareStep,
)
from ackbridge.ledger.ledger import Ledger
from activities.acknowledge import Acknowledge
from activities.conclude import Conclude
from activities.prepare import Prepare
from activities.send import Send

from .world import NOW, TOKEN, World, attempt, beats, delay, failed, trouble

FAILED = AcknowledgementKind.FAILED

ATTEMPTS = (
    (1, timedelta(0)),
    (2, timedelta(hours=1)),
    (3, timedelta(hours=1, seconds=59)),
    (4, timedelta(hours=1, seconds=60)),
)
"""When the attempts of an acknowledgement start."""


async def plan(of: World, operation: str, **more: Any) -> Plan:
    """The plan of a call."""
    step = PrepareStep(request=of.request(operation, **more), run_chain="chain-1")
    prepared = await attempt().run(Prepare(of.deps, Send(of.deps)).prepare, step)
    assert prepared.plan is not None
    return prepared.plan


async def unacknowledged(of: World, operation: str = "order", **fields: Any) -> ApplicationError:
    """The failure of an acknowledgement."""
    step = AcknowledgeStep(
        request=of.request(operation), cycle=1, kind=FAILED, reason="silence", **fields
    )
    return await failed(attempt().run(Acknowledge(of.deps).acknowledge, step))


async def owed(of: World) -> list[str | None]:
    """The reasons of pending acknowledgements."""
    return [one.reason for one in await of.ledger.calls.owed("acme")]


async def test_plan_of_a_polled_operation(world: World) -> None:
    """The plan has the polling interval, the timeout of one request, and what is indexed."""
    planned = await plan(world, "track")

    assert (planned.mode, planned.ask_status) == (ResponseMode.POLL, True)
    expected = PollPlan(every=timedelta(seconds=10), timeout=timedelta(seconds=2))
    assert expected == planned.poll
    assert planned.indexed
    assert (await plan(world, "order", key="k-2")).poll is None


async def test_notices_are_rendered_from_the_call(world: World) -> None:
    """A text that cannot be rendered is replaced by the built-in one."""
    planned = await plan(
        world, "nowhere", payload={"name": "van", "tags": ["a"]}, metadata={"who": "Ann"}
    )

    notice = planned.notices["failed"]
    assert (notice.title, notice.message) == ("No van", "Ask Ann about k-1.")
    assert planned.notices["delayed"] == DEFAULT_NOTICES["delayed"]
    assert set(planned.notices) == set(CALLER_KINDS)


async def test_plan_of_an_operation_without_a_key(world: World) -> None:
    """It is never sent locally, and not repeated; where the file is silent, it parks."""
    planned = await plan(world, "wire", payload={"amount": 12.50})

    assert (planned.repeatable, planned.send.local) == (False, False)
    assert planned.park == ("unknown",)
    assert (planned.amount, planned.key_retention, planned.reconcile) == ("12.5", None, None)


async def test_plan_of_an_operation_that_is_reconciled(world: World) -> None:
    """What decides about an end whose effect is unknown."""
    planned = await plan(world, "ledger")

    assert planned.repeatable is True
    assert planned.reconcile == ReconcilePlan(every=timedelta(minutes=10), within=timedelta(days=2))
    assert (planned.park, planned.undoes) == (("no_response", "unknown"), False)
    assert planned.key_retention == timedelta(hours=24)
    assert planned.amount is None


async def prepare_error(of: World, **more: Any) -> ApplicationError:
    """Why a call cannot be prepared."""
    request = CallRequest(**{"provider": "acme", "operation": "order", "key": "k-1", **more})
    step = PrepareStep(request=request, run_chain="chain-1", sends=True)
    return await failed(attempt(9).run(Prepare(of.deps, Send(of.deps)).prepare, step))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"provider": "acne"}, "unknown provider 'acne'"),
        ({"operation": "odor"}, "acme: unknown operation 'odor'"),
        ({"reply_to": "shop"}, "reply_to: unknown subscriber 'shop'"),
    ],
)
async def test_what_a_worker_lacks_another_may_have(
    world: World, more: dict[str, Any], reason: str
) -> None:
    """The failure names it and is retryable, within 10 s; the key is not claimed."""
    error = await prepare_error(world, **more)

    assert (error.type, error.non_retryable) == ("Missing", False)
    assert error.message.startswith(reason)
    assert 5 <= delay(error) <= 10
    assert await world.ledger.calls.get("acme.order.k-1") is None


async def test_missing_secret_is_found_before_the_claim(world: World) -> None:
    """It has to resolve before a key is used."""
    del world.environ["ACME_TOKEN"]

    error = await prepare_error(world)

    assert (error.type, error.message) == ("Missing", "env:ACME_TOKEN: is not set")
    assert trouble(error).reached is False
    assert await world.ledger.calls.get("acme.order.k-1") is None
    assert world.script.asked == []


async def test_missing_secret_of_a_claimed_call_says_that_it_may_have_been_sent(
    world: World,
) -> None:
    """Without an answer to the claim, nobody knows what the one who has claimed it has done."""
    await plan(world, "order")
    del world.environ["ACME_TOKEN"]

    error = await prepare_error(world)

    assert (error.type, error.non_retryable, trouble(error).reached) == ("Missing", False, True)


async def test_request_is_bounded_as_a_whole(world: World) -> None:
    """The error names the field that is largest."""
    error = await prepare_error(world, metadata={"note": "x" * 600_000})

    assert (error.type, error.non_retryable) == ("InvalidRequest", True)
    assert error.message.startswith("metadata: 6")


async def test_expired_request_is_claimed_and_not_sent(world: World) -> None:
    """The call records the outcome, so that its key has one."""
    error = await prepare_error(world, expires_at=NOW)

    assert (error.type, error.non_retryable) == ("Expired", True)
    assert await world.ledger.calls.get("acme.order.k-1") is not None
    assert world.script.asked == []


async def test_repeated_prepare_of_an_expired_request_has_a_plan(world: World) -> None:
    """It may have been sent before it expired: the call decides."""
    await plan(world, "order")

    planned = await plan(world, "order", expires_at=NOW)

    assert planned.mode is ResponseMode.CALLBACK


async def test_acknowledgement_without_its_reference_is_final(world: World) -> None:
    """The acknowledgement stays pending, and the failure is not an invalid request."""
    error = await unacknowledged(world)

    assert (error.type, error.non_retryable) == ("NotAddressed", True)
    assert "it needs the provider's reference, and none is known" in error.message
    assert [error.message] == await owed(world)
    assert world.script.asked == []


async def test_acknowledgement_that_cannot_be_rendered_is_retryable(world: World) -> None:
    """It stays pending until the integration file is corrected."""
    error = await unacknowledged(world, "nowhere")

    assert (error.type, error.non_retryable) == ("InvalidRequest", False)
    assert "payload.no has no value" in error.message
    assert 0.25 <= delay(error) <= 0.5
    assert [error.message] == await owed(world)


async def test_refused_acknowledgement_is_retryable(world: World) -> None:
    """Each refusal is retried after its Retry-After, and reported without secrets."""
    world.script.says({"message": f"{TOKEN} may not"}, 403)
    world.script.says({}, 429, retry_after="30")

    refused = await unacknowledged(world, reference="r-1")
    throttled = await unacknowledged(world, reference="r-1")

    assert (refused.type, refused.non_retryable) == ("AcknowledgementRefused", False)
    assert refused.message == "the provider refused with 403: *** may not"
    assert trouble(refused).reached is True
    assert 30 <= delay(throttled) <= 33
    assert await owed(world) == ["the provider answered 429"]


async def test_acknowledgement_refused_for_a_minute_is_final(world: World) -> None:
    """Counted from the first refusal, by the engine's clock; silence before it does not count."""
    world.script.says({}, 503)
    for _ in range(3):
        world.script.says({"detail": "it is void"}, 409)
    environments = [attempt(number, started_time=NOW + at) for number, at in ATTEMPTS]
    seen = [beats(environment) for environment in environments]
    step = AcknowledgeStep(request=world.request(), cycle=1, kind=FAILED, reference="r-1")
    errors = []
    for number, environment in enumerate(environments):
        details = [one.model_dump(mode="json") for before in seen[:number] for one in before]
        environment.info = replace(environment.info, heartbeat_details=details[-1:])
        errors.append(await failed(environment.run(Acknowledge(world.deps).acknowledge, step)))

    assert [(error.type, error.non_retryable) for error in errors] == [
        ("NotAccepted", False),
        ("AcknowledgementRefused", False),
        ("AcknowledgementRefused", False),
        ("AcknowledgementRefused", True),
    ]
    assert errors[-1].message == "the provider refused with 409: it is void"
    assert await owed(world) == [errors[-1].message]


@pytest.mark.parametrize("status", [408, 425, 429, 500])
async def test_acknowledgement_is_not_refused_by_a_busy_provider(world: World, status: int) -> None:
    """However long it takes."""
    world.script.says({}, status)
    old = {"at": (NOW - timedelta(hours=9)).isoformat()}
    environment = attempt(9, heartbeat_details=[old])
    step = AcknowledgeStep(request=world.request(), cycle=1, kind=FAILED, reference="r-1")

    error = await failed(environment.run(Acknowledge(world.deps).acknowledge, step))

    assert (error.type, error.non_retryable) == ("NotAccepted", False)


@pytest.mark.parametrize("status", [409, 503])
async def test_file_can_accept_other_answers(world: World, status: int) -> None:
    """`acknowledge.accept` holds for an answer of any status."""
    world.script.says({"state": "acknowledged before"}, status)
    step = AcknowledgeStep(request=world.request("book"), cycle=1, kind=FAILED, reference="b-1")

    done = await attempt().run(Acknowledge(world.deps).acknowledge, step)

    assert done.acknowledged_at == NOW
    assert await owed(world) == []


async def test_long_answer_accepts_an_acknowledgement(world: World) -> None:
    """Its status counts, and not its body."""
    world.script.says({"filler": "x" * 4_200_000})
    step = AcknowledgeStep(request=world.request(), cycle=1, kind=FAILED, reference="r-1")

    assert await attempt().run(Acknowledge(world.deps).acknowledge, step)


async def test_accepted_acknowledgement_is_not_pending(world: World) -> None:
    """It is sent once, under an idempotency key of its own."""
    world.script.says({}, 503)
    await unacknowledged(world, reference="r-1")
    step = AcknowledgeStep(request=world.request(), cycle=1, kind=FAILED, reference="r-1")

    done = await attempt().run(Acknowledge(world.deps).acknowledge, step)

    assert done.acknowledged_at == NOW
    assert await owed(world) == []
    assert world.script.headers[-1]["idempotency-key"] == "acme.order.k-1:1:failed"


async def test_unexpected_error_leaves_the_acknowledgement_pending(world: World) -> None:
    """Operators see it as pending whatever kept it from being sent."""
    broken = Acknowledge(replace(world.deps, auths={}))
    step = AcknowledgeStep(request=world.request(), cycle=1, kind=FAILED, reference="r-1")

    try:
        await attempt().run(broken.acknowledge, step)
    except KeyError:
        assert await owed(world) == ["unexpected error: KeyError"]
    else:
        raise AssertionError("it was acknowledged")


async def test_unavailable_ledger_is_retried_with_backoff(world: World, tmp_path: Path) -> None:
    """The delay grows with the attempts."""
    gone = Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db", lambda: NOW)
    step = ConcludeStep(request=world.request(), stage=Stage.PARKED)

    error = await failed(attempt(3).run(Conclude(replace(world.deps, ledger=gone)).conclude, step))

    await gone.close()
    assert (error.type, error.non_retryable) == ("Unavailable", False)
    assert 1 <= delay(error) <= 2


async def test_conclude_stores_held_messages(world: World) -> None:
    """They are in the ledger as a whole."""
    late = ProviderMessage(kind=MessageKind.RESPONSE, event_key="e-1", data={"n": 1})
    step = ConcludeStep(request=world.request(), stage=Stage.FAILED, held=(late,))

    await attempt().run(Conclude(world.deps).conclude, step)

    (held,) = await world.ledger.inbox.held("acme")
    assert late == held.entry.message
