"""owed, held, inbox, unknown: what needs an operator, and settling it.

The lists read the ledger, whether or not a worker runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import Integration
from ackbridge.client.operator_requests import Stated, not_held, shown_content
from ackbridge.client.operator_requests import apply_held as apply_message
from ackbridge.client.operator_requests import resolve as state_effect
from ackbridge.client.operator_requests import write_off as give_up_owed
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import Effect
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import (
    AckbridgeError,
)
from ackbridge.ledger.calls import OwedAcknowledgement
from ackbridge.ledger.inbox import InboxState, StoredEntry
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.settlement import UnknownCall, UnknownTotal
from ackbridge.settings import environment, integrations_folder, load_settings
from ackbridge.terminal import output

from .calls import CallId, print_status
from .connections import opened_ledger, record_command, with_ledger, with_temporal
from .options import By, Json, Limit, OnlyProvider, read_json

ENTRY_COLUMNS = [
    "id",
    "state",
    "provider",
    "event",
    "call",
    "reference",
    "since",
    "reason",
    "message",
]

MESSAGE_SHOWN = 300
"""Characters of a message that the table shows; `--json` has all of it."""

Reason = Annotated[str, typer.Option(help="Why; recorded with who did it.")]
HeldId = Annotated[int, typer.Argument(metavar="ID", help="The id in `ackbridge held`.")]


class StatedEffect(StrEnum):
    """What an operator may state about the provider's side."""

    DONE = "done"
    NONE = "none"


class InboxFilter(StrEnum):
    """The states of inbox entries, and all of them."""

    UNCLASSIFIED = "unclassified"
    PENDING = "pending"
    HELD = "held"
    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    DISCARDED = "discarded"
    ALL = "all"


def resolve(
    call_id: CallId,
    as_: Annotated[
        StatedEffect, typer.Option("--as", help="What happened at the provider: the work, or none.")
    ],
    reason: Reason,
    by: By,
    response: Annotated[
        str, typer.Option(help="With `--as done`, the response: JSON, `@file` or `-`.")
    ] = "null",
    json_output: Json = False,
) -> None:
    """State what happened at the provider, for a call that does not know.

    `done` completes the call; `none` says that nothing took effect. A call that has ended is
    settled by a workflow of its own, `settle.ID`.
    """
    fields = {"as": as_.value, "by": by, "reason": reason}
    fields["response"] = read_json("response", response)
    request = parse_argument(SettleRequest, ({"call_id": call_id, **fields},))
    effect = Effect(as_.value)
    _print_stated(with_temporal(lambda client: state_effect(client, request, effect)), json_output)


def list_owed(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List pending acknowledgements: those that providers have not accepted yet, oldest first."""
    rows = [
        _owed_row(one) for one in with_ledger(lambda ledger: ledger.calls.owed(provider, limit))
    ]
    columns = ("call", "cycle", "acknowledgement", "since", "refused", "last error")
    output.print_rows(
        rows, f"{output.counted(len(rows), 'acknowledgement')} owed", columns, as_json=json_output
    )


def write_off(
    call_id: Annotated[str, typer.Argument(metavar="CALL", help="The call id.")],
    cycle: Annotated[int, typer.Option(min=1, help="The cycle in `ackbridge owed`.")],
    reason: Reason,
    by: By,
    kind: Annotated[
        AcknowledgementKind | None,
        typer.Option(help="Which one, if both kinds are owed for the cycle."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Give up an acknowledgement that the provider will never accept; it is no longer sent."""

    async def give_up(client: Client) -> Stated:
        async with opened_ledger() as ledger:
            return await give_up_owed(client, ledger, call_id, cycle, kind, by=by, reason=reason)

    with _hint("ackbridge owed"):
        _print_stated(with_temporal(give_up), json_output)


def list_held(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List messages that no call has accepted and that need a person, oldest first."""
    integrations = _integrations()
    rows = [
        _entry_row(one, integrations)
        for one in with_ledger(lambda ledger: ledger.inbox.held(provider, limit))
    ]
    title = f"{output.counted(len(rows), 'message')} held"
    output.print_rows(rows, title, ENTRY_COLUMNS, as_json=json_output, longest=MESSAGE_SHOWN)


def apply_held(
    held_id: HeldId,
    reason: Reason,
    by: By,
    call_id: Annotated[
        str | None,
        typer.Option("--call", metavar="CALL", help="Its call, if the message names none."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Apply a held message to its call: a response completes it, a failure says effect none."""

    async def apply(client: Client) -> Stated:
        async with opened_ledger() as ledger:
            return await apply_message(client, ledger, held_id, call_id, by=by, reason=reason)

    with _hint("ackbridge held"):
        _print_stated(with_temporal(apply), json_output)


def discard_held(held_id: HeldId, reason: Reason, by: By, json_output: Json = False) -> None:
    """Discard a held message; it is kept until `ACKBRIDGE_RETENTION_INBOX` ends."""

    async def discard(ledger: Ledger) -> bool:
        if await ledger.inbox.held_entry(held_id) is None:
            return False
        await record_command(ledger, "discard_held", str(held_id), by, reason)
        return await ledger.inbox.discard_held(held_id, by, reason)

    if not with_ledger(discard):
        raise InvalidInputError(f"{not_held(held_id)}; see: ackbridge held")
    if json_output:
        output.print_json({"id": held_id, "discarded": True})
    else:
        output.say(f"message {held_id}: discarded by {by}")


def list_inbox(
    provider: OnlyProvider = None,
    state: Annotated[
        InboxFilter, typer.Option(help="Only messages in this state.")
    ] = InboxFilter.UNCLASSIFIED,
    limit: Limit = 100,
    json_output: Json = False,
) -> None:
    """List messages in the inbox, oldest first: by default those that no rule has classified."""
    integrations = _integrations()
    wanted = None if state is InboxFilter.ALL else InboxState(state.value)
    rows = [
        _entry_row(one, integrations)
        for one in with_ledger(lambda ledger: ledger.inbox.entries(provider, wanted, limit))
    ]
    title = " ".join(filter(None, (output.counted(len(rows), "message"), wanted)))
    output.print_rows(rows, title, ENTRY_COLUMNS, as_json=json_output, longest=MESSAGE_SHOWN)


def replay_inbox(
    reason: Reason,
    by: By,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID", help="The ids in `ackbridge inbox list`.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Every unclassified message of this provider.")
    ] = None,
    limit: Limit = 1000,
    json_output: Json = False,
) -> None:
    """Classify and deliver messages again, for example with a corrected integration file.

    The gateways do so with the file that they have loaded: restart them with the new one first.
    """
    if (not ids) is (provider is None):
        raise InvalidInputError("replay: give either IDs or --provider")

    async def replay(ledger: Ledger) -> list[int]:
        wanted = ids or []
        if provider is not None:
            state = InboxState.UNCLASSIFIED
            wanted = [one.id for one in await ledger.inbox.entries(provider, state, limit)]
        ids_text = ", ".join(map(str, wanted))
        await record_command(ledger, "replay_inbox", ids_text, by, reason)
        return await ledger.inbox.replay(wanted, by, reason)

    replayed = with_ledger(replay)
    if json_output:
        output.print_json(replayed)
    else:
        what = output.counted(len(replayed), "message")
        output.say(f"to be classified and delivered again: {what}")
    missing = sorted(set(ids or ()) - set(replayed))
    if missing:
        raise InvalidInputError(
            f"ID: neither unclassified nor held: {', '.join(map(str, missing))};"
            " see: ackbridge inbox list"
        )


def list_unknown(
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    limit: Limit = 100,
    json_output: Json = False,
) -> None:
    """List calls whose effect is unknown now, by provider and age, with the sum of their amounts.

    The amount is what the operation's `sum` names. `ackbridge resolve` settles a call.
    """

    async def fetch(ledger: Ledger) -> tuple[list[UnknownTotal], list[UnknownCall]]:
        totals = await ledger.settlement.unknown_totals(provider)
        return totals, await ledger.settlement.unknown(provider, limit)

    totals, calls = with_ledger(fetch)
    total_rows = [_total_row(total) for total in totals]
    rows = [_unknown_row(call) for call in calls]
    if json_output:
        output.print_json({"providers": total_rows, "calls": rows})
        return
    title = f"{output.counted(sum(total.calls for total in totals), 'call')} with unknown effect"
    output.print_rows(total_rows, title, ("provider", "calls", "oldest", "sum"), as_json=False)
    if rows:
        columns = ("call", "provider", "stage", "code", "since", "age", "amount")
        output.print_rows(rows, f"\nthe oldest, at most {limit}", columns, as_json=False)


def _print_stated(stated: Stated, json_output: bool) -> None:
    if stated.status is not None:
        print_status(stated.status, json_output)


@contextmanager
def _hint(command: str) -> Iterator[None]:
    """Say which command lists what can be meant."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; see: {command}") from None


def _owed_row(owed: OwedAcknowledgement) -> dict[str, Any]:
    return {
        "call_id": owed.call_id,
        "cycle": owed.cycle,
        "kind": str(owed.kind),
        "owed_at": _at(owed.owed_at),
        "refused": owed.refused,
        "reason": owed.reason or "",
    }


def _integrations() -> Mapping[str, Integration]:
    """The integrations that say what is sensitive; none if their files cannot be read."""
    try:
        folder = integrations_folder(load_settings().integrations)
        return load_catalog(folder, environment()).integrations
    except AckbridgeError:
        return {}


def _entry_row(stored: StoredEntry, integrations: Mapping[str, Integration]) -> dict[str, Any]:
    entry = stored.entry
    return {
        "id": stored.id,
        "state": str(stored.state),
        "provider": entry.provider,
        "event_key": entry.event_key,
        "call_id": entry.call_id or "",
        "reference": entry.reference or "",
        "held_at": _at(stored.settled_at or entry.received_at),
        "reason": stored.reason or "",
        "message": json.dumps(shown_content(entry, integrations), ensure_ascii=False),
    }


def _total_row(total: UnknownTotal) -> dict[str, Any]:
    return {
        "provider": total.provider,
        "calls": total.calls,
        "oldest": _at(total.since),
        "sum": None if total.amount is None else str(total.amount),
    }


def _unknown_row(call: UnknownCall) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "provider": call.provider,
        "stage": str(call.stage),
        "code": call.code,
        "since": _at(call.since),
        "age": output.age(utc_now() - call.since),
        "amount": call.amount,
    }


def _at(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
