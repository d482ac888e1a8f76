"""What golden histories of hosts of many calls are captured from."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from temporalio.client import WorkflowHandle

from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from tests.support.stage import Stage

from .playing import Run, Scenario


async def hosted(stage: Stage) -> Run:
    """Calls that complete: one at once, two by callbacks, one after failed attempts."""
    retried = stage.request(receipt_failures=2, acknowledgement_failures=2)
    requests = [stage.request("quote"), stage.request(), stage.request(delay_ms=300), retried]
    host = await stage.start_host(requests)
    await host.execute_update(names.TAKE_ENDS, {"after": 0})
    return await _ended(host)


async def hosted_without_success(stage: Stage) -> Run:
    """One fails, one is cancelled, one forced, one not valid; a message is about none of them."""
    failing = stage.request(fail=9)
    cancelled, forced = stage.request(stuck=True), stage.request(stuck=True)
    invalid = stage.request().model_copy(update={"payload": {}})
    host = await stage.start_host([failing, cancelled, forced, invalid])
    for request in (cancelled, forced):
        await _awaiting(host, request)
    by = {"by": "ann", "reason": "ordered twice"}
    await host.signal(names.CANCEL, {"call_id": cancelled.call_id, **by})
    await host.signal(names.FORCE_ACK, {"call_id": forced.call_id, **by, "response": {"id": 9}})
    await host.signal(names.CANCEL, {"call_id": "sandbox.create_order.other", **by})
    return await _ended(host)


async def hosted_then_moved(stage: Stage) -> Run:
    """One leaves, and a message reaches its host afterwards; one cannot leave."""
    silent, other = stage.request(stuck=True), stage.request(stuck=True)
    host = await stage.start_host([silent, other])
    for request in (silent, other):
        await _awaiting(host, request)
    # It follows the hosted one; a call cannot leave into a workflow that is running.
    await stage.client.start_workflow(
        names.INTEGRATION_CALL, other, id=other.call_id, task_queue=names.TASK_QUEUE
    )
    # In real time: a workflow that leaves while time is skipped would skip its own deadline.
    while (await _status(host, silent)).get("moved_to") is None:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    message = {"kind": "response", "event_key": uuid.uuid4().hex, "data": {"ok": True}}
    await host.signal(names.PROVIDER_MESSAGE, {"call_id": silent.call_id, **message})
    await stage.handle(silent).result()
    await host.signal(
        names.CANCEL, {"call_id": other.call_id, "by": "ann", "reason": "ordered twice"}
    )
    return await _ended(host)


async def moved(stage: Stage) -> CallRequest:
    """A call that has left its host while it awaited its response."""
    silent = stage.request(stuck=True)
    host = await stage.start_host([silent])
    await _awaiting(host, silent)
    await host.result()
    message = {"kind": "response", "event_key": uuid.uuid4().hex, "data": {"ok": True}}
    await stage.handle(silent).signal(names.PROVIDER_MESSAGE, message)
    await stage.handle(silent).result()
    return silent


async def _status(host: WorkflowHandle[Any, Any], request: CallRequest) -> dict[str, Any]:
    status: dict[str, Any] = await host.query(names.STATUS, {"call_id": request.call_id})
    return status


async def _awaiting(host: WorkflowHandle[Any, Any], request: CallRequest) -> None:
    while (await _status(host, request))["stage"] != "awaiting_response":  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)


async def _ended(host: WorkflowHandle[Any, Any]) -> Run:
    await host.result()
    return Run(host.id, str(host.result_run_id or host.first_execution_run_id))


HOSTS: list[Scenario] = [hosted, hosted_without_success, hosted_then_moved, moved]
