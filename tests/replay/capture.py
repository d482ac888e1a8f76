"""Writes golden histories: `python -m tests.replay.capture`.

Only those that are not there yet: a history is never made anew to turn a test green.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle

from ackbridge.contracts import (
    BreakerState,
    CallRequest,
    ForceBreaker,
    IntegrationFlags,
    NoticeEvent,
    PurgeRequest,
    SetFlag,
    event_id,
    names,
)
from ackbridge.contracts.breaking import SetLimit
from ackbridge.embedded import EmbeddedEngine
from ackbridge.errors import CallError
from ackbridge.housekeeping import start_purge
from tests.integration.stage import Stage, edited_integrations, mood, reached, set_up
from tests.integration.subscribers import configure, subscribing
from tests.replay.batches import BATCHES, Run

HISTORIES = Path(__file__).with_name("histories")
PATIENCE = timedelta(minutes=1)

WORKER = re.compile(r"^\d+@[\w.-]+")
"""Process and host, as the names of sticky queues begin."""


Scenario = Callable[[Stage], Awaitable[CallRequest | Run]]

SUBSCRIBER, GONE = "capture", "gone"


async def completed(stage: Stage) -> CallRequest:
    """The happy path of the four steps."""
    return await _run(stage, stage.request(delay_ms=100))


async def completed_sync(stage: Stage) -> CallRequest:
    """A synchronous answer."""
    return await _run(stage, stage.request("quote"))


async def completed_duplicate(stage: Stage) -> CallRequest:
    """The same message by two ways, so that the workflow itself suppresses one."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    message = {"kind": "response", "event_key": "evt-1", "data": {"ok": True}}
    await asyncio.gather(
        *(stage.handle(request).signal("provider_message", message) for _ in range(2))
    )
    return await _run(stage, request)


async def completed_by_signal_of_several(stage: Stage) -> CallRequest:
    """Three messages in one signal: one that does not read, more time, and the answer."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    more = {"kind": "extension", "event_key": "evt-1", "extend_by": "1m"}
    answer = {"kind": "response", "event_key": "evt-2", "data": {"ok": True}}
    together = {"messages": [{"kind": "nonsense"}, more, answer]}
    await stage.handle(request).signal("provider_messages", together)
    return await _run(stage, request)


async def completed_after_retries(stage: Stage) -> CallRequest:
    """The first sends and the first acknowledgements were not taken."""
    return await _run(stage, stage.request(receipt_failures=2, acknowledgement_failures=2))


async def failed_silent(stage: Stage) -> CallRequest:
    """Two cycles of silence."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=90))
    return await _run(stage, request)


async def completed_by_asking(stage: Stage) -> CallRequest:
    """The callback never came; the provider was asked."""
    request = stage.request(silent=True)
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=31))
    return await _run(stage, request)


async def failed_by_provider(stage: Stage) -> CallRequest:
    """The provider reports a final failure."""
    return await _run(stage, stage.request(fail=9))


async def failed_invalid(stage: Stage) -> CallRequest:
    """The payload does not validate."""
    return await _run(stage, stage.request().model_copy(update={"payload": {}}))


async def cancelled(stage: Stage) -> CallRequest:
    """A cancel while the response is awaited."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await call.cancel(by="ann", reason="ordered twice")
    return await _run(stage, request)


async def forced(stage: Stage) -> CallRequest:
    """An operator's word for the answer, after a signal that did not validate."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.handle(request).signal("force_ack", {"by": "bo"})
    await call.force_ack(by="bo", reason="seen in their console", response={"id": 9})
    return await _run(stage, request)


async def awaited(stage: Stage) -> CallRequest:
    """A synchronous caller whose patience ends, and one who gets the outcome."""
    request = stage.request(delay_ms=800)
    await stage.calls.start_and_wait(request, timedelta(milliseconds=100))
    await stage.calls.start_and_wait(request, PATIENCE)
    return await _run(stage, request)


def booking(stage: Stage, **behaviour: Any) -> CallRequest:
    """A request of the operation that parks."""
    payload = {"room": "attic", "nights": 2, "behaviour": behaviour}
    request = stage.request().model_copy(update={"operation": "create_booking"})
    return request.model_copy(update={"payload": payload})


async def parked(stage: Stage, request: CallRequest) -> None:
    """Start a booking, and let both its deadlines pass."""
    await stage.calls.start(request)
    await stage.until(request, "awaiting_response")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(seconds=70))
    await stage.until(request, "parked")


async def parked_then_late(stage: Stage) -> CallRequest:
    """Two cycles given up, and then the answer of the first."""
    request = booking(stage, stuck=True)
    await parked(stage, request)
    (first, _) = [e["work"] for e in await stage.seen(request.call_id, "receipt")]
    late = {"kind": "response", "event_key": "late-1", "data": {"ok": True}, "reference": first}
    await stage.handle(request).signal("provider_message", late)
    return await _run(stage, request)


async def parked_then_reprocessed(stage: Stage) -> CallRequest:
    """A duplicate that is logged at once, one more round, and an operator's word."""
    request = booking(stage, stuck=True)
    await parked(stage, request)
    for _ in range(2):
        more = {"kind": "extension", "event_key": "more-1", "extend_by": "1m"}
        await stage.handle(request).signal("provider_message", more)
    await stage.calls.call(request.call_id).reprocess(by="ops")
    await stage.until(request, "awaiting_response")
    await stage.calls.call(request.call_id).force_ack(by="bo", reason="seen", response={"id": 9})
    return await _run(stage, request)


async def parked_to_the_end(stage: Stage) -> CallRequest:
    """No receipt, parked, and nobody came."""
    request = booking(stage, lost_receipts=1000, silent=True)
    await stage.calls.start(request)
    await stage.until(request, "parked")
    await stage.skipper.fast_forward(stage.handle(request), timedelta(days=9))
    return await _run(stage, request)


async def cancelled_while_sending(stage: Stage) -> CallRequest:
    """Interrupted between two attempts; the debt waits for a reference that a callback tells."""
    request = stage.request(lost_receipts=1000, delay_ms=3000)
    await stage.calls.start(request)
    while len(await stage.seen(request.call_id, "request")) < 2:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    await stage.calls.call(request.call_id).cancel(by="ann", reason="the customer left")
    return await _run(stage, request)


async def polled(stage: Stage) -> CallRequest:
    """A report that is asked for."""
    payload = {"subject": "tides", "behaviour": {"delay_ms": 700}}
    request = stage.request().model_copy(update={"operation": "create_report"})
    return await _run(stage, request.model_copy(update={"payload": payload}))


def told(request: CallRequest) -> CallRequest:
    """The request with a subscriber who wants to be told everything."""
    return request.model_copy(update={"reply_to": SUBSCRIBER})


async def told_in_time(stage: Stage) -> CallRequest:
    """A subscriber is told at once."""
    return await _run(stage, told(stage.request(delay_ms=100)))


async def told_late(stage: Stage) -> CallRequest:
    """A subscriber is told of a delay, and of the late end; both have arrived by then."""
    request = told(booking(stage, stuck=True))
    await parked(stage, request)
    await _delivered(stage, event_id(request.call_id, 1, NoticeEvent.DELAYED))
    late = {"kind": "response", "event_key": "late-1", "data": {"ok": True}}
    await stage.handle(request).signal("provider_message", late)
    return await _run(stage, request)


async def told_failed(stage: Stage) -> CallRequest:
    """A subscriber is told of a refusal."""
    return await _run(stage, told(stage.request(refuse=422)))


async def notice_delivered(stage: Stage) -> Run:
    """A delivery to a subscriber that is well."""
    request = told(stage.request(refuse=422))
    await _run(stage, request)
    return await _delivered(stage, event_id(request.call_id, 1, NoticeEvent.FAILED))


async def notice_dead(stage: Stage) -> Run:
    """A delivery to a subscriber that is gone."""
    request = stage.request(refuse=422).model_copy(update={"reply_to": GONE})
    await _run(stage, request)
    return await _delivered(stage, event_id(request.call_id, 1, NoticeEvent.FAILED))


def quote_flag(state: str, operation: str = "quote") -> SetFlag:
    """An operator's word."""
    return SetFlag.model_validate(
        {
            "operation": operation,
            "environment": "dev",
            "state": state,
            "by": "ann",
            "reason": "a trial",
        }
    )


async def kept_back(stage: Stage, request: Callable[[], CallRequest]) -> CallRequest:
    """The first call that the workers do not send any more."""
    while True:
        wanted = request()
        status = await stage.calls.start_and_wait(wanted, PATIENCE)
        if status.stage in ("parked", "failed"):
            return wanted
        await asyncio.sleep(0.2)


async def switched_off_then_on(stage: Stage) -> CallRequest:
    """Parked by a flag; reprocessed while it is off, and while it is on."""
    control = stage.calls.control("sandbox")
    await control.set_flag(quote_flag("off", "create_booking"))
    request = await kept_back(stage, lambda: booking(stage))
    call = stage.calls.call(request.call_id)
    await call.reprocess(by="ops")
    while not (await call.status()).last_error:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    await control.set_flag(quote_flag("default", "create_booking"))
    await asyncio.sleep(3)
    await call.reprocess(by="ops")
    return await _run(stage, request)


async def refused_by_a_flag(stage: Stage) -> CallRequest:
    """Nothing is sent, and the call fails with a notice."""
    control = stage.calls.control("sandbox")
    await control.set_flag(quote_flag("off"))
    request = await kept_back(stage, lambda: stage.request("quote"))
    await control.set_flag(quote_flag("default"))
    return request


async def control_told(stage: Stage) -> Run:
    """Orders, good and bad, as updates and as signals; a cancel, which continues it as new."""
    control = stage.calls.control("sandbox")
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    run_id = (await handle.describe()).run_id
    await control.set_flag(quote_flag("internal"))
    await handle.signal(names.SET_FLAG, {"state": "sometimes"})
    await handle.signal(names.SET_FLAG, quote_flag("default"))
    hold = ForceBreaker(state=BreakerState.OPEN, by="bo", reason="they asked us to")
    await control.force_breaker(hold)
    await control.force_breaker(hold.model_copy(update={"state": None}))
    await handle.signal(names.CONFIGURE, IntegrationFlags(operations=("quote",)))
    await handle.cancel()
    while (await handle.describe()).run_id == run_id:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    return Run(handle.id, run_id)


async def control_continued(stage: Stage) -> Run:
    """A control that goes on with what the run before it knew."""
    control = stage.calls.control("sandbox")
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    await control.set_flag(quote_flag("off"))
    await control.set_flag(quote_flag("default"))
    return Run(handle.id, (await handle.describe()).run_id)


async def completed_together(stage: Stage) -> CallRequest:
    """The happy path in two activities: prepare and send, record and acknowledge."""
    return await _run(stage, stage.request(delay_ms=100))


async def completed_together_after_retries(stage: Stage) -> CallRequest:
    """The first sends and the first acknowledgements rode along, and were not taken."""
    return await _run(stage, stage.request(receipt_failures=2, acknowledgement_failures=2))


async def control_broke(stage: Stage) -> Run:
    """A provider that breaks: the breaker opens, is held closed, drains, and a limit is set."""
    control = stage.calls.control("sandbox")
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    await mood(stage, "broken")
    for _ in range(20):
        await stage.calls.start(stage.request())
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 0)
    await mood(stage, "well")
    force = ForceBreaker(state=BreakerState.CLOSED, by="bo", reason="they say they are well")
    await control.force_breaker(force)
    await control.set_limit(SetLimit(per_second=50, by="bo", reason="gently"))
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 50)
    await control.force_breaker(force.model_copy(update={"state": None}))
    await control.set_limit(SetLimit(per_second=None, by="bo", reason="as ever"))
    await reached(control, lambda seen: not seen.is_throttled)
    return Run(handle.id, (await handle.describe()).run_id)


async def purge_completed(stage: Stage) -> Run:
    """A clean-up of a ledger in which nothing is old."""
    purge = await start_purge(stage.client, PurgeRequest(by="ops"))
    await purge.result()
    return Run(purge.id, (await stage.client.get_workflow_handle(purge.id).describe()).run_id)


SCENARIOS: list[Scenario] = [
    completed,
    completed_sync,
    completed_duplicate,
    completed_by_signal_of_several,
    completed_after_retries,
    completed_by_asking,
    failed_silent,
    failed_by_provider,
    failed_invalid,
    cancelled,
    forced,
    awaited,
    parked_then_late,
    parked_then_reprocessed,
    parked_to_the_end,
    cancelled_while_sending,
    polled,
    told_in_time,
    told_late,
    told_failed,
    notice_delivered,
    notice_dead,
    switched_off_then_on,
    refused_by_a_flag,
    control_told,
    control_continued,
    completed_together,
    completed_together_after_retries,
    control_broke,
    purge_completed,
    *BATCHES,
]


def _handle(stage: Stage, played: CallRequest | Run) -> WorkflowHandle[Any, Any]:
    if isinstance(played, Run):
        return stage.client.get_workflow_handle(played.workflow_id, run_id=played.run_id)
    return stage.handle(played)


async def _run(stage: Stage, request: CallRequest) -> CallRequest:
    with contextlib.suppress(CallError):
        await (await stage.calls.start(request)).outcome(PATIENCE, settled=True)
    return request


async def _delivered(stage: Stage, event: str) -> Run:
    """Wait for the end of a delivery."""
    handle = stage.client.get_workflow_handle(names.notice_id(event))
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return Run(handle.id, (await handle.describe()).run_id)


def _without_traces_of_the_machine(history: str) -> str:
    """Leave out stack traces and worker identities, which replay does not look at."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k not in ("stackTrace", "identity")}
        if isinstance(value, str):
            return WORKER.sub("1@worker", value)
        return [clean(one) for one in value] if isinstance(value, list) else value

    return json.dumps(clean(json.loads(history)), indent=1)


async def main() -> None:
    """Play every scenario that has no history yet, and keep its history."""
    HISTORIES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        engine = running.enter_context(
            EmbeddedEngine(folder / "engine.db", headless=True, time_skipping=True)
        )
        integrations = edited_integrations(folder, lambda _: None)
        for name, replies in ((SUBSCRIBER, []), (GONE, [410] * 10)):
            subscriber = running.enter_context(subscribing())
            subscriber.replies += replies
            configure(integrations, name, subscriber.url)
        async with set_up(engine.address, folder, integrations) as stage:
            for scenario in SCENARIOS:
                await _capture(stage, scenario)


async def _capture(stage: Stage, scenario: Scenario) -> None:
    path = HISTORIES / f"{scenario.__name__}.json"
    if path.exists():
        return
    history = await _handle(stage, await scenario(stage)).fetch_history()
    path.write_text(_without_traces_of_the_machine(history.to_json()))
    print(f"{path.name}: {len(history.events)} events")


if __name__ == "__main__":
    asyncio.run(main())
