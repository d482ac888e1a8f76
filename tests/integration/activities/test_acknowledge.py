"""prepare, acknowledge and conclude."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.exceptions import ApplicationError

from ackbridge.contracts.calls import Stage
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.notices import CALLER_KINDS, DEFAULT_NOTICES
from ackbridge.contracts.plan import Plan, PollPlan, ResponseMode
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

from .world import NOW, TOKEN, World, attempt, delay, failed, trouble

FAILED = AcknowledgementKind.FAILED


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

    assert (refused.type, refused.non_retryable) == ("NotAccepted", False)
    assert refused.message == "the provider refused with 403: *** may not"
    assert trouble(refused).reached is True
    assert 30 <= delay(throttled) <= 33
    assert await owed(world) == ["the provider answered 429"]


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
        assert await owed(world) == ["KeyError"]
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
