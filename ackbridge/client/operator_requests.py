"""What operators state about calls and messages: by signal, or by `SettleCall` after the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from temporalio.client import Client

from ackbridge.catalog.catalog import sensitive_fields
from ackbridge.catalog.model import Integration
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallStatus, Effect, masked_answer
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import CallEndedError, CallNotFoundError, InvalidRequestError
from ackbridge.ledger.inbox import InboxEntry, InboxState
from ackbridge.ledger.ledger import Ledger

from .calls import AckbridgeClient, Call, status_of
from .settlement import settle

ALL_OWED: Final = 100_000
"""At most so many acknowledgements of a provider are searched for those of a call."""

SignalCall = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Stated:
    """What became of a request.

    Attributes:
        status: of the call; None for one that has no outcome yet.
        was_open: whether the call was open, and got a signal.
    """

    status: CallStatus | None
    was_open: bool


async def state_about_call(client: Client, request: SettleRequest, signal: SignalCall) -> Stated:
    """Signal an open call, or settle one that has ended.

    Raises:
        InvalidRequestError: the call has rejected it; the message says why.
        CallError: the call is being settled by somebody else at this moment.
        EngineUnavailableError: the engine does not answer, or no worker does.
    """
    call = AckbridgeClient(client).call(request.call_id)
    try:
        await signal(call)
    except (CallEndedError, CallNotFoundError):
        outcome = await settle(client, request)
        return Stated(status_of(outcome) if outcome else None, was_open=False)
    status = await call.status()
    _raise_if_rejected(status, request)
    return Stated(status, was_open=True)


async def resolve(client: Client, request: SettleRequest, effect: Effect) -> Stated:
    """State what happened at the provider; raises as `state_about_call`."""

    async def signal(call: Call) -> None:
        await call.resolve(effect, by=request.by, reason=request.reason, response=request.response)

    return await state_about_call(client, request, signal)


async def write_off(
    client: Client,
    ledger: Ledger,
    call_id: str,
    cycle: int,
    kind: AcknowledgementKind | None,
    *,
    by: str,
    reason: str,
) -> Stated:
    """Give up an acknowledgement that is owed; raises as `state_about_call`.

    Args:
        kind: which one, if both kinds are owed for the cycle.

    Raises:
        InvalidInputError: none is owed, or both kinds are.
    """
    provider, _, _ = call_id.partition(".")
    owed = [
        one
        for one in await ledger.calls.owed(provider, ALL_OWED)
        if (one.call_id, one.cycle) == (call_id, cycle) and kind in (None, one.kind)
    ]
    if len(owed) != 1:
        found = "both kinds are owed; say which kind" if owed else "none is owed"
        raise InvalidInputError(f"{call_id}, cycle {cycle}: {found}")
    which = {"cycle": cycle, "kind": owed[0].kind.value}
    fields = {"call_id": call_id, "by": by, "reason": reason, "write_off": which}
    request = parse_argument(SettleRequest, (fields,))
    return await state_about_call(
        client, request, lambda call: call.write_off(cycle, by=by, reason=reason)
    )


async def apply_held(
    client: Client, ledger: Ledger, held_id: int, call_id: str | None, *, by: str, reason: str
) -> Stated:
    """Apply a held message to its call; raises as `state_about_call`.

    Args:
        call_id: its call, if the message names none.

    Raises:
        InvalidInputError: no such message is held, or it cannot be applied to that call.
    """
    stored = await ledger.inbox.held_entry(held_id)
    if stored is None:
        raise InvalidInputError(not_held(held_id))
    owner = stored.entry.call_id or call_id
    if owner is None:
        raise InvalidInputError(f"message {held_id} names no call; say which one")
    if call_id not in (None, owner):
        raise InvalidInputError(f"call: message {held_id} is for {owner}")
    message = stored.entry.message
    if message is None or message.kind not in (MessageKind.RESPONSE, MessageKind.FAILURE):
        raise InvalidInputError(
            f"message {held_id} says neither success nor failure; resolve the call instead"
        )
    fields = {"call_id": owner, "by": by, "reason": reason, "held_id": held_id}
    request = parse_argument(SettleRequest, (fields,))
    stated = await state_about_call(
        client, request, lambda call: _resolve_as(call, message, by=by, reason=reason)
    )
    if stated.was_open:
        why = f"applied by {by}: {reason}"
        await ledger.inbox.settle([held_id], InboxState.DELIVERED, why)
    return stated


def shown_content(entry: InboxEntry, integrations: Mapping[str, Integration]) -> Any:
    """What a message says, without sensitive fields.

    Args:
        integrations: say what is sensitive in a message that is not classified yet.
    """
    if entry.message is not None:
        return entry.message.masked().model_dump(mode="json", exclude={"sensitive"})
    integration = integrations.get(entry.provider)
    if integration is None:
        return entry.document
    return masked_answer(entry.document, sensitive_fields(integration))


def not_held(held_id: int) -> str:
    return f"no message {held_id} is held"


async def _resolve_as(call: Call, message: ProviderMessage, *, by: str, reason: str) -> None:
    is_done = message.kind is MessageKind.RESPONSE
    effect = Effect.DONE if is_done else Effect.NONE
    await call.resolve(effect, by=by, reason=reason, response=message.data if is_done else None)


def raise_if_too_late(status: CallStatus, name: str, by: str) -> None:
    """Raise `CallEndedError` if a call has not taken the request that it was just sent.

    It reports that as its last error. One that ends at this moment may not have come to it.
    """
    error, outcome = status.last_error or "", status.outcome
    if error.startswith(f"{name} by {by}: "):
        raise CallEndedError(f"{status.call_id}: {error}")
    if outcome is None or not status.stage.is_final:
        return
    taken = {names.CANCEL: outcome.cancelled, names.FORCE_ACK: outcome.forced}
    if name in taken and getattr(taken[name], "by", None) != by:
        raise CallEndedError(f"{status.call_id}: too late, the call is {outcome.status}")


def _raise_if_rejected(status: CallStatus, request: SettleRequest) -> None:
    """An open call reports a request that it rejects as its last error."""
    signal = names.RESOLVE if request.write_off is None else names.WRITE_OFF
    is_settled = status.outcome is not None and status.outcome.settled is not None
    error = status.last_error or ""
    if error.startswith(f"{signal} by {request.by}:") and not is_settled:
        raise InvalidRequestError(f"{request.call_id}: {error}")
