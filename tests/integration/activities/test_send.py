"""send: one attempt, and what it reports."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import Response

from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.model import LimitSpec
from ackbridge.contracts.steps import SendStep, Sent
from ackbridge.ledger.leases import LeaseRequest
from ackbridge.ledger.ledger import Ledger
from activities.send import Send

from .world import NOW, Script, World, attempt, beats, delay, failed, trouble, world

SOON = timedelta(seconds=1)


def step(of: World, operation: str = "order", **fields: Any) -> SendStep:
    """The first cycle of a call."""
    more = {name: fields.pop(name) for name in ("expires_at",) if name in fields}
    return SendStep(request=of.request(operation, **more), cycle=1, **fields)


async def test_receipt_sends_no_heartbeat(world: World) -> None:
    """Heartbeats cost requests to the engine."""
    environment = attempt()
    seen = beats(environment)

    sent = await environment.run(Send(world.deps).send, step(world))

    waits = {"deadline": sent.deadline, "deadline_reason": sent.deadline_reason}
    assert sent.deadline == timedelta(seconds=30)
    assert Sent(sent_at=NOW, receipt_at=NOW, reference="r-1", attempt=1, **waits) == sent
    assert seen == []
    assert await world.ledger.calls.find_by_reference("acme", "r-1") == world.request().call_id


@pytest.mark.parametrize(
    ("status", "headers", "least", "most", "reached"),
    [
        (500, {}, 0.25, 0.5, True),
        (503, {"retry_after": "7"}, 7, 7.7, True),
        (429, {"retry_after": "7"}, 7, 7.7, False),
        (408, {"retry_after": "7"}, 7, 7.7, True),
        (429, {"retry_after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30, 33, False),
        (425, {}, 0.25, 0.5, True),
        (503, {"retry_after": "whenever"}, 0.25, 0.5, True),
    ],
)
async def test_retryable_status(
    world: World, status: int, headers: dict[str, str], least: float, most: float, reached: bool
) -> None:
    """After Retry-After by our clock, or after the initial interval."""
    world.script.says({}, status, **headers)

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert error.message == f"the provider answered {status}"
    assert least <= delay(error) <= most
    assert (trouble(error).attempt, trouble(error).reached) == (1, reached)


@pytest.mark.parametrize(
    ("number", "least", "most"), [(1, 0.25, 0.5), (20, 5, 10), (26, 20, 22), (99, 300, 330)]
)
async def test_what_a_worker_lacks_is_tried_for_more_rarely(
    world: World, number: int, least: float, most: float
) -> None:
    """The engine counts the tries; each takes a turn of the provider's queue, and sends nothing."""
    del world.environ["ACME_TOKEN"]

    error = await failed(attempt(number).run(Send(world.deps).send, step(world, missing=True)))

    assert (error.type, trouble(error).reached) == ("Missing", False)
    assert least <= delay(error) <= most
    assert world.script.asked == []


async def test_the_attempt_after_it_is_the_first_one(world: World) -> None:
    """What the engine has repeated has sent nothing: a refusal is final."""
    world.script.says({}, 422)

    error = await failed(attempt(9).run(Send(world.deps).send, step(world, missing=True)))

    assert (error.type, error.non_retryable) == ("Refused", True)
    assert (trouble(error).attempt, trouble(error).reached) == (1, False)


async def test_pause_that_one_request_was_asked_for_is_kept_by_others(world: World) -> None:
    """Nothing is sent, no attempt is counted, and the provider's quota is known to others."""
    world.script.says({}, 429, retry_after="7")
    await failed(attempt().run(Send(world.deps).send, step(world)))

    other = step(world).model_copy(update={"request": world.request(key="k-2")})
    error = await failed(attempt().run(Send(world.deps).send, other))

    assert (error.type, error.non_retryable) == ("HeldBack", False)
    assert 7 <= delay(error) <= 7.7
    assert len(world.script.asked) == 1
    (report,) = world.deps.counters.quotas.take_reports(NOW)
    assert (report.seconds[0].throttled, report.paused_until) == (1, NOW + timedelta(seconds=7))


async def test_quota_of_a_tenant_is_counted_apart(world: World) -> None:
    """Where the file says that quotas are tenants', one tenant's pause holds back no other."""
    acme = world.deps.catalog.integration("acme")
    order = acme.operations["order"].model_copy(update={"fairness": Expression("metadata.tenant")})
    limits = LimitSpec(quota_of="tenant")
    update = {"limits": limits, "operations": {**acme.operations, "order": order}}
    catalog = replace(world.deps.catalog, integrations={"acme": acme.model_copy(update=update)})
    send = Send(replace(world.deps, catalog=catalog)).send
    world.script.says({}, 429, retry_after="7")
    of_a, of_b = (
        step(world).model_copy(
            update={"request": world.request(key=tenant, metadata={"tenant": tenant})}
        )
        for tenant in ("a", "b")
    )
    await failed(attempt().run(send, of_a))
    await attempt().run(send, of_b)
    assert (await failed(attempt().run(send, of_a))).type == "HeldBack"
    (report,) = world.deps.counters.quotas.take_reports(NOW)
    assert report.tenant == "a"


async def test_delay_grows_with_the_attempts_of_the_call(world: World) -> None:
    """Each attempt is an activity of its own, and the call counts them."""
    world.script.says({}, 500)

    error = await failed(attempt().run(Send(world.deps).send, step(world, tried=3)))

    assert 2 <= delay(error) <= 4


async def test_failed_connection_has_not_reached(deserted: World) -> None:
    """A connection that was never made proves that nothing arrived."""
    error = await failed(attempt().run(Send(deserted.deps).send, step(deserted)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", False)
    assert error.message == "could not connect: refused, or no such host"


@contextmanager
def black_hole() -> Iterator[str]:
    """A URL whose host drops every SYN, as a firewall does: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in waiting:
            one.close()


async def test_black_hole_has_not_reached(tmp_path: Path) -> None:
    """Connecting takes no longer than the whole attempt may, and proves that nothing arrived."""
    with black_hole() as url:
        async with world(tmp_path, Script(), url) as lost:
            error = await failed(attempt().run(Send(lost.deps).send, step(lost)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", False)
    assert error.message == "could not connect in time"


async def test_silence_has_reached(world: World) -> None:
    """The provider may be working on it."""
    world.script.replies.append(2.2)

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", True)
    assert error.message.startswith("no answer")


async def test_refusal_of_the_only_attempt_is_final(world: World) -> None:
    """Nothing else can have arrived."""
    world.script.says({"error": {"message": "no such thing"}}, 404)

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == "the provider refused with 404: no such thing"
    assert trouble(error).reached is False


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_refusal_after_an_ambiguous_attempt_is_not_final(world: World, status: int) -> None:
    """It answers this attempt, and says nothing about the one before."""
    world.script.says({"error": {"message": "key in use"}}, status)

    error = await failed(attempt().run(Send(world.deps).send, step(world, reached=True)))

    assert (error.type, error.non_retryable) == ("Refused", False)
    assert error.message == f"the provider refused with {status}: key in use"
    assert trouble(error).reached is True
    assert 0.25 <= delay(error) <= 0.5


async def test_repeated_activity_may_have_reached(world: World) -> None:
    """The engine repeats one whose worker has died, at whatever point."""
    world.script.says({}, 404)

    error = await failed(attempt(2).run(Send(world.deps).send, step(world)))

    assert (error.type, error.non_retryable) == ("Refused", False)
    assert trouble(error).reached is True


async def test_later_failed_connection_keeps_reached(deserted: World) -> None:
    """Once a request may have arrived, no error of a later attempt takes that back."""
    error = await failed(attempt().run(Send(deserted.deps).send, step(deserted, reached=True)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", True)


async def test_later_error_of_ours_keeps_reached(world: World) -> None:
    """Though nothing was sent this time."""
    del world.environ["ACME_TOKEN"]

    error = await failed(attempt().run(Send(world.deps).send, step(world, reached=True)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", True)


async def test_receipt_says_whether_an_earlier_attempt_may_have_arrived(world: World) -> None:
    """Then there may be two of them."""
    sent = await attempt().run(Send(world.deps).send, step(world, reached=True))

    assert (sent.again, sent.reference) == (True, "r-1")


@pytest.mark.parametrize("reached", [False, True])
async def test_expired_request_is_not_sent(world: World, reached: bool) -> None:
    """It is final, and says whether an earlier attempt may have arrived."""
    late = step(world, expires_at=NOW, reached=reached)

    error = await failed(attempt().run(Send(world.deps).send, late))

    assert (error.type, error.non_retryable) == ("Expired", True)
    assert trouble(error).reached is reached
    assert world.script.asked == []


async def test_request_is_sent_until_it_expires(world: World) -> None:
    """By our clock and by the engine's."""
    await attempt().run(Send(world.deps).send, step(world, expires_at=NOW + SOON))
    late = step(world, expires_at=NOW + SOON)

    error = await failed(attempt(started_time=NOW + SOON).run(Send(world.deps).send, late))

    assert error.type == "Expired"
    assert len(world.script.asked) == 1


async def test_request_without_a_key_is_sent_without_one(world: World) -> None:
    """What cannot be read of its answer is final: it must not be sent again."""
    world.script.says({"id": "w-1"})
    world.script.replies.append(Response(b'{"id": "w-1', media_type="application/json"))

    sent = await attempt().run(Send(world.deps).send, step(world, "wire"))
    error = await failed(attempt().run(Send(world.deps).send, step(world, "wire")))

    assert sent.reference == "w-1"
    assert "idempotency-key" not in world.script.headers[0]
    assert (error.type, error.non_retryable) == ("Unreadable", True)


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("Stra\u00dfe".encode("latin-1"), "text/plain; charset=iso-8859-1", "Stra\u00dfe"),
        (b"\xef\xbb\xbf[1]", "application/json", [1]),
        ('["\u00e9"]'.encode("utf-16"), "application/json", ["\u00e9"]),
        (b"", "text/plain", None),
        (b" \r\n", "text/plain", None),
    ],
)
async def test_answer_is_decoded_by_its_charset(
    world: World, content: bytes, content_type: str, text: Any
) -> None:
    """The declared one, or what JSON may be written in; blanks are no body."""
    world.script.replies.append(Response(content, headers={"content-type": content_type}))

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    assert sent.messages[0].data == text


@pytest.mark.parametrize("content", [b"%PDF-1.7\n\xe2\xe3\xcf\xd3\x00\x01", b"\x89PNG\r\n\x00\x0d"])
async def test_binary_answer_keeps_its_bytes(world: World, content: bytes) -> None:
    """In base64, with its content type."""
    world.script.replies.append(Response(content, media_type="application/pdf"))

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    binary = sent.messages[0].data["$binary"]
    assert binary["content_type"] == "application/pdf"
    assert base64.b64decode(binary["base64"]) == content


async def test_lease_is_taken_for_an_attempt_and_waiting_is_none(world: World) -> None:
    """What is held back comes back later, is not counted, and ends when it has waited enough."""
    limits = LimitSpec(concurrent_total=1)
    acme = world.deps.catalog.integration("acme").model_copy(update={"limits": limits})
    catalog = replace(world.deps.catalog, integrations={"acme": acme})
    send = Send(replace(world.deps, catalog=catalog)).send
    within = timedelta(minutes=1)
    other = LeaseRequest("acme", "other", "acme.order.other", "", 1, None, NOW, within)
    await world.ledger.leases.acquire(other)

    waiting = step(world, queue_within=within)
    error = await failed(attempt(7).run(send, waiting))
    assert (error.type, error.non_retryable) == ("HeldBack", False)
    assert error.message == (
        "1 of 1 of the provider's requests are in flight, 0 wait before this one"
    )
    assert not trouble(error).reached
    began = NOW - timedelta(minutes=2)
    error = await failed(attempt(9, scheduled_time=began).run(send, waiting))
    assert (error.type, error.non_retryable) == ("HeldBack", True)
    assert world.script.asked == []

    await world.ledger.leases.release("acme", "other")
    sent = await attempt(10).run(send, waiting)
    assert (sent.attempt, sent.again) == (1, False)
    world.script.says({}, 500)
    error = await failed(attempt(11).run(send, waiting))
    assert (trouble(error).attempt, delay(error) < 1) == (1, True)
    assert await world.ledger.leases.counts("acme") == {}


async def test_nothing_is_sent_without_the_ledger_where_leases_are_needed(world: World) -> None:
    """It cannot be known how many are in flight."""
    limits = LimitSpec(concurrent_total=1)
    acme = world.deps.catalog.integration("acme").model_copy(update={"limits": limits})
    catalog = replace(world.deps.catalog, integrations={"acme": acme})
    ledger = Ledger.open("sqlite:////nowhere/ledger.db", lambda: NOW)
    send = Send(replace(world.deps, catalog=catalog, ledger=ledger)).send
    error = await failed(attempt().run(send, step(world, queue_within=timedelta(minutes=1))))
    assert (error.type, error.non_retryable) == ("HeldBack", False)
    assert world.script.asked == []
    await ledger.close()
