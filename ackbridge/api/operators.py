"""What needs an operator: messages held or not delivered, what is owed, unknown effects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from ackbridge.client import operator_requests
from ackbridge.client.operator_requests import not_held, shown_content
from ackbridge.contracts.calls import CallStatus, Stage
from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import MAX_CALL_ID_LENGTH, Name, Reason
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError, StrictModel, Wire
from ackbridge.ledger.inbox import InboxState, StoredEntry

from .access import ApiParts, By, Parts, Requester
from .calls import STATING, ReasonBody, stated
from .http import StrictRoute, answer
from .problems import INVALID, NOT_FOUND, ProblemError, documented

router = APIRouter(tags=["operators"], route_class=StrictRoute)

MAX_LISTED: Final = 1000

OfProvider = Annotated[
    Name | None, Query(alias="provider", description="Only this provider; without: all.")
]
AtMost = Annotated[int, Query(alias="limit", ge=1, le=MAX_LISTED, description="At most so many.")]
MessageId = Annotated[int, Path(ge=1, le=2**53)]


class InboxMessage(Wire):
    """A message of a provider in the inbox, without sensitive fields.

    Attributes:
        since: when it came into its state.
        reason: why it is in its state.
        content: what it says, or the whole document until it is classified.
    """

    id: int
    state: InboxState
    provider: str
    event_key: str
    call_id: str | None
    reference: str | None
    since: AwareDatetime
    reason: str | None
    content: Any


class InboxList(Wire):
    messages: tuple[InboxMessage, ...]


class ApplyBody(StrictModel):
    """Why a held message is applied.

    Attributes:
        call_id: its call, if the message names none.
    """

    reason: Reason
    call_id: str | None = Field(default=None, min_length=1, max_length=MAX_CALL_ID_LENGTH)


class ReplayBody(StrictModel):
    """Which messages to classify and deliver again: some, or all unclassified ones of a provider.

    Attributes:
        limit: of those of a provider.
    """

    ids: tuple[Annotated[int, Field(ge=1, le=2**53)], ...] | None = Field(
        default=None, min_length=1, max_length=MAX_LISTED
    )
    provider: Name | None = None
    limit: int = Field(default=MAX_LISTED, ge=1, le=MAX_LISTED)
    reason: Reason


class Replayed(Wire):
    """The messages that are delivered again; others were neither unclassified nor held."""

    ids: tuple[int, ...]


class OwedView(Wire):
    """An acknowledgement that the provider has not accepted.

    Attributes:
        owed_at: the time of the first attempt that failed.
        refused: whether the provider has refused it, and not just failed to answer.
    """

    call_id: str
    cycle: int
    kind: AcknowledgementKind
    owed_at: AwareDatetime
    refused: bool
    reason: str | None


class OwedList(Wire):
    acknowledgements: tuple[OwedView, ...]


class UnknownCallView(Wire):
    """A call whose effect is unknown now."""

    call_id: str
    provider: str
    operation: str
    stage: Stage
    code: str | None
    since: AwareDatetime
    amount: str | None


class UnknownTotalView(Wire):
    """All calls of a provider whose effect is unknown now.

    Attributes:
        since: of the oldest one.
        amount: the sum, a decimal number; None where none of them has an amount.
    """

    provider: str
    calls: int
    since: AwareDatetime
    amount: Decimal | None


class UnknownList(Wire):
    """Totals of every provider, and the oldest calls."""

    totals: tuple[UnknownTotalView, ...]
    calls: tuple[UnknownCallView, ...]


@router.get("/held", response_model=InboxList, operation_id="list_held")
async def list_held(
    parts: Parts, by: By, provider: OfProvider = None, limit: AtMost = 100
) -> Response:
    """Messages that no call has accepted and that need a person, oldest first."""
    by.require(Role.READ, provider)
    return _messages(parts, await parts.ledger.inbox.held(provider, limit))


@router.post(
    "/held/{message_id}/apply",
    response_model=CallStatus,
    responses=STATING,
    operation_id="apply_held",
)
async def apply_held(message_id: MessageId, body: ApplyBody, parts: Parts, by: By) -> Response:
    """Apply a held message to its call: a response completes it, a failure says effect none."""
    found = await _held(parts, by, message_id)
    call = found.entry.call_id or body.call_id or ""
    act = operator_requests.apply_held(
        parts.client, parts.ledger, message_id, body.call_id, by=by.by, reason=body.reason
    )
    return await stated(parts, by, call, act)


@router.post(
    "/held/{message_id}/discard",
    status_code=204,
    responses=documented(NOT_FOUND),
    operation_id="discard_held",
)
async def discard_held(message_id: MessageId, body: ReasonBody, parts: Parts, by: By) -> Response:
    """Discard a held message; it is kept until the retention of the inbox ends."""
    await _held(parts, by, message_id)
    await parts.record("discard_held", str(message_id), by, body.reason)
    if not await parts.ledger.inbox.discard_held(message_id, by.by, body.reason):
        raise ProblemError(NOT_FOUND, not_held(message_id))
    return Response(status_code=204)


async def _held(parts: ApiParts, by: Requester, message_id: int) -> StoredEntry:
    found = await parts.ledger.inbox.held_entry(message_id)
    if found is None:
        raise ProblemError(NOT_FOUND, not_held(message_id))
    by.require(Role.SETTLE, found.entry.provider)
    return found


@router.get("/inbox", response_model=InboxList, operation_id="list_inbox")
async def list_inbox(
    parts: Parts,
    by: By,
    provider: OfProvider = None,
    state: Annotated[InboxState | None, Query(description="Without: every state.")] = None,
    limit: AtMost = 100,
) -> Response:
    """Messages in the inbox, oldest first."""
    by.require(Role.READ, provider)
    return _messages(parts, await parts.ledger.inbox.entries(provider, state, limit))


@router.post(
    "/inbox/replay",
    response_model=Replayed,
    responses=documented(INVALID),
    operation_id="replay_inbox",
)
async def replay_inbox(body: ReplayBody, parts: Parts, by: By) -> Response:
    """Classify and deliver messages again, by the files that the gateways have loaded."""
    if (body.ids is None) is (body.provider is None):
        raise InvalidInputError("body: either ids or provider is needed")
    by.require(Role.STEER, body.provider)
    inbox = parts.ledger.inbox
    ids: Sequence[int] = body.ids or [
        one.id for one in await inbox.entries(body.provider, InboxState.UNCLASSIFIED, body.limit)
    ]
    await parts.record("replay_inbox", ", ".join(map(str, ids)), by, body.reason)
    return answer(Replayed(ids=tuple(await inbox.replay(ids, by.by, body.reason))))


@router.get("/owed", response_model=OwedList, operation_id="list_owed")
async def list_owed(
    parts: Parts, by: By, provider: OfProvider = None, limit: AtMost = 100
) -> Response:
    """Acknowledgements that providers have not accepted yet, oldest first."""
    by.require(Role.READ, provider)
    rows = await parts.ledger.calls.owed(provider, limit)
    return answer(OwedList(acknowledgements=tuple(OwedView(**vars(one)) for one in rows)))


@router.get("/unknown", response_model=UnknownList, operation_id="list_unknown")
async def list_unknown(
    parts: Parts, by: By, provider: OfProvider = None, limit: AtMost = 100
) -> Response:
    """Calls whose effect is unknown now, with the sums of their amounts."""
    by.require(Role.READ, provider)
    store = parts.ledger.settlement
    totals = tuple(UnknownTotalView(**vars(one)) for one in await store.unknown_totals(provider))
    calls = tuple(UnknownCallView(**vars(one)) for one in await store.unknown(provider, limit))
    return answer(UnknownList(totals=totals, calls=calls))


def _messages(parts: ApiParts, entries: Sequence[StoredEntry]) -> Response:
    integrations = parts.catalog.integrations
    shown = tuple(
        InboxMessage(
            id=one.id,
            state=one.state,
            provider=one.entry.provider,
            event_key=one.entry.event_key,
            call_id=one.entry.call_id,
            reference=one.entry.reference,
            since=_since(one),
            reason=one.reason,
            content=shown_content(one.entry, integrations),
        )
        for one in entries
    )
    return answer(InboxList(messages=shown))


def _since(stored: StoredEntry) -> datetime:
    return stored.settled_at or stored.entry.received_at
