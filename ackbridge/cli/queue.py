"""queue: what waits for a provider, for what, how long, and when it will go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer
from pydantic import AwareDatetime
from rich.console import Group, RenderableType
from rich.text import Text

from ackbridge.client.control import ControlHandle
from ackbridge.client.queues import QueueStatus, describe_queue
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.batches import QUARANTINE_AFTER
from ackbridge.contracts.breaker import BreakerStatus
from ackbridge.contracts.control import ControlSnapshot
from ackbridge.contracts.wire import Wire
from ackbridge.errors import AckbridgeError, UnknownNameError
from ackbridge.ledger.batches import ParkedState, WaitingCall
from ackbridge.ledger.ledger import Ledger
from ackbridge.terminal import output

from .connections import connect_quickly, opened_ledger
from .control import Provider
from .options import Json, Limit

REFRESH_INTERVAL = 2.0
"""Seconds."""

BREAKER, FLAG, LEASE = "breaker", "flag", "lease"
"""What calls wait for; parked calls otherwise wait for a batch or an operator."""

_WAITS_FOR: Final = {"breaker_open": BREAKER, "switched_off": FLAG}


class HeldBack(Wire):
    """A call that waits.

    Attributes:
        waits_for: `breaker`, `flag`, `lease`, `batch`, `operator` for one in quarantine, or
            `response` for one that is being reprocessed.
        code: why it is parked; None for one that waits for a lease.
        batch: which one is reprocessing it.
    """

    call: str
    waits_for: str
    since: AwareDatetime
    code: str | None = None
    batch: str | None = None
    quarantined: bool = False


class HeldBackCount(Wire):
    """How many calls wait for the same thing, and since when the oldest does."""

    waits_for: str
    code: str | None = None
    calls: int
    oldest: AwareDatetime


class QueueView(Wire):
    """What waits for a provider.

    Attributes:
        queues: requests, and then acknowledgements and status requests, by the engine's statistics;
            empty where it does not answer.
        problem: why the engine's part is missing.
        breaker: of the provider; None: unknown.
        breakers: by operation, those that decide about it and are not closed.
        counts: of all calls that wait, by the ledger.
        calls: the oldest of them, calls in quarantine first.
    """

    provider: str
    queues: tuple[QueueStatus, ...] = ()
    problem: str | None = None
    breaker: str | None = None
    breakers: Mapping[str, str] = {}
    counts: tuple[HeldBackCount, ...] = ()
    calls: tuple[HeldBack, ...] = ()


def queue(
    provider: Provider,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    limit: Limit = 20,
    json_output: Json = False,
) -> None:
    """Show what waits for a provider: requests in its queue, and calls that are held back.

    The queue's numbers are Temporal's: how many wait, how old, how fast they go and when the last
    one will. The ledger knows by name which calls are parked, or wait for the breaker, a flag or
    a lease (`limits.concurrent_total`).
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(provider, limit, watch=watch, json_output=json_output))


async def _show(provider: str, limit: int, *, watch: bool, json_output: bool) -> None:
    async with opened_ledger() as ledger:

        async def fetch() -> QueueView:
            return await read_queue(ledger, provider, limit)

        if json_output:
            output.print_json(await fetch())
        elif watch:
            await output.watch(fetch, render, interval=REFRESH_INTERVAL, transient=False)
        else:
            output.console.print(render(await fetch()))


async def read_queue(ledger: Ledger, provider: str, limit: int) -> QueueView:
    """Everything that waits; the ledger's part also without an engine.

    Raises:
        UnknownNameError: there is no such provider.
        LedgerUnavailableError: the ledger does not answer.
    """
    view = await _engine_view(provider)
    if view.breaker is None and (stored := await ledger.controls.latest(provider)):
        view = view.model_copy(update=_breakers(stored))
    parked = await ledger.batches.count_waiting(provider)
    counts = [
        HeldBackCount(waits_for=_waits_for(*kind), code=kind[0], calls=calls, oldest=oldest)
        for kind, calls, oldest in parked
    ]
    calls = [_waiting(one) for one in await ledger.batches.waiting(provider, limit)]
    leased = [one for one in await ledger.leases.requests(provider, 10_000) if one.is_waiting]
    if leased:
        oldest = min(one.since for one in leased)
        counts.append(HeldBackCount(waits_for=LEASE, calls=len(leased), oldest=oldest))
    calls += [
        HeldBack(call=one.call_id, waits_for=LEASE, since=one.since)
        for one in leased[: max(limit - len(calls), 0)]
    ]
    return view.model_copy(update={"counts": tuple(counts), "calls": tuple(calls)})


async def _engine_view(provider: str) -> QueueView:
    try:
        client = await connect_quickly()
        snapshot = await ControlHandle(client, provider).snapshot()
        queues = [
            await describe_queue(client, name)
            for name in (names.send_queue(provider), names.settle_queue(provider))
        ]
    except UnknownNameError:
        raise
    except AckbridgeError as error:
        return QueueView(provider=provider, problem=str(error).splitlines()[0])
    view = QueueView(provider=provider, queues=tuple(queues))
    return view if snapshot is None else view.model_copy(update=_breakers(snapshot))


def _breakers(snapshot: ControlSnapshot) -> dict[str, Any]:
    """The fields `breaker` and `breakers`."""
    failing = sorted(snapshot.failing_operations)
    own = {name: _describe_breaker(snapshot.breakers[name]) for name in failing}
    return {"breaker": _describe_breaker(snapshot.breaker), "breakers": own}


def _describe_breaker(breaker: BreakerStatus) -> str:
    held = f", held by {breaker.forced_by}" if breaker.forced_by else ""
    return f"{breaker.state.replace('_', ' ')}{held}: {breaker.reason}"


def _waits_for(reason: str, is_taken: bool, is_quarantined: bool) -> str:
    if is_taken:
        return "response"
    if is_quarantined:
        return "operator"
    return _WAITS_FOR.get(reason, "batch")


def _waiting(call: WaitingCall) -> HeldBack:
    is_quarantined = call.failures >= QUARANTINE_AFTER
    return HeldBack(
        call=call.call_id,
        waits_for=_waits_for(call.reason, call.state is ParkedState.TAKEN, is_quarantined),
        since=call.parked_at,
        code=call.reason,
        batch=call.batch,
        quarantined=is_quarantined,
    )


# In a terminal of 80 columns


def render(view: QueueView) -> RenderableType:
    return Group(*_parts(view, utc_now()))


def _parts(view: QueueView, now: datetime) -> Iterator[RenderableType]:
    if view.queues:
        rows = [_queue_row(one) for one in view.queues]
        columns = ("queue", "waiting", "oldest", "in/s", "out/s", "limit", "last goes")
        yield output.table("", columns, rows)
    if view.problem is not None:
        yield Text(f"The queues are not known: {view.problem}")
    if any(one.waiting and not one.workers for one in view.queues):
        yield Text("No worker polls a queue in which requests wait.")
    if view.breaker is not None:
        yield Text(f"breaker of {view.provider}: {view.breaker}")
    for operation, breaker in view.breakers.items():
        yield Text(f"breaker of {view.provider}.{operation}: {breaker}")
    if not view.counts:
        yield Text("No calls are held back.")
        return
    counts = [
        (one.waits_for, one.code or "", str(one.calls), output.age(now - one.oldest))
        for one in view.counts
    ]
    total = sum(one.calls for one in view.counts)
    yield output.table(
        f"{output.counted(total, 'call is', 'calls are')} held back",
        ("waits for", "code", "calls", "oldest"),
        counts,
    )
    rows = [
        (one.call, f"{one.waits_for} {one.batch or ''}".strip(), output.age(now - one.since))
        for one in view.calls
    ]
    yield output.table("by name", ("call", "waits for", "for"), rows)
    if total > len(view.calls):
        yield Text(f"and {total - len(view.calls)} more: --limit {total}")


def _queue_row(one: QueueStatus) -> tuple[str, ...]:
    return (
        one.queue,
        str(one.waiting),
        output.age(one.oldest) if one.waiting else "",
        f"{one.added:.3g}",
        f"{one.taken:.3g}",
        "" if one.limit is None else f"{one.limit:g}/s",
        _last_goes(one),
    )


def _last_goes(one: QueueStatus) -> str:
    if not one.waiting:
        return ""
    if one.limit == 0:
        return "stopped"
    if one.empty_in is None:
        return "unknown"
    return f"in {output.age(max(one.empty_in, timedelta(seconds=1)))}"
