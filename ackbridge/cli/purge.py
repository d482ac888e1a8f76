"""purge: what is over and old leaves the ledger, now."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Annotated

import typer

from ackbridge.client.purge import start_purge
from ackbridge.contracts.purge import (
    KEEP_FOREVER,
    PurgeCursor,
    PurgeProgress,
    PurgeRequest,
    Retention,
)
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import environment, load_settings
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import By, Json
from .ledger import with_ledger


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(exits_with_its_answer(purge))


def purge(
    by: By,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would go.")] = False,
    json_output: Json = False,
) -> int:
    """Delete from the ledger what is over and older than `ACKBRIDGE_RETENTION_*` say.

    Workers do so by themselves, every `ACKBRIDGE_PURGE_EVERY`; this does it now and waits.
    """
    retention = load_settings().retention
    if dry_run:
        gone = with_ledger(lambda ledger: _count(ledger, retention))
        return _print("would go", retention, gone, json_output)
    request = PurgeRequest(retention=retention, by=by)

    return _print("gone", retention, asyncio.run(_clean(request)).gone, json_output)


async def _clean(request: PurgeRequest) -> PurgeProgress:
    purging = await start_purge(await connect(environment()), request)
    return await purging.result()


async def _count(ledger: Ledger, retention: Retention) -> dict[str, int]:
    gone: Counter[str] = Counter()
    place: PurgeCursor | None = None
    as_of = None
    while as_of is None or place is not None:
        page = await ledger.purge.page(retention, as_of, place, dry_run=True)
        as_of, place = page.as_of, page.place
        gone.update(page.gone)
    return dict(gone)


def _print(title: str, retention: Retention, gone: dict[str, int], json_output: bool) -> int:
    if json_output:
        output.as_json({kind: gone.get(kind, 0) for kind in dict(retention)})
    else:
        cells = [
            (kind.replace("_", " "), _span(kept), str(gone.get(kind, 0)))
            for kind, kept in dict(retention).items()
        ]
        output.console.print(output.table("the ledger", ("what", "kept", title), cells))
    return Exit.COMPLETED


def _span(kept: timedelta) -> str:
    return "for ever" if kept == KEEP_FOREVER else f"{kept / timedelta(days=1):g} days"
