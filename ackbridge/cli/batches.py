"""reprocess, batches, batch: reprocessing of parked calls."""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, time, timedelta
from typing import Annotated, Any

import typer

from ackbridge.client.batches import BatchHandle
from ackbridge.client.calls import AckbridgeClient
from ackbridge.contracts import names
from ackbridge.contracts.batches import BatchProgress, BatchRequest, BatchState, ParkedSelection
from ackbridge.contracts.calls import OutcomeCode
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import unknown_name
from ackbridge.ledger.batches import ParkedCall, ParkedCount
from ackbridge.ledger.ledger import Ledger
from ackbridge.terminal import output

from .calls import signal_call
from .connections import with_client, with_ledger
from .options import By, Json, Limit, OnlyProvider, Watch, parse_duration

Act = Callable[[BatchHandle], Awaitable[None]]
BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded in the batch's history.")]

STARTS_WITHIN = timedelta(seconds=5)
"""How long a new batch is given to count its calls before its progress is shown."""

DRY_RUN_CALLS = 10
"""How many of the oldest calls `--dry-run` lists."""

OLDEST_COLUMNS = ("call", "operation", "code", "parked", "since", "failed alone")


def reprocess(
    which: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER|CALL_ID",
            help="The provider whose parked calls are reprocessed, or the id of one call.",
        ),
    ],
    by: By,
    operation: Annotated[str | None, typer.Option(help="Only calls of this operation.")] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(help="Only calls parked with this code, as `no_response`; may be repeated."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only calls parked for at least this long: `30m`, `2h`.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Only the call with this key; may be repeated.")
    ] = None,
    at_most: Annotated[
        int | None, typer.Option(min=1, help="At most this many calls, oldest first.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Calls per second.")] = 5.0,
    concurrency: Annotated[int, typer.Option(help="Calls in progress at the same time.")] = 20,
    at: Annotated[
        str | None, typer.Option(help="When to start: `02:00` in local time, or an ISO 8601 time.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which calls would be reprocessed.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; recorded in the history.")] = None,
    watch: Watch = False,
    json_output: Json = False,
) -> int | None:
    """Reprocess parked calls: send them again, and wait for their responses.

    A batch takes each call once, oldest first, at a limited rate. It waits while the provider is
    switched off or its breaker is open. One call, by its id, is resumed at once and without a
    batch; it takes `--reason` only.
    """
    selection = {
        "operation": operation,
        "reason": _known_codes(code or ()) or None,
        "older_than": older_than and parse_duration("older-than", older_than).total_seconds(),
        "keys": key or (),
        "at_most": at_most,
    }
    if "." in which:
        if dry_run or at or any(selection.values()):
            raise InvalidInputError("CALL_ID: it is one call; options that select are for batches")
        return signal_call(
            which,
            names.REPROCESS,
            by,
            lambda call: call.reprocess(by=by, reason=reason),
            json_output,
        )
    fields = {
        "selection": {"provider": which, **selection},
        "rate": rate,
        "concurrency": concurrency,
        "not_before": at and parse_start(at, datetime.now().astimezone()),
        "by": by,
        "reason": reason,
    }
    request = parse_argument(BatchRequest, (fields,))
    if dry_run:
        _print_selection(request.selection, json_output)
        return None

    async def start(client: AckbridgeClient) -> BatchProgress:
        batch = await client.reprocess_parked(request)
        started = await _started(batch)
        return await _progress(batch, watch) if watch else started

    _print([with_client(start, waits_by_itself=watch)], json_output)
    return None


def list_batches(
    provider: OnlyProvider = None,
    watch: Watch = False,
    limit: Limit = 20,
    json_output: Json = False,
) -> None:
    """List batches with their progress, newest first."""

    async def fetch(client: AckbridgeClient) -> list[BatchProgress]:
        async def all_progress() -> list[BatchProgress]:
            found = [batch async for batch in client.batches(provider, limit)]
            return list(await asyncio.gather(*(batch.progress() for batch in found)))

        if not watch:
            return await all_progress()
        return await output.watch(
            all_progress,
            output.batch_table,
            lambda batches: all(batch.state.is_final for batch in batches),
        )

    _print(with_client(fetch, waits_by_itself=watch), json_output)


def status(batch_id: BatchId, watch: Watch = False, json_output: Json = False) -> None:
    """Show the progress of a batch."""
    progress = with_client(
        lambda client: _progress(client.batch(batch_id), watch), waits_by_itself=watch
    )
    _print([progress], json_output)


def pause(batch_id: BatchId, reason: Reason, by: By, json_output: Json = False) -> None:
    """Take no more calls until the batch is resumed; calls in progress continue."""
    _signal(batch_id, lambda batch: batch.pause(by=by, reason=reason), json_output)


def resume(batch_id: BatchId, reason: Reason, by: By, json_output: Json = False) -> None:
    """Resume a paused batch."""
    _signal(batch_id, lambda batch: batch.resume(by=by, reason=reason), json_output)


def stop(batch_id: BatchId, reason: Reason, by: By, json_output: Json = False) -> None:
    """Stop a batch. Calls that it has not signalled yet stay parked."""
    _signal(batch_id, lambda batch: batch.stop(by=by, reason=reason), json_output)


def _known_codes(codes: Sequence[str]) -> Sequence[str]:
    known = [code.value for code in OutcomeCode]
    for code in codes:
        if code not in known:
            raise InvalidInputError(f"--code: {unknown_name('code', code, known)}")
    return codes


def parse_start(text: str, now: datetime) -> datetime:
    """Parse `02:00`, which is its next occurrence, or an ISO 8601 time.

    Args:
        now: aware; a time without a zone is in its zone.

    Raises:
        InvalidInputError: names the option.
    """
    try:
        if "-" in text:
            start = datetime.fromisoformat(text)
            return start if start.tzinfo else start.replace(tzinfo=now.tzinfo)
        today = datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
    except ValueError:
        raise InvalidInputError(
            "--at: neither a time such as 02:00 nor an ISO 8601 date and time"
        ) from None
    return today if today > now else today + timedelta(days=1)


def _print_selection(selection: ParkedSelection, json_output: bool) -> None:
    async def fetch(ledger: Ledger) -> tuple[list[ParkedCount], list[ParkedCall]]:
        limit = min(selection.at_most or DRY_RUN_CALLS, DRY_RUN_CALLS)
        return await ledger.batches.count_parked(selection), await ledger.batches.parked(
            selection, limit
        )

    counts, calls = with_ledger(fetch)
    total = sum(count.calls for count in counts)
    total = min(total, selection.at_most or total)
    kinds, oldest = [_row(count) for count in counts], [_row(call) for call in calls]
    if json_output:
        output.print_json({"total": total, "kinds": kinds, "oldest": oldest})
        return
    title = f"{output.counted(total, 'call')} would be reprocessed"
    if not total:
        output.say(title)
        return
    output.print_rows(kinds, title, ("operation", "code", "calls", "oldest"), as_json=False)
    output.print_rows(oldest, "the oldest calls", OLDEST_COLUMNS, as_json=False)


def _row(found: ParkedCount | ParkedCall) -> dict[str, Any]:
    return {
        name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
        for name, value in vars(found).items()
    }


async def _started(batch: BatchHandle) -> BatchProgress:
    """The progress once the batch has counted its calls, or waits for its start."""
    until = clock.monotonic() + STARTS_WITHIN.total_seconds()
    progress = await batch.progress()
    while progress.total is None and not progress.why and clock.monotonic() < until:
        await asyncio.sleep(output.WATCH_INTERVAL / 2)
        progress = await batch.progress()
    return progress


async def _progress(batch: BatchHandle, watch: bool) -> BatchProgress:
    if not watch:
        return await batch.progress()
    return await output.watch(
        batch.progress,
        lambda progress: output.batch_table([progress]),
        lambda progress: progress.state.is_final,
    )


def _signal(batch_id: str, act: Act, json_output: bool) -> None:
    async def signal(client: AckbridgeClient) -> BatchProgress:
        batch = client.batch(batch_id)
        await act(batch)
        return await batch.progress()

    _print([with_client(signal)], json_output)


def _print(batches: list[BatchProgress], json_output: bool) -> None:
    if json_output:
        output.print_json([batch.model_dump(mode="json") for batch in batches])
        return
    output.console.print(output.batch_table(batches) if batches else "There are no batches.")
    if len(batches) == 1 and batches[0].state is BatchState.RUNNING:
        output.say(f"Running: ackbridge batch status {batches[0].batch} --watch")
