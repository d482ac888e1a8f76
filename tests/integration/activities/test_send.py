"""send: what each attempt reports to the workflow and to the next attempt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from ackbridge.contracts.steps import SendStep, Sent
from activities.send import AttemptRecord, Send

from .world import (
    NOW,
    Script,
    World,
    attempt,
    beats,
    delay,
    failed,
    trouble,
    world,
)

SOON = timedelta(seconds=1)


def step(of: World, operation: str = "order", **fields: Any) -> SendStep:
    """The first cycle of a call."""
    return SendStep(request=of.request(operation), cycle=1, **fields)


def left(number: int, *, reached: bool, first: datetime = NOW) -> dict[str, Any]:
    """What an attempt reported, as the engine passes it to the next one."""
    kept = AttemptRecord(
        attempt=number, first_started_at=first, reached=reached, reason="no answer"
    )
    return kept.model_dump(mode="json")


async def test_receipt_sends_no_heartbeat(world: World) -> None:
    """Heartbeats cost requests to the engine."""
    environment = attempt()
    seen = beats(environment)

    sent = await environment.run(Send(world.deps).send, step(world))

    assert Sent(sent_at=NOW, receipt_at=NOW, reference="r-1", attempt=1) == sent
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
        (503, {"retry_after": "whenever"}, 0.25, 0.5, True),
    ],
)
async def test_retryable_status(
    world: World, status: int, headers: dict[str, str], least: float, most: float, reached: bool
) -> None:
    """After Retry-After by our clock, or after the initial interval."""
    world.script.says({}, status, **headers)
    environment = attempt()
    seen = beats(environment)

    error = await failed(environment.run(Send(world.deps).send, step(world)))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert error.message == f"the provider answered {status}"
    assert least <= delay(error) <= most
    assert (trouble(error).attempt, trouble(error).reached) == (1, reached)
    reason = f"the provider answered {status}"
    assert [AttemptRecord(attempt=1, first_started_at=NOW, reached=reached, reason=reason)] == seen


async def test_backoff(world: World) -> None:
    """Attempts in the workflow task count as well."""
    world.script.says({}, 500)
    details = [left(2, reached=False)]

    error = await failed(
        attempt(3, heartbeat_details=details).run(Send(world.deps).send, step(world, tried=1))
    )

    assert 2 <= delay(error) <= 4


async def test_failed_connection_has_not_reached(deserted: World) -> None:
    """A connection that was never made proves that nothing arrived."""
    error = await failed(attempt().run(Send(deserted.deps).send, step(deserted)))

    assert (error.type, trouble(error).reached) == ("NoReceipt", False)
    assert error.message == "could not connect: ConnectError"


@pytest.mark.parametrize(
    ("number", "details", "fields", "reached"),
    [
        (1, [], {}, False),
        (1, [], {"tried": 1, "reached": True}, True),
        (2, [left(1, reached=False)], {}, False),
        (2, [left(1, reached=True)], {}, True),
        # The attempt before has left nothing: its process has died, at whatever point.
        (2, [], {}, True),
        (3, [left(1, reached=False)], {}, True),
        (2, ["from another version"], {}, True),
    ],
)
async def test_refusal_says_whether_an_earlier_attempt_reached(
    world: World, number: int, details: list[Any], fields: dict[str, Any], reached: bool
) -> None:
    """The refusal is definitive for this attempt only."""
    world.script.says({"error": {"message": "no such thing"}}, 404)

    error = await failed(
        attempt(number, heartbeat_details=details).run(Send(world.deps).send, step(world, **fields))
    )

    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == "the provider refused with 404: no such thing"
    assert trouble(error).reached is reached


async def test_later_failed_connection_keeps_reached(deserted: World) -> None:
    """Once reached, it stays so for later attempts."""
    environment = attempt(2, heartbeat_details=[left(1, reached=True)])
    seen = beats(environment)

    error = await failed(environment.run(Send(deserted.deps).send, step(deserted)))

    assert trouble(error).reached is True
    assert [kept.reached for kept in seen] == [True]


async def test_within_counts_from_the_first_attempt(world: World) -> None:
    """An hour in the queue does not count."""
    world.script.says({}, 500)
    environment = attempt(scheduled_time=NOW - timedelta(hours=1))

    error = await failed(environment.run(Send(world.deps).send, step(world)))

    assert error.non_retryable is False


@pytest.mark.parametrize(
    ("first", "headers", "final"),
    [
        (NOW - timedelta(seconds=100), {}, False),
        (NOW - timedelta(seconds=119, milliseconds=900), {}, True),
        (NOW - timedelta(seconds=100), {"retry_after": "30"}, True),
        (NOW, {"retry_after": "119"}, None),
        (NOW, {"retry_after": "300"}, True),
    ],
)
async def test_no_attempt_starts_after_within(
    world: World, first: datetime, headers: dict[str, str], final: bool | None
) -> None:
    """If the next one would, this failure is final, with its own reason."""
    world.script.says({}, 503, **headers)
    environment = attempt(2, heartbeat_details=[left(1, reached=True, first=first)])
    seen = beats(environment)

    error = await failed(environment.run(Send(world.deps).send, step(world)))

    assert (error.type, error.message) == ("NoReceipt", "the provider answered 503")
    if final is not None:
        assert error.non_retryable is final
    assert [kept.first_started_at for kept in seen] == ([] if error.non_retryable else [first])


async def test_attempt_started_too_late_sends_nothing(world: World) -> None:
    """It was queued for longer than `within`."""
    first = NOW - timedelta(minutes=3)
    details = [left(1, reached=False, first=first)]

    error = await failed(
        attempt(2, heartbeat_details=details).run(Send(world.deps).send, step(world))
    )

    assert (error.type, error.non_retryable) == ("NoReceipt", True)
    assert (error.message, trouble(error).reached) == ("no answer", False)
    assert world.script.asked == []


async def test_dead_attempt_counts_from_its_scheduling(world: World) -> None:
    """Its start is not known, unless the workflow knows it."""
    world.script.says({}, 500)
    world.script.says({}, 500)
    info = {"scheduled_time": NOW - timedelta(seconds=119, milliseconds=900)}
    later = step(world, tried=1, first_tried_at=NOW - SOON)

    by_engine = await failed(attempt(2, **info).run(Send(world.deps).send, step(world)))
    by_workflow = await failed(attempt(2, **info).run(Send(world.deps).send, later))

    assert by_engine.non_retryable is True
    assert by_workflow.non_retryable is False


async def test_duration_of_this_attempt_counts(served: tuple[Script, str], tmp_path: Path) -> None:
    """By how much our clock has moved: the engine has its own."""
    ours = [NOW + timedelta(days=9)]
    times: Iterator[datetime] = iter((ours[0], ours[0], ours[0] + timedelta(seconds=119.9)))
    script, url = served
    script.replies[:] = [JSONResponse({}, 500)]
    async with world(tmp_path, script, url, lambda: next(times, ours[0] + 120 * SOON)) as slow:
        error = await failed(attempt().run(Send(slow.deps).send, step(slow)))

    assert error.non_retryable is True


async def test_local_attempts_send_no_heartbeat(world: World) -> None:
    """The workflow passes their result on."""
    world.script.says({}, 500)
    environment = attempt(is_local=True)
    seen = beats(environment)

    error = await failed(environment.run(Send(world.deps).send, step(world)))

    assert error.non_retryable is False
    assert seen == []
