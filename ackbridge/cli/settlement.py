"""owed, held, inbox, unknown: what needs an operator, and settling it.

The lists read the ledger, whether or not a worker runs.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.catalog.catalog import sensitive_fields
from ackbridge.catalog.loading import load_catalog
from ackbridge.catalog.model import Integration
from ackbridge.client.calls import AckbridgeClient, Call, status_of
from ackbridge.client.settlement import settle
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallStatus, Effect, masked_answer
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import (
    AckbridgeError,
    CallEndedError,
    CallNotFoundError,
    InvalidRequestError,
)
from ackbridge.ledger.calls import OwedAcknowledgement
from ackbridge.ledger.inbox import InboxState, StoredEntry
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.settlement import UnknownCall, UnknownTotal
from ackbridge.settings import environment, integrations_folder, load_settings
from ackbridge.terminal import output

from .calls import CallId, print_status
from .connections import record_command, with_ledger, with_temporal
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

ALL_OWED = 100_000
"""At most so many acknowledgements of a provider are searched for those of a call."""

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

    async def signal(call: Call) -> None:
        await call.resolve(Effect(as_.value), by=by, reason=reason, response=request.response)

    _settle(request, signal, json_output)


def list_owed(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List pending acknowledgements: those that providers have not accepted yet, oldest first."""
    rows = [
        _owed_row(one) for one in with_ledger(lambda ledger: ledger.calls.owed(provider, limit))
    ]
    columns = ("call", "cycle", "acknowledgement", "since", "refused", "last error")
    output.print_rows(rows, f"{len(rows)} acknowledgements owed", columns, as_json=json_output)


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
    provider, _, _ = call_id.partition(".")
    owed = [
        one
        for one in with_ledger(lambda ledger: ledger.calls.owed(provider, ALL_OWED))
        if (one.call_id, one.cycle) == (call_id, cycle) and kind in (None, one.kind)
    ]
    if len(owed) != 1:
        found = "both kinds are owed; give --kind" if owed else "none is owed"
        raise InvalidInputError(f"{call_id}, cycle {cycle}: {found}; see: ackbridge owed")
    which = {"cycle": cycle, "kind": owed[0].kind.value}
    fields = {"call_id": call_id, "by": by, "reason": reason, "write_off": which}
    request = parse_argument(SettleRequest, (fields,))
    _settle(request, lambda call: call.write_off(cycle, by=by, reason=reason), json_output)


def list_held(provider: OnlyProvider = None, limit: Limit = 100, json_output: Json = False) -> None:
    """List messages that no call has accepted and that need a person, oldest first."""
    integrations = _integrations()
    rows = [
        _entry_row(one, integrations)
        for one in with_ledger(lambda ledger: ledger.inbox.held(provider, limit))
    ]
    title = f"{len(rows)} messages held"
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
    stored = _find_held(held_id)
    owner = stored.entry.call_id or call_id
    if owner is None:
        raise InvalidInputError(f"message {held_id} names no call; give --call")
    if call_id not in (None, owner):
        raise InvalidInputError(f"--call: message {held_id} is for {owner}")
    message = stored.entry.message
    if message is None or message.kind not in (MessageKind.RESPONSE, MessageKind.FAILURE):
        raise InvalidInputError(
            f"message {held_id} says neither success nor failure; use: ackbridge resolve"
        )
    fields = {"call_id": owner, "by": by, "reason": reason, "held_id": held_id}
    request = parse_argument(SettleRequest, (fields,))
    has_signalled = _settle(
        request, lambda call: _resolve_as(call, message, by=by, reason=reason), json_output
    )
    if has_signalled:
        why = f"applied by {by}: {reason}"
        with_ledger(lambda ledger: ledger.inbox.settle([held_id], InboxState.DELIVERED, why))


def discard_held(held_id: HeldId, reason: Reason, by: By, json_output: Json = False) -> None:
    """Discard a held message; it is kept until `ACKBRIDGE_RETENTION_INBOX` ends."""
    _find_held(held_id)

    async def discard(ledger: Ledger) -> bool:
        await record_command(ledger, "discard_held", str(held_id), by, reason)
        return await ledger.inbox.discard_held(held_id, by, reason)

    if not with_ledger(discard):
        raise InvalidInputError(_not_held(held_id))
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
    title = f"{len(rows)} messages" if wanted is None else f"{len(rows)} messages {wanted}"
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
        output.say(f"{len(replayed)} messages are classified and delivered again")
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
    title = f"{sum(total.calls for total in totals)} calls with unknown effect"
    output.print_rows(total_rows, title, ("provider", "calls", "oldest", "sum"), as_json=False)
    if rows:
        columns = ("call", "provider", "stage", "code", "since", "age", "amount")
        output.print_rows(rows, f"\nthe {len(rows)} oldest", columns, as_json=False)


def _settle(
    request: SettleRequest, signal: Callable[[Call], Awaitable[None]], json_output: bool
) -> bool:
    """Signal an open call, or settle one that has ended, and print its status.

    Returns:
        Whether the call was open.
    """

    async def act(client: Client) -> tuple[CallStatus | None, bool]:
        call = AckbridgeClient(client).call(request.call_id)
        try:
            await signal(call)
        except (CallEndedError, CallNotFoundError):
            outcome = await settle(client, request)
            return (status_of(outcome) if outcome else None), False
        status = await call.status()
        _raise_if_rejected(status, request)
        return status, True

    status, was_open = with_temporal(act)
    if status is not None:
        print_status(status, json_output)
    return was_open


def _raise_if_rejected(status: CallStatus, request: SettleRequest) -> None:
    """An open call reports a request that it rejects as its last error."""
    signal = names.RESOLVE if request.write_off is None else names.WRITE_OFF
    is_settled = status.outcome is not None and status.outcome.settled is not None
    error = status.last_error or ""
    if error.startswith(f"{signal} by {request.by}:") and not is_settled:
        raise InvalidRequestError(f"{request.call_id}: {error}")


async def _resolve_as(call: Call, message: ProviderMessage, *, by: str, reason: str) -> None:
    is_done = message.kind is MessageKind.RESPONSE
    effect = Effect.DONE if is_done else Effect.NONE
    await call.resolve(effect, by=by, reason=reason, response=message.data if is_done else None)


def _find_held(held_id: int) -> StoredEntry:
    stored = with_ledger(lambda ledger: ledger.inbox.held_entry(held_id))
    if stored is None:
        raise InvalidInputError(_not_held(held_id))
    return stored


def _not_held(held_id: int) -> str:
    return f"no message {held_id} is held; see: ackbridge held"


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
    entry, integration = stored.entry, integrations.get(stored.entry.provider)
    content = entry.document
    if entry.message is not None:
        content = entry.message.masked().model_dump(mode="json", exclude={"sensitive"})
    elif integration is not None:
        content = masked_answer(content, sensitive_fields(integration))
    return {
        "id": stored.id,
        "state": str(stored.state),
        "provider": entry.provider,
        "event_key": entry.event_key,
        "call_id": entry.call_id or "",
        "reference": entry.reference or "",
        "held_at": _at(stored.settled_at or entry.received_at),
        "reason": stored.reason or "",
        "message": json.dumps(content, ensure_ascii=False),
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
