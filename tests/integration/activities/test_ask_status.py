"""ask_status and poll: the provider's answers to status requests."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from ackbridge.contracts.messages import BodyRef, MessageKind, MessageSource
from ackbridge.contracts.steps import Asked, AskStep, PollStep
from activities.ask_status import MAX_PAUSING, AskStatus
from activities.support.provider_http import load_data

from .world import NOW, Script, World, attempt, beats, delay, failed, trouble
from .world import world as made

OFTEN = timedelta(milliseconds=20)
UNTIL = "2026-03-01T13:00:00+00:00"


def question(of: World, reference: str | None = "r-1", cycle: int = 1) -> AskStep:
    """A status request about an order."""
    return AskStep(request=of.request(), cycle=cycle, reference=reference)


def poll(of: World, every: timedelta = OFTEN, **fields: Any) -> PollStep:
    """Status requests about a tracked operation."""
    fields = {"cycle": 1, "reference": "r-1", "every": every, **fields}
    return PollStep(request=of.request("track"), **fields)


async def ask(of: World) -> Asked:
    """Ask once about an order."""
    return await attempt().run(AskStatus(of.deps).ask_status, question(of))


async def test_answer_is_read_as_a_message(world: World) -> None:
    """By the rules of `status`, with the cycle's reference unless the answer has one."""
    world.script.says({"state": "done", "total": 5})
    world.script.says({"state": "failed", "id": "r-2", "why": "key sk_live_1234567890"})

    done, refused = await ask(world), await ask(world)

    assert done.message is not None
    assert refused.message is not None
    assert (done.message.kind, done.message.source) == (MessageKind.RESPONSE, MessageSource.STATUS)
    assert done.message.event_key == "status:acme.order.k-1:1"
    assert done.message.data == {"state": "done", "total": 5}
    assert (done.message.reference, refused.message.reference) == ("r-1", "r-2")
    assert (refused.message.kind, refused.message.reason) == (MessageKind.FAILURE, "key ***")
    assert world.script.asked == ["GET /orders/r-1"] * 2


@pytest.mark.parametrize(("body", "status"), [({"state": "open"}, 200), ({"why": "none"}, 404)])
async def test_answer_without_a_result_is_no_message(world: World, body: Any, status: int) -> None:
    """Neither an error nor an answer without a result is a message."""
    world.script.says(body, status)

    assert Asked() == await ask(world)


async def test_an_answer_says_when_to_ask_again(world: World) -> None:
    """At most an hour later; jitter adds up to a tenth."""
    for header, least in (("70", 70), ("999999", 3600)):
        world.script.says({"state": "open"}, 202, retry_after=header)
        asked = await ask(world)
        assert asked.message is None
        assert asked.retry_after is not None
        assert least <= asked.retry_after.total_seconds() <= least * 1.1


async def test_large_answer_is_passed_by_reference(world: World) -> None:
    """As the answer to the request itself."""
    body = {"state": "done", "more": "x" * 300_000}
    world.script.says(body)

    asked = await ask(world)

    assert asked.message is not None
    assert await load_data(world.deps, asked.message.data) == body
    assert BodyRef.of_data(asked.message.data) is not None


async def test_failed_status_request_is_retryable(world: World) -> None:
    """After the provider's Retry-After."""
    world.script.says({}, 503, retry_after="9")

    error = await failed(ask(world))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert 9 <= delay(error) <= 9.9


async def test_extension_does_not_suppress_the_response(world: World) -> None:
    """Each extension and the response have event keys of their own."""
    for body in (
        {"state": "wait", "until": UNTIL},
        {"state": "wait", "until": UNTIL},
        {"state": "wait", "until": "2026-03-01T14:00:00Z"},
        {"state": "wait", "by": 60},
        {"state": "wait", "by": 90},
        {"state": "done"},
    ):
        world.script.says(body)

    keys = [asked.message.event_key for _ in range(6) if (asked := await ask(world)).message]

    assert keys[0] == keys[1]
    assert len(set(keys)) == 5
    assert all(key.startswith("status:acme.order.k-1:1") for key in keys)


@pytest.mark.parametrize(("later", "same"), [(10, True), (40, False)])
async def test_relative_extension_is_repeated(
    served: tuple[Script, str], tmp_path: Path, later: int, same: bool
) -> None:
    """The same span is a new extension once half of it is over."""
    script, url = served
    now = [NOW]

    def clock() -> datetime:
        return now[0]

    async with made(tmp_path, script, url, clock) as world:
        script.says({"state": "wait", "by": 60})
        script.says({"state": "wait", "by": 60})
        first = await ask(world)
        now[0] += timedelta(seconds=later)
        second = await ask(world)

    assert first.message is not None
    assert second.message is not None
    assert same is (first.message.event_key == second.message.event_key)


async def test_polling_continues_until_there_is_an_answer(world: World) -> None:
    """Errors do not end it, and heartbeats report them."""
    world.script.says({}, 404)
    world.script.says({}, 500)
    world.script.says({"state": "open"})
    world.script.says({"state": "done"})
    environment = attempt()
    seen = beats(environment)

    asked = await environment.run(AskStatus(world.deps).poll, poll(world))

    assert asked.message is not None
    assert asked.message.event_key == "status:acme.track.k-1:1"
    assert world.script.asked == ["GET /tracks/r-1"] * 4
    assert seen == [
        "the provider answered 404, without a response yet",
        "the provider answered 500",
        "the provider answered 200, without a response yet",
    ]


async def test_polling_skips_known_answers(world: World) -> None:
    """An extension is returned once, and polling continues after it."""
    world.script.says({"state": "wait", "until": UNTIL})
    first = await attempt().run(AskStatus(world.deps).poll, poll(world))
    assert first.message is not None
    assert first.message.kind is MessageKind.EXTENSION
    world.script.says({"state": "wait", "until": UNTIL})
    world.script.says({"state": "done"})

    answered = (first.message.event_key,)
    asked = await attempt().run(AskStatus(world.deps).poll, poll(world, answered=answered))

    assert asked.message is not None
    assert asked.message.kind is MessageKind.RESPONSE


@pytest.mark.parametrize(
    ("status", "headers", "every", "least"),
    [
        (404, {}, 1, 1),
        (200, {}, 3600, 3600),
        (202, {"retry_after": "70"}, 1, 70),
        (404, {"retry_after": "70"}, 1, 70),
        (503, {}, 90, 90),
        (429, {"retry_after": "120"}, 1, 120),
        (429, {"retry_after": "5"}, 60, 60),
    ],
)
async def test_long_interval_is_a_retry_of_the_activity(
    world: World, status: int, headers: dict[str, str], every: int, least: int
) -> None:
    """One request per attempt, and the delay is never shorter than the interval."""
    world.script.says({}, status, **headers)
    environment = attempt(7)
    seen = beats(environment)

    error = await failed(
        environment.run(AskStatus(world.deps).poll, poll(world, timedelta(seconds=every)))
    )

    assert (error.type, error.non_retryable) == ("NotYet", False)
    assert f"the provider answered {status}" in error.message
    assert least <= delay(error) <= least * 1.1
    assert trouble(error).attempt == 7
    assert seen == []


async def test_poll_never_fails_for_good(deserted: World) -> None:
    """No connection, no reference or no secret: the workflow sets the deadline."""
    hourly = timedelta(hours=1)
    polled = AskStatus(deserted.deps).poll

    unreachable = await failed(attempt().run(polled, poll(deserted, hourly)))
    nameless = await failed(attempt().run(polled, poll(deserted, hourly, reference=None)))
    del deserted.environ["ACME_TOKEN"]
    secretless = await failed(attempt().run(polled, poll(deserted, hourly)))

    errors = (unreachable, nameless, secretless)
    assert [error.type for error in errors] == ["NotYet"] * 3
    assert not any(error.non_retryable for error in errors)
    assert "could not connect" in unreachable.message
    assert "reference has no value" in nameless.message
    assert secretless.message == "env:ACME_TOKEN: is not set"


SHORT = timedelta(milliseconds=900)


async def pausing(
    of: World, status: AskStatus | None = None
) -> tuple[ActivityEnvironment, asyncio.Task[Asked]]:
    """A poll in the middle of an interval that it waits out."""
    environment, paused = attempt(), asyncio.Event()
    environment.on_heartbeat = lambda *_: paused.set()
    polled = (status or AskStatus(of.deps)).poll
    polling = asyncio.create_task(environment.run(polled, poll(of, SHORT)))
    await paused.wait()
    return environment, polling


async def test_short_intervals_take_a_bounded_number_of_slots(world: World) -> None:
    """Polls beyond it leave their pause to the engine, and a slot that is free again is used."""
    status = AskStatus(world.deps)
    paused = [await pausing(world, status) for _ in range(MAX_PAUSING)]

    error = await failed(attempt().run(status.poll, poll(world, SHORT)))

    assert (error.type, error.non_retryable) == ("NotYet", False)
    assert 0.9 <= delay(error) <= 0.99
    environment, polling = paused.pop()
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
    paused.append(await pausing(world, status))
    for environment, polling in paused:
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling


async def test_cancelled_poll_stops_at_once(world: World) -> None:
    """In the middle of an interval."""
    environment, polling = await pausing(world)

    environment.cancel()

    with pytest.raises(asyncio.CancelledError):
        await polling


async def test_worker_shutdown_hands_over_the_poll(world: World) -> None:
    """The attempt ends at once, and the next one comes after the interval."""
    environment, polling = await pausing(world)

    environment.worker_shutdown()

    error = await failed(polling)
    assert (error.type, error.non_retryable) == ("NotYet", False)
    assert SHORT.total_seconds() <= delay(error) <= SHORT.total_seconds() * 1.1
