"""purge: delete what has expired from the ledger."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Annotated

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
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import load_settings
from ackbridge.terminal import output

from .connections import with_ledger, with_temporal
from .options import By, Json


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
