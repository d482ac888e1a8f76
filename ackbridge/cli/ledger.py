"""owed, held: what the ledger keeps for people, whether or not a worker can be asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from ackbridge.clock import utc_now
from ackbridge.ledger.calls import OwedAcknowledgement
from ackbridge.ledger.inbox import HeldEntry
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import load_settings
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import Json

T = TypeVar("T")
Provider = Annotated[str | None, typer.Argument(help="Only this provider's.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at the most.")]
LONGEST_SHOWN = 300
"""Characters of a message that a table shows; `--json` has it whole."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exits_with_its_answer(owed))
    app.command()(exits_with_its_answer(held))


def owed(provider: Provider = None, limit: Limit = 100, json_output: Json = False) -> int:
    """List the acknowledgements that providers have not accepted yet, the oldest first."""
    found = with_ledger(lambda ledger: ledger.calls.owed(provider, limit))
    if json_output:
        output.as_json([_owed(one) for one in found])
    else:
        cells = [tuple(str(value) for value in _owed(one).values()) for one in found]
        columns = ("call", "cycle", "acknowledgement", "since", "last trouble")
        output.console.print(output.table(f"{len(found)} acknowledgements owed", columns, cells))
    return Exit.COMPLETED


def held(provider: Provider = None, limit: Limit = 100, json_output: Json = False) -> int:
    """List the messages that no call has taken and that are kept for people, the oldest first.

    What one of them says can be given to a call that is still open: `ackbridge force-ack`.
    """
    found = with_ledger(lambda ledger: ledger.inbox.held(provider, limit))
    if json_output:
        output.as_json([_held(one) for one in found])
    else:
        cells = [
            tuple(str(value)[:LONGEST_SHOWN] for value in _held(one).values()) for one in found
        ]
        columns = ("provider", "event", "call", "reference", "since", "why", "message")
        output.console.print(output.table(f"{len(found)} messages held", columns, cells))
    return Exit.COMPLETED


def _owed(one: OwedAcknowledgement) -> dict[str, Any]:
    return {
        "call_id": one.call_id,
        "cycle": one.cycle,
        "kind": str(one.kind),
        "owed_at": one.owed_at.isoformat(timespec="seconds"),
        "reason": one.reason or "",
    }


def _held(one: HeldEntry) -> dict[str, Any]:
    entry = one.entry
    said = entry.message.model_dump(mode="json") if entry.message else entry.document
    return {
        "provider": entry.provider,
        "event_key": entry.event_key,
        "call_id": entry.call_id or "",
        "reference": entry.reference or "",
        "held_at": one.held_at.isoformat(timespec="seconds"),
        "reason": one.reason or "",
        "message": json.dumps(said, ensure_ascii=False),
    }


def with_ledger(act: Callable[[Ledger], Coroutine[Any, Any, T]]) -> T:
    """Open the ledger that the settings name, and do something."""

    async def run() -> T:
        ledger = Ledger.open(load_settings().ledger_url, utc_now)
        try:
            return await act(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())
