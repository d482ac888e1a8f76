"""What golden histories of settled calls are captured from."""

from __future__ import annotations

import contextlib
from typing import Any

from temporalio.client import WorkflowFailureError

from ackbridge.contracts import names
from tests.support.stage import Stage

from .playing import Run, Scenario, run


async def settle(stage: Stage, call_id: str, **what: Any) -> Run:
    """Request something of a call that has ended, as plain JSON, and wait for the end."""
    handle: Any = await stage.client.start_workflow(
        names.SETTLE_CALL,
        {"call_id": call_id, "by": "ann", "reason": "asked the provider", **what},
        id=names.settle_id(call_id),
        task_queue=names.TASK_QUEUE,
    )
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return Run(handle.id, handle.result_run_id)


async def settled(stage: Stage) -> Run:
    """A call that was refused is settled as done."""
    request = await run(stage, stage.request(refuse=422))
    return await settle(stage, request.call_id, response={"ok": True}, **{"as": "done"})


async def settled_refused(stage: Stage) -> Run:
    """A call that nobody knows cannot be settled."""
    return await settle(stage, "sandbox.create_order.unknown", **{"as": "none"})


SETTLEMENTS: list[Scenario] = [settled, settled_refused]
