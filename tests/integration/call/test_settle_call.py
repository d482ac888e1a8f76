"""Operators settle calls that have ended, on the real engine."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallOutcome, CallRequest, Effect
from tests.replay.playing import run
from tests.support.stage import Stage

BY = {"by": "ann", "reason": "asked the provider"}


async def settle(stage: Stage, request: CallRequest, **what: Any) -> Any:
    """Start `SettleCall` as any client may, and return its result or raise its failure."""
    call_id = request.call_id
    try:
        return await stage.client.execute_workflow(
            names.SETTLE_CALL,
            {"call_id": call_id, **BY, **what},
            id=names.settle_id(call_id),
            task_queue=names.TASK_QUEUE,
        )
    except WorkflowFailureError as error:
        raise error.cause from None


async def test_a_call_that_has_ended_is_settled(stage: Stage) -> None:
    """The ledger has the new outcome, and says who stated it."""
    request = await run(stage, stage.request(refuse=422))

    result = await settle(stage, request, response={"id": 7}, **{"as": "done"})

    outcome = CallOutcome.model_validate(result)
    assert (outcome.effect, outcome.response) == (Effect.DONE, {"id": 7})
    row = await stage.ledger.calls.get(request.call_id)
    assert row is not None
    assert (row.outcome, row.settled_by) == (outcome, "ann")


async def test_an_open_call_is_not_settled(stage: Stage) -> None:
    """It takes a signal instead."""
    request = stage.request(delay_ms=600_000)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")

    with pytest.raises(ApplicationError, match="the call is open") as refused:
        await settle(stage, request, **{"as": "done"})

    assert refused.value.type == names.INVALID_REQUEST
    await stage.calls.call(request.call_id).cancel(**BY)


async def test_a_call_whose_workflow_was_terminated_is_settled(stage: Stage) -> None:
    """It can take no signal, and has no outcome before."""
    request = stage.request(delay_ms=600_000)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.handle(request).terminate("a test")

    outcome = CallOutcome.model_validate(await settle(stage, request, **{"as": "none"}))

    assert (outcome.effect, outcome.reason) == (
        Effect.NONE,
        "the call's workflow ended without an outcome",
    )


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({}, "exactly one of as, held_id and write_off"),
        ({"as": "unknown"}, "as: "),
        ({"as": "none", "response": 1}, "a response needs as: done"),
        ({"as": "done", "held_id": 1}, "exactly one"),
        ({"write_off": {"cycle": 0, "kind": "success"}}, "write_off.cycle: "),
        ({"held_id": 1}, "no call sandbox.create_order."),
    ],
)
async def test_invalid_requests_are_refused(
    stage: Stage, what: dict[str, Any], problem: str
) -> None:
    """The failure names the field."""
    with pytest.raises(ApplicationError) as refused:
        await settle(stage, stage.request(), **what)

    assert refused.value.type == names.INVALID_REQUEST
    assert problem in refused.value.message
