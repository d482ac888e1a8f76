"""What golden histories of provider control, and of calls under it, are captured from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ackbridge.contracts import names
from ackbridge.contracts.breaker import BreakerState, ForceBreaker, SetLimit
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.control import IntegrationFlags, SetFlag
from tests.support.stage import Stage, reached, set_provider_state

from .playing import PATIENCE, Run, Scenario, booking, run


def quote_flag(state: str, operation: str = "quote") -> SetFlag:
    """An operator's flag."""
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
    return await run(stage, request)


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


async def control_broke(stage: Stage) -> Run:
    """A provider that breaks: the breaker opens, is held closed, drains, and a limit is set."""
    control = stage.calls.control("sandbox")
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    await set_provider_state(stage, "broken")
    for _ in range(20):
        await stage.calls.start(stage.request())
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 0)
    await set_provider_state(stage, "well")
    force = ForceBreaker(state=BreakerState.CLOSED, by="bo", reason="they say they are well")
    await control.force_breaker(force)
    await control.set_limit(SetLimit(per_second=50, by="bo", reason="gently"))
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 50)
    await control.force_breaker(force.model_copy(update={"state": None}))
    await control.set_limit(SetLimit(per_second=None, by="bo", reason="as ever"))
    await reached(control, lambda seen: not seen.is_throttled)
    return Run(handle.id, (await handle.describe()).run_id)


async def queued_after_retries(stage: Stage) -> CallRequest:
    """Sends are bounded, so that all of them go through the queue; the first two are not taken."""
    control = stage.calls.control("sandbox")
    await control.set_limit(SetLimit(per_second=50, by="bo", reason="gently"))
    await reached(control, lambda seen: seen.rate and seen.rate.per_second == 50)
    await asyncio.sleep(3)
    request = await run(stage, stage.request(receipt_failures=2))
    await control.set_limit(SetLimit(per_second=None, by="bo", reason="as ever"))
    await reached(control, lambda seen: not seen.is_throttled)
    return request


async def parked_while_held_up(stage: Stage) -> CallRequest:
    """Tried once, then held up by a limit until the time for a receipt is over; sent later."""
    control = stage.calls.control("sandbox")
    request = booking(stage, throttle=1, retry_after=5)
    call = await stage.calls.start(request)
    await control.set_limit(SetLimit(per_second=0, by="bo", reason="a quiet hour"))
    await stage.until(request, "parked")
    await control.set_limit(SetLimit(per_second=None, by="bo", reason="as ever"))
    await reached(control, lambda seen: not seen.is_throttled)
    await asyncio.sleep(3)
    await call.reprocess(by="ops")
    return await run(stage, request)


async def control_copied(stage: Stage) -> Run:
    """Every change is copied to the ledger: several in one copy, and one in the next run."""
    control = stage.calls.control("sandbox")
    handle = stage.client.get_workflow_handle(names.control_id("sandbox"))
    run_id = (await handle.describe()).run_id
    await asyncio.gather(
        control.set_flag(quote_flag("internal")),
        control.set_limit(SetLimit(per_second=40, by="bo", reason="gently")),
    )
    await handle.cancel()
    await control.set_limit(SetLimit(per_second=None, by="bo", reason="as ever"))
    await control.set_flag(quote_flag("default"))
    while (await handle.describe()).run_id == run_id:  # noqa: ASYNC110 -- it changes in another process
        await asyncio.sleep(0.05)
    return Run(handle.id, run_id)


async def queued_beyond_its_share(stage: Stage) -> CallRequest:
    """Too many requests of the provider are within workflow tasks: send and acknowledgement go
    through its queues."""
    rides, share = stage.deps.rides, stage.deps.rides.share
    rides.share = 0
    try:
        return await run(stage, stage.request(delay_ms=100))
    finally:
        rides.share = share


CONTROLS: list[Scenario] = [
    switched_off_then_on,
    refused_by_a_flag,
    control_told,
    control_continued,
    control_broke,
    queued_after_retries,
    parked_while_held_up,
    control_copied,
    queued_beyond_its_share,
]
