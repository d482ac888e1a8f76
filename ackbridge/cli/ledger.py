"""owed, held, purge: the ledger itself, whether or not a worker runs."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.client.purge import start_purge
from ackbridge.contracts.purge import (
    KEEP_FOREVER,
    PurgeCursor,
    PurgeProgress,
    PurgeRequest,
    Retention,
)
from ackbridge.ledger.calls import OwedAcknowledgement
from ackbridge.ledger.inbox import StoredEntry
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import load_settings
from ackbridge.terminal import output

from .connections import with_ledger, with_temporal
from .options import By, Json, Limit, OnlyProvider

MESSAGE_SHOWN = 300
"""Characters of a message that the table shows; `--json` has all of it."""


def owed(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List pending acknowledgements: those that providers have not accepted yet, oldest first."""
    rows = [
        _owed_row(one) for one in with_ledger(lambda ledger: ledger.calls.owed(provider, limit))
    ]
    columns = ("call", "cycle", "acknowledgement", "since", "last error")
    output.print_rows(rows, f"{len(rows)} acknowledgements owed", columns, as_json=json_output)


def held(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List messages that no call has accepted and that need a person, oldest first.

    The content of one can be given to a call that is still open: `ackbridge force-ack`.
    """
    rows = [
        _held_row(one) for one in with_ledger(lambda ledger: ledger.inbox.held(provider, limit))
    ]
    title = f"{len(rows)} messages held"
    columns = ("provider", "event", "call", "reference", "since", "reason", "message")
    output.print_rows(rows, title, columns, as_json=json_output, longest=MESSAGE_SHOWN)


def purge(
    by: By,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how much would be deleted.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Delete ledger rows of ended calls that are older than `ACKBRIDGE_RETENTION_*`.

    Workers do this every `ACKBRIDGE_PURGE_EVERY`; this command does it now, and waits for the end.
    """
    retention = load_settings().retention
    if dry_run:
        title = "would be deleted"
        deleted = dict(with_ledger(lambda ledger: _count(ledger, retention)))
    else:
        title = "deleted"
        request = PurgeRequest(retention=retention, by=by)
        deleted = with_temporal(lambda client: _purge(client, request)).gone
    if json_output:
        output.print_json({kind: deleted.get(kind, 0) for kind in dict(retention)})
        return
    rows = [
        (kind.replace("_", " "), _retention(kept), str(deleted.get(kind, 0)))
        for kind, kept in dict(retention).items()
    ]
    output.console.print(output.table("the ledger", ("rows", "kept", title), rows))


async def _purge(client: Client, request: PurgeRequest) -> PurgeProgress:
    return await (await start_purge(client, request)).result()


async def _count(ledger: Ledger, retention: Retention) -> Counter[str]:
    deleted: Counter[str] = Counter()
    place: PurgeCursor | None = None
    as_of = None
    while as_of is None or place is not None:
        page = await ledger.purge.page(retention, as_of, place, dry_run=True)
        as_of, place = page.as_of, page.place
        deleted.update(page.gone)
    return deleted


def _retention(kept: timedelta) -> str:
    return "forever" if kept == KEEP_FOREVER else f"{kept / timedelta(days=1):g} days"


def _owed_row(owed: OwedAcknowledgement) -> dict[str, Any]:
    return {
        "call_id": owed.call_id,
        "cycle": owed.cycle,
        "kind": str(owed.kind),
        "owed_at": owed.owed_at.isoformat(timespec="seconds"),
        "reason": owed.reason or "",
    }


def _held_row(held: StoredEntry) -> dict[str, Any]:
    entry = held.entry
    content = entry.message.model_dump(mode="json") if entry.message else entry.document
    return {
        "provider": entry.provider,
        "event_key": entry.event_key,
        "call_id": entry.call_id or "",
        "reference": entry.reference or "",
        "held_at": held.settled_at and held.settled_at.isoformat(timespec="seconds"),
        "reason": held.reason or "",
        "message": json.dumps(content, ensure_ascii=False),
    }
