"""deliver and bury: one attempt to deliver a notice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fastapi import Response
from standardwebhooks import Webhook
from temporalio.exceptions import ApplicationError

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.subscribers import Subscriber
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallOutcome, NoticeStatus, OutcomeStatus, Timings
from ackbridge.contracts.deliveries import (
    DeadLetterStep,
    Delivered,
    Delivery,
    NoticeBody,
    NoticeData,
)
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import PrepareStep
from ackbridge.ledger.notices import NoticeRow, NoticeState
from ackbridge.security.secrets import Secrets
from activities.deliver import Deliver
from activities.prepare import Prepare
from activities.send import Send

from .world import NOW, World, attempt, delay, failed

SECRET = "whsec_c3Vic2NyaWJlcnMga2VlcCB0aGVpciBvd24gc2VjcmV0cw=="
CALL = "acme.order.k-1"


@pytest_asyncio.fixture
async def told(world: World, tmp_path: Path) -> AsyncIterator[World]:
    """Dependencies with the provider's server as a subscriber."""
    url = str(world.deps.catalog.integrations["acme"].base_url)
    made = {
        "subscriber": "shop",
        "url": f"{url}/notices",
        "secrets": ["env:SHOP"],
        "timeout": "1s",
        "response": True,
    }
    shop = Subscriber.model_validate(made)
    poor = Subscriber.model_validate({**made, "subscriber": "poor", "secrets": ["env:NOWHERE"]})
    catalog = Catalog(world.deps.catalog.integrations, {"shop": shop, "poor": poor})
    secrets = Secrets({**world.environ, "SHOP": SECRET}, tmp_path)
    deps = replace(world.deps, catalog=catalog, secrets=secrets)
    yield replace(world, deps=deps)


def delivery(subscriber: str = "shop", status: NoticeStatus = NoticeStatus.FAILED) -> Delivery:
    """A notice about a call."""
    data = NoticeData(
        call_id=CALL, provider="acme", operation="order", key="k-1", sequence=1, status=status
    )
    event = f"{CALL}:1.{status}"
    body = NoticeBody(id=event, type=f"call.{status}", timestamp=NOW, data=data)
    return Delivery(subscriber=subscriber, body=body)


async def deliver(told: World, what: Delivery, number: int = 1) -> Delivered:
    """One attempt."""
    delivered = await attempt(number).run(Deliver(told.deps).deliver, what)
    assert isinstance(delivered, Delivered)
    return delivered


async def failed_delivery(
    told: World, what: Delivery | None = None, number: int = 1
) -> ApplicationError:
    """One attempt, which fails."""
    return await failed(deliver(told, what or delivery(), number))


async def row(told: World) -> NoticeRow:
    """The one notice in the ledger."""
    (found,) = await told.ledger.notices.find()
    return found


async def test_accepted(told: World) -> None:
    """Any 2xx is accepted, whatever its body."""
    told.script.replies.append(Response("x" * 100_000, status_code=202))
    assert (await deliver(told, delivery())).delivered_at == NOW
    assert (await row(told)).state is NoticeState.DELIVERED
    (headers,) = told.script.headers
    assert headers["webhook-id"] == f"{CALL}:1.failed"
    assert headers["content-type"] == "application/json"


async def test_delivered_notice_is_not_sent_again(told: World) -> None:
    """Even if the worker died before it could report the delivery."""
    await deliver(told, delivery())
    await deliver(told, delivery().model_copy(update={"again": True}), number=2)
    assert len(told.script.asked) == 1
    await deliver(told, delivery().model_copy(update={"again": True}))
    assert len(told.script.asked) == 2


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (500, "the subscriber answered 500"),
        (404, "the subscriber answered 404"),
        (302, "the subscriber answered 302: redirects are not followed"),
    ],
)
async def test_not_accepted(told: World, status: int, why: str) -> None:
    """It is retried, and the subscriber's text is not repeated."""
    told.script.says({"trace": "secret stack"}, status, location="http://169.254.169.254/")
    error = await failed_delivery(told)
    assert (error.type, error.non_retryable, error.message) == ("NotAccepted", False, why)
    assert len(told.script.asked) == 1
    kept = await row(told)
    assert (kept.state, kept.reason, kept.attempts) == (NoticeState.PENDING, why, 1)


async def test_gone_is_final(told: World) -> None:
    """410 ends the notice."""
    told.script.says({}, 410)
    error = await failed_delivery(told)
    assert error.non_retryable
    assert "410" in error.message


async def test_timeout(told: World) -> None:
    """A subscriber that hangs is given its timeout."""
    told.script.replies.append(5.0)
    error = await failed_delivery(told)
    assert (error.type, error.message) == ("NotAccepted", "no answer in time")


async def test_backoff(told: World) -> None:
    """From seconds to hours, or as the subscriber asks for."""
    delays = []
    for number in (1, 4, 12):
        told.script.says({}, 500)
        delays.append(delay(await failed_delivery(told, number=number)))
    assert 2.5 <= delays[0] <= 5
    assert 160 <= delays[1] <= 320
    assert 3 * 3600 <= delays[2] <= 6 * 3600
    told.script.says({}, 503, retry_after="120")
    assert 120 <= delay(await failed_delivery(told)) <= 132


async def test_configuration_errors_are_retryable(told: World) -> None:
    """A missing secret or subscriber is named, and retried until it exists."""
    for subscriber, why in (("poor", "env:NOWHERE: is not set"), ("ghost", "'ghost'")):
        error = await failed_delivery(told, delivery(subscriber))
        assert (error.type, error.non_retryable) == ("Missing", False)
        assert why in error.message
    assert told.script.asked == []
    assert "ghost" in str((await row(told)).reason)


async def test_completed_notice_has_the_response(told: World) -> None:
    """Read from the ledger, and not stored with the notice."""
    request = told.request()
    await told.ledger.calls.claim(request, "chain-1")
    message = ProviderMessage(kind=MessageKind.RESPONSE, event_key="e-1", data={"total": 9})
    outcome = CallOutcome(
        call_id=CALL, status=OutcomeStatus.COMPLETED, timings=Timings(started_at=NOW)
    )
    await told.ledger.calls.record_response(CALL, 1, message, outcome)
    deps = replace(told.deps, clock=utc_now)
    bodies: list[bytes] = []
    deps.http.event_hooks["request"].append(_kept(bodies))
    await attempt().run(Deliver(deps).deliver, delivery(status=NoticeStatus.COMPLETED))
    sent = Webhook(SECRET).verify(bodies[0], told.script.headers[0])
    assert sent["data"]["response"] == {"total": 9}
    assert json.loads(bodies[0])["id"] == f"{CALL}:1.completed"
    assert (await row(told)).body.call.response is None


def _kept(bodies: list[bytes]) -> Callable[[httpx.Request], Awaitable[None]]:
    async def keep(request: httpx.Request) -> None:
        bodies.append(request.content)

    return keep


async def test_dead_letter(told: World) -> None:
    """The ledger has the whole notice and the reason."""
    await attempt().run(Deliver(told.deps).bury, DeadLetterStep(delivery=delivery(), reason="gone"))
    kept = await row(told)
    assert (kept.state, kept.reason, kept.body) == (NoticeState.DEAD, "gone", delivery().body)


async def test_reply_to_is_planned(told: World) -> None:
    """The plan has the subscriber and the texts of success; other calls have neither."""
    prepare = Prepare(told.deps, Send(told.deps)).prepare
    request = told.request(key="k-2", reply_to="shop", language="es-MX")
    plan = (await attempt().run(prepare, PrepareStep(request=request, run_chain="c"))).plan
    assert plan is not None
    assert plan.reply is not None
    assert (plan.reply.subscriber, len(plan.reply.events)) == ("shop", 4)
    assert plan.notices["completed_late"].title == "Hecho, más tarde de lo habitual"
    error = await failed(
        attempt().run(
            prepare,
            PrepareStep(request=told.request(key="k-3", reply_to="ghost"), run_chain="c"),
        )
    )
    assert (error.type, error.non_retryable) == ("Missing", False)
    assert error.message.startswith("reply_to: unknown subscriber 'ghost'; ")
