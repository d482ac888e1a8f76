"""What golden histories of calls are captured from."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from datetime import timedelta
from typing import Any

from ackbridge.contracts.calls import CallRequest
from tests.support.stage import Stage

from .playing import PATIENCE, Scenario, booking, parked, run


async def completed(stage: Stage) -> CallRequest:
    """The happy path: prepare and send, record and acknowledge."""
    return await run(stage, stage.request(delay_ms=100))


async def completed_sync(stage: Stage) -> CallRequest:
    """A synchronous answer."""
    return await run(stage, stage.request("quote"))


async def completed_duplicate(stage: Stage) -> CallRequest:
    """The same message by two ways, so that the workflow itself suppresses one."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    message = {"kind": "response", "event_key": "evt-1", "data": {"ok": True}}
    await asyncio.gather(
        *(stage.handle(request).signal("provider_message", message) for _ in range(2))
    )
    return await run(stage, request)


async def completed_by_signal_of_several(stage: Stage) -> CallRequest:
    """Three messages in one signal: one that does not read, more time, and the answer."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    more = {"kind": "extension", "event_key": "evt-1", "extend_by": "1m"}
    answer = {"kind": "response", "event_key": "evt-2", "data": {"ok": True}}
    together = {"messages": [{"kind": "nonsense"}, more, answer]}
    await stage.handle(request).signal("provider_messages", together)
    return await run(stage, request)


async def completed_after_retries(stage: Stage) -> CallRequest:
    """The first attempts to send and to acknowledge fail."""
    return await run(stage, stage.request(receipt_failures=2, acknowledgement_failures=2))


async def failed_silent(stage: Stage) -> CallRequest:
    """Two cycles that time out."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=90))
    return await run(stage, request)


async def completed_by_asking(stage: Stage) -> CallRequest:
    """The callback never came; the provider was asked."""
    request = stage.request(silent=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
    return await run(stage, request)


async def failed_by_provider(stage: Stage) -> CallRequest:
    """The provider reports a final failure."""
    return await run(stage, stage.request(fail=9))


async def failed_invalid(stage: Stage) -> CallRequest:
    """The payload does not validate."""
    return await run(stage, stage.request().model_copy(update={"payload": {}}))


async def cancelled(stage: Stage) -> CallRequest:
    """A cancel while the response is awaited."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await call.cancel(by="ann", reason="ordered twice")
    return await run(stage, request)


async def forced(stage: Stage) -> CallRequest:
    """A response forced by an operator, after a signal that did not validate."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.handle(request).signal("force_ack", {"by": "bo"})
    await call.force_ack(by="bo", reason="seen in their console", response={"id": 9})
    return await run(stage, request)


async def awaited(stage: Stage) -> CallRequest:
    """A synchronous caller whose patience ends, and one who gets the outcome."""
    request = stage.request(delay_ms=800)
    await stage.calls.start_and_wait(request, timedelta(milliseconds=100))
    await stage.calls.start_and_wait(request, PATIENCE)
    return await run(stage, request)


async def parked_then_late(stage: Stage) -> CallRequest:
    """Two cycles called off, and then the answer of the first, which the provider confirms."""
    request = booking(stage, stuck=True)
    await parked(stage, request)
    (first, _) = [e["work"] for e in await stage.seen(request.call_id, "receipt")]
    late = {"kind": "response", "event_key": "late-1", "data": {"ok": True}, "reference": first}
    late["source"] = "status"
    await stage.handle(request).signal("provider_message", late)
    return await run(stage, request)


async def parked_then_reprocessed(stage: Stage) -> CallRequest:
    """A duplicate that is logged at once, one more round, and a forced response."""
    request = booking(stage, stuck=True)
    await parked(stage, request)
    for _ in range(2):
        more = {"kind": "extension", "event_key": "more-1", "extend_by": "1m"}
        await stage.handle(request).signal("provider_message", more)
    await stage.calls.call(request.call_id).reprocess(by="ops")
    await stage.until(request, "awaiting_response")
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    return await run(stage, request)


async def parked_to_the_end(stage: Stage) -> CallRequest:
    """No receipt, and parked until its time is over."""
    request = booking(stage, lost_receipts=1000, silent=True)
    await stage.calls.start(request)
    await stage.until(request, "parked")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(days=9))
    return await run(stage, request)


async def cancelled_while_sending(stage: Stage) -> CallRequest:
    """Interrupted between two attempts; the acknowledgement waits for the reference."""
    request = stage.request(lost_receipts=1000, delay_ms=3000)
    await stage.calls.start(request)
    while len(await stage.seen(request.call_id, "request")) < 2:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    await stage.calls.call(request.call_id).cancel(by="ann", reason="the customer left")
    return await run(stage, request)


async def failed_silent_while_owing(stage: Stage) -> CallRequest:
    """The next cycle waits for a failed acknowledgement that is owed at first."""
    request = stage.request(stuck=True, acknowledgement_failures=2)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=120))
    return await run(stage, request)


async def parked_then_resolved(stage: Stage) -> CallRequest:
    """An operator states that nothing happened at the provider."""
    request = booking(stage, stuck=True)
    await parked(stage, request)
    signal = {"by": "ann", "reason": "asked the hotel", "as": "none"}
    await stage.handle(request).signal("resolve", signal)
    return await run(stage, request)


async def polled(stage: Stage) -> CallRequest:
    """A report that is asked for."""
    payload = {"subject": "tides", "behaviour": {"delay_ms": 700}}
    request = stage.request().model_copy(update={"operation": "create_report"})
    return await run(stage, request.model_copy(update={"payload": payload}))


def add_operations(operations: dict[str, Any]) -> None:
    """Orders whose result is fetched, and orders that are asked about beside their callbacks."""
    fetched, polled_beside = (deepcopy(operations["create_order"]) for _ in range(2))
    fetched["response"]["result"] = {"path": "/v1/orders/{reference}"}
    polled_beside["response"]["poll"] = {"every": "1s"}
    operations |= {"fetch_order": fetched, "poll_order": polled_beside}


async def completed_with_result(stage: Stage) -> CallRequest:
    """The callback says that the order is made; the order itself is fetched."""
    return await run(stage, stage.request("fetch_order", delay_ms=100))


async def completed_by_poll_beside_callbacks(stage: Stage) -> CallRequest:
    """The callback never comes."""
    return await run(stage, stage.request("poll_order", silent=True))


CALLS: list[Scenario] = [
    completed,
    completed_sync,
    completed_duplicate,
    completed_by_signal_of_several,
    completed_after_retries,
    failed_silent,
    completed_by_asking,
    failed_by_provider,
    failed_invalid,
    cancelled,
    forced,
    awaited,
    parked_then_late,
    parked_then_reprocessed,
    parked_to_the_end,
    cancelled_while_sending,
    failed_silent_while_owing,
    parked_then_resolved,
    polled,
    completed_with_result,
    completed_by_poll_beside_callbacks,
]
