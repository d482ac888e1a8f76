"""reprocess, batches, batch: parked calls are taken up again, one or many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, time, timedelta
from typing import Annotated, Any

import typer
from rich.live import Live

from ackbridge.client.batches import BatchHandle
from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts.batches import BatchProgress, BatchRequest, BatchState, ParkedSelection
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.ledger.batches import ParkedCall, ParkedCount
from ackbridge.ledger.ledger import Ledger
from ackbridge.terminal import output
from ackbridge.terminal.batch_progress import bars
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import By, Json, duration, reprocess_one, with_client
from .ledger import with_ledger

BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it stays in the batch's history.")]
Watch = Annotated[bool, typer.Option("--watch", help="Keep looking until it is over.")]
WATCH_EVERY = 0.5
"""Seconds between two looks of `--watch`."""
SHOWN_AT_DRY_RUN = 10
"""Calls that `--dry-run` lists, the oldest."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(reprocess))
    app.command()(exits_with_its_answer(batches))
    group = typer.Typer(no_args_is_help=True, help="One batch: look at it, steer it.")
    for act in (status, pause, resume, stop):
        group.command()(exits_with_its_answer(act))
    app.add_typer(group, name="batch")


def reprocess(
    which: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER|CALL_ID", help="Whose parked calls; or one call by its id, with dots."
        ),
    ],
    by: By,
    operation: Annotated[str | None, typer.Option(help="Only calls of this operation.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Only calls parked for this, such as `no_response`.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only calls parked for so long: `30m`, `2h`.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Only the call of this key; may be repeated.")
    ] = None,
    at_most: Annotated[
        int | None, typer.Option(min=1, help="How many calls, the oldest first.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Calls per second.")] = 5.0,
    concurrency: Annotated[int, typer.Option(help="How many may be under way at once.")] = 20,
    at: Annotated[
        str | None,
        typer.Option(help="When: `02:00`, by this machine's clock, or an ISO 8601 time."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be taken up.")
    ] = False,
    watch: Watch = False,
    json_output: Json = False,
) -> int:
    """Take parked calls up again: they are sent once more, and their answers awaited.

    Many of them in a batch, the oldest first, at a bounded rate. It takes no call twice, and
    waits while the provider is switched off or its breaker is open.
    """
    if "." in which:
        return reprocess_one(which, by, json_output)
    selection = {
        "provider": which,
        "operation": operation,
        "reason": reason,
        "older_than": older_than and duration("older-than", older_than).total_seconds(),
        "keys": key or (),
        "at_most": at_most,
    }
    request = parse_argument(
        BatchRequest,
        (
            {
                "selection": selection,
                "rate": rate,
                "concurrency": concurrency,
                "not_before": at and moment(at, datetime.now().astimezone()),
                "by": by,
            },
        ),
    )
    if dry_run:
        return _show_selected(request.selection, json_output)

    async def start(calls: AckbridgeClient) -> BatchProgress:
        batch = await calls.reprocess_parked(request)
        return await _follow(batch) if watch else await batch.progress()

    return _print([with_client(start)], json_output)


def batches(
    provider: Annotated[str | None, typer.Argument(help="Only this provider's.")] = None,
    watch: Watch = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 20,
    json_output: Json = False,
) -> int:
    """List batches, the newest first, with how far they are."""

    async def look(calls: AckbridgeClient) -> list[BatchProgress]:
        found = [batch async for batch in calls.batches(provider, limit)]
        seen = await _all(found)
        if not watch:
            return seen
        with Live(bars(seen), console=output.console, transient=True) as live:
            while not all(one.state.is_final for one in seen):
                await asyncio.sleep(WATCH_EVERY)
                found = [batch async for batch in calls.batches(provider, limit)]
                seen = await _all(found)
                live.update(bars(seen))
        return seen

    return _print(with_client(look), json_output)


def status(batch_id: BatchId, watch: Watch = False, json_output: Json = False) -> int:
    """Show how far a batch is."""

    async def look(calls: AckbridgeClient) -> BatchProgress:
        batch = calls.batch(batch_id)
        return await _follow(batch) if watch else await batch.progress()

    return _print([with_client(look)], json_output)


def pause(batch_id: BatchId, reason: Why, by: By, json_output: Json = False) -> int:
    """Take up no more calls until somebody resumes it; those under way go on."""
    return _steer(batch_id, lambda batch: batch.pause(by=by, reason=reason), json_output)


def resume(batch_id: BatchId, reason: Why, by: By, json_output: Json = False) -> int:
    """Go on after a pause."""
    return _steer(batch_id, lambda batch: batch.resume(by=by, reason=reason), json_output)


def stop(batch_id: BatchId, reason: Why, by: By, json_output: Json = False) -> int:
    """End a batch before its time. Calls that were not told yet stay parked."""
    return _steer(batch_id, lambda batch: batch.stop(by=by, reason=reason), json_output)


def moment(text: str, now: datetime) -> datetime:
    """Read `02:00`, the next time the clock shows it, or an ISO 8601 time.

    Args:
        now: aware; its zone is that of a time without one.

    Raises:
        InvalidInputError: naming the option.
    """
    try:
        if "-" in text:
            read_time = datetime.fromisoformat(text)
            return read_time if read_time.tzinfo else read_time.replace(tzinfo=now.tzinfo)
        today = datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
    except ValueError:
        raise InvalidInputError(
            "--at: neither a time such as 02:00 nor an ISO 8601 date and time"
        ) from None
    return today if today > now else today + timedelta(days=1)


def _show_selected(selection: ParkedSelection, json_output: bool) -> int:
    async def look(ledger: Ledger) -> tuple[list[ParkedCount], list[ParkedCall]]:
        kinds = await ledger.batches.count_parked(selection)
        limit = min(selection.at_most or SHOWN_AT_DRY_RUN, SHOWN_AT_DRY_RUN)
        return kinds, await ledger.batches.parked(selection, limit)

    kinds, oldest = with_ledger(look)
    total = sum(kind.calls for kind in kinds)
    total = min(total, selection.at_most or total)
    if json_output:
        output.as_json({"total": total, "kinds": _rows(kinds), "oldest": _rows(oldest)})
        return Exit.COMPLETED
    columns = ("operation", "reason", "calls", "the oldest since")
    cells = [tuple(str(value) for value in row.values()) for row in _rows(kinds)]
    output.console.print(output.table(f"{total} calls would be taken up", columns, cells))
    names = ("call", "operation", "reason", "parked", "since")
    cells = [tuple(str(value) for value in row.values()) for row in _rows(oldest)]
    output.console.print(output.table("the oldest of them", names, cells))
    return Exit.COMPLETED


def _rows(found: list[ParkedCount] | list[ParkedCall]) -> list[dict[str, Any]]:
    return [
        {
            name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
            for name, value in vars(one).items()
        }
        for one in found
    ]


async def _all(found: list[BatchHandle]) -> list[BatchProgress]:
    return list(await asyncio.gather(*(batch.progress() for batch in found)))


async def _follow(batch: BatchHandle) -> BatchProgress:
    seen = await batch.progress()
    with Live(bars([seen]), console=output.console, transient=True) as live:
        while not seen.state.is_final:
            await asyncio.sleep(WATCH_EVERY)
            seen = await batch.progress()
            live.update(bars([seen]))
    return seen


def _steer(batch_id: str, act: Callable[[BatchHandle], Awaitable[None]], json_output: bool) -> int:
    async def steer(calls: AckbridgeClient) -> BatchProgress:
        batch = calls.batch(batch_id)
        await act(batch)
        return await batch.progress()

    _print([with_client(steer)], json_output)
    return Exit.COMPLETED


def _print(seen: list[BatchProgress], json_output: bool) -> int:
    if json_output:
        output.as_json([one.model_dump(mode="json") for one in seen])
    elif seen:
        output.console.print(bars(seen))
    else:
        output.console.print("There are no batches.")
    is_over = all(one.state is not BatchState.RUNNING for one in seen)
    if len(seen) == 1 and not is_over and not json_output:
        output.console.print(f"Under way: ackbridge batch status {seen[0].batch} --watch")
    return Exit.COMPLETED
