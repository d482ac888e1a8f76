"""Calls: start, read, list, and what operators request of one."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, Field, TypeAdapter
from starlette.responses import Response

from ackbridge.client import operator_requests
from ackbridge.client.calls import Call, status_at_end
from ackbridge.client.operator_requests import Stated
from ackbridge.client.recorded import recorded_status
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest, CallStatus, Effect, OutcomeCode, Stage
from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import Language, Name, Reason
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.contracts.wire import InvalidInputError, StrictModel, Wire, parse_argument
from ackbridge.errors import (
    CallEndedError,
    CallNotFoundError,
    KeyReusedError,
    WorkerUnavailableError,
)
from ackbridge.ledger.calls import CallFilter, ListPosition

from .access import ApiParts, By, Parts, Requester
from .http import (
    ETAG,
    LOCATION,
    CallId,
    IdempotencyKey,
    PreferWait,
    StrictRoute,
    answer,
    call_location,
    conditional,
)
from .problems import CALL_ENDED, CONFLICT, INVALID, KEY_REUSED, NOT_FOUND, documented

router = APIRouter(tags=["calls"], route_class=StrictRoute)

MAX_PAGE: Final = 500

STATE_TIMEOUT: Final = timedelta(seconds=20)
"""Of a request that a worker carries out while its client waits."""

STEERING: Final = {202: LOCATION, **documented(NOT_FOUND, CALL_ENDED, INVALID)}
STATING: Final = {200: LOCATION, **documented(NOT_FOUND, CONFLICT, INVALID)}

_POSITION: Final = TypeAdapter(tuple[AwareDatetime, str, str])

ACCEPTED_DESCRIPTION: Final = "It is under way; `Location` is where its status is."


class CallBody(StrictModel):
    """A call to start; its key is the header `Idempotency-Key`. See `CallRequest`.

    Attributes:
        payload: validated against the operation's `payload_schema`.
        audience: the users the call is for; flags can be on for `internal` only.
        reply_to: the configured subscriber that is notified of the call.
        metadata: the caller's own labels, for templates and notices.
        language: of the notices, a tag such as `de` or `en-US`.
        expires_at: no request is sent after this.
    """

    provider: Name
    operation: Name
    payload: Any = None
    audience: str | None = Field(default=None, max_length=64)
    reply_to: Name | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    language: Language | None = None
    expires_at: AwareDatetime | None = None

    def request(self, key: str) -> CallRequest:
        return CallRequest(**dict(self), key=key)


class ReasonBody(StrictModel):
    reason: Reason


class ReprocessBody(StrictModel):
    reason: Reason | None = None


class ForceAckBody(StrictModel):
    """How to complete a call.

    Attributes:
        response: the response to record, if it is known.
    """

    reason: Reason
    response: Any = None


class ResolveBody(StrictModel):
    """What happened at the provider: `done` completes the call, `none` fails it.

    Attributes:
        effect: `as` in JSON.
        response: the provider's response, if `done` and it is known.
    """

    effect: Literal[Effect.DONE, Effect.NONE] = Field(alias="as")
    reason: Reason
    response: Any = None


class WriteOffBody(StrictModel):
    """Which acknowledgement to give up.

    Attributes:
        kind: if both kinds are owed for the cycle.
    """

    cycle: int = Field(ge=1)
    kind: AcknowledgementKind | None = None
    reason: Reason


class ListedCallView(Wire):
    """A call in a list.

    Attributes:
        stage: as last recorded: `preparing` until it is parked or answered.
        amount: what is at stake while the effect is unknown, a decimal number.
        claimed_at, updated_at: when it was first claimed, and last written.
    """

    call_id: str
    provider: str
    operation: str
    stage: Stage
    effect: Effect | None
    code: str | None
    amount: str | None
    unknown_since: AwareDatetime | None
    settled_by: str | None
    claimed_at: AwareDatetime
    updated_at: AwareDatetime


class CallPage(Wire):
    """Some calls.

    Attributes:
        next: the `cursor` of the next page; None: there are no more calls.
    """

    calls: tuple[ListedCallView, ...]
    next: str | None


@router.post(
    "/calls",
    response_model=CallStatus,
    status_code=200,
    responses={
        200: LOCATION,
        202: {"model": CallStatus, "description": ACCEPTED_DESCRIPTION, **LOCATION},
        **documented(INVALID, KEY_REUSED),
    },
    response_description="It has ended, as its outcome says.",
    operation_id="start_call",
)
async def start_call(
    body: CallBody, key: IdempotencyKey, wait: PreferWait, parts: Parts, by: By
) -> Response:
    """Start a call, or find the one with this key, and return its status.

    Repeating a request is safe, and returns the same call for as long as the ledger keeps it.
    """
    by.require(Role.START, body.provider)
    status = await _start(parts, body.request(key), wait)
    return _answer(status, wait)


async def _start(parts: ApiParts, request: CallRequest, wait: timedelta | None) -> CallStatus:
    known = await parts.recorded(request.call_id)
    if known is not None and known.request_digest != request.digest:
        raise KeyReusedError(f"key: {known.call_id} already belongs to a call with another payload")
    if known is not None and known.outcome is not None:
        return recorded_status(known)
    if wait:
        return await parts.calls.start_and_wait(request, wait)
    call = await parts.calls.start(request)
    if known is not None:
        return recorded_status(known)
    return CallStatus(call_id=call.id, stage=Stage.PREPARING, since=parts.clock())


def _answer(status: CallStatus, wait: timedelta | None) -> Response:
    headers = {"Location": call_location(status.call_id)}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={int(wait.total_seconds())}"
    return answer(status, status=202 if status.outcome is None else 200, headers=headers)


@router.get(
    "/calls/{call_id}",
    response_model=CallStatus,
    responses={
        200: ETAG,
        304: {"description": "It has not changed since `If-None-Match`."},
        **documented(NOT_FOUND),
    },
    operation_id="get_call",
)
async def get_call(
    request: Request, call: CallId, wait: PreferWait, parts: Parts, by: By
) -> Response:
    """The status of a call, with its outcome once it has one.

    Fields that the operation declares sensitive are for identities that may start its calls.
    """
    by.require(Role.READ, provider_of(call))
    found = parts.calls.call(call)
    status = await parts.status(found)
    headers = {}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={int(wait.total_seconds())}"
        if wait and status.outcome is None:
            try:
                status = await status_at_end(found, wait)
            except TimeoutError:
                status = await parts.status(found)
    return conditional(request, by.shown(status), headers)


@router.get(
    "/calls",
    response_model=CallPage,
    operation_id="list_calls",
)
async def list_calls(
    parts: Parts,
    by: By,
    provider: Annotated[Name | None, Query()] = None,
    operation: Annotated[Name | None, Query()] = None,
    stage: Annotated[
        list[Stage] | None,
        Query(
            description="As last recorded; may be repeated. Not parked and not answered is"
            " `preparing`."
        ),
    ] = None,
    effect: Annotated[Effect | None, Query()] = None,
    code: Annotated[OutcomeCode | None, Query()] = None,
    claimed_from: Annotated[AwareDatetime | None, Query()] = None,
    claimed_before: Annotated[AwareDatetime | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=2048, description="`next` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> Response:
    """Calls as the ledger has recorded them, newest first, page by page."""
    if provider is not None:
        by.require(Role.READ, provider)
    which = CallFilter(
        providers=by.readable() if provider is None else (provider,),
        operation=operation,
        stages=tuple(stage) if stage else None,
        effect=effect,
        code=code,
        claimed_from=claimed_from,
        claimed_before=claimed_before,
    )
    after = _parse_cursor(cursor) if cursor else None
    rows = await parts.ledger.calls.page(which, after, limit)
    following = _cursor(rows[-1].position) if len(rows) == limit else None
    listed = tuple(ListedCallView(**vars(one)) for one in rows)
    return answer(CallPage(calls=listed, next=following))


def _cursor(position: ListPosition) -> str:
    text = json.dumps([position.claimed_at.isoformat(), position.provider, position.call_id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _parse_cursor(text: str) -> ListPosition:
    try:
        at, provider, call = _POSITION.validate_json(base64.urlsafe_b64decode(text))
    except ValueError:
        raise InvalidInputError("query.cursor: not the `next` of a page") from None
    return ListPosition(at, provider, call)


@router.post(
    "/calls/{call_id}/cancel",
    status_code=202,
    response_model=CallStatus,
    responses=STEERING,
    operation_id="cancel_call",
)
async def cancel(call: CallId, body: ReasonBody, parts: Parts, by: By) -> Response:
    """Cancel a call, with a failed acknowledgement to its provider; a recorded response wins."""
    by.require(Role.STEER, provider_of(call))
    found = parts.calls.call(call)
    return await _signal(parts, by, found, names.CANCEL, found.cancel(by=by.by, reason=body.reason))


@router.post(
    "/calls/{call_id}/force-ack",
    status_code=202,
    response_model=CallStatus,
    responses=STEERING,
    operation_id="force_ack_call",
)
async def force_ack(call: CallId, body: ForceAckBody, parts: Parts, by: By) -> Response:
    """Complete a call that waits, with or without a response."""
    by.require(Role.SETTLE, provider_of(call))
    found = parts.calls.call(call)
    act = found.force_ack(by=by.by, reason=body.reason, response=body.response)
    return await _signal(parts, by, found, names.FORCE_ACK, act)


@router.post(
    "/calls/{call_id}/reprocess",
    status_code=202,
    response_model=CallStatus,
    responses=STEERING,
    operation_id="reprocess_call",
)
async def reprocess(
    call: CallId, parts: Parts, by: By, body: ReprocessBody | None = None
) -> Response:
    """Send a parked call again, or ask about it where it may not be sent again."""
    by.require(Role.STEER, provider_of(call))
    found = parts.calls.call(call)
    act = found.reprocess(by=by.by, reason=body.reason if body else None)
    return await _signal(parts, by, found, names.REPROCESS, act)


async def _signal(
    parts: ApiParts, by: Requester, call: Call, name: str, act: Coroutine[Any, Any, None]
) -> Response:
    try:
        await act
    except CallNotFoundError:
        if (row := await parts.recorded(call.id)) is not None and row.outcome is not None:
            raise CallEndedError(f"{call.id}: too late, the call has ended") from None
        raise
    status = await parts.status(call)
    operator_requests.raise_if_too_late(status, name, by.by)
    return answer(by.shown(status), status=202, headers={"Location": call_location(call.id)})


@router.post(
    "/calls/{call_id}/resolve",
    response_model=CallStatus,
    responses=STATING,
    operation_id="resolve_call",
)
async def resolve(call: CallId, body: ResolveBody, parts: Parts, by: By) -> Response:
    """State what happened at the provider, for a call that does not know, open or ended."""
    by.require(Role.SETTLE, provider_of(call))
    fields = {"call_id": call, "by": by.by, "reason": body.reason, "as": body.effect}
    request = parse_argument(SettleRequest, ({**fields, "response": body.response},))
    return await stated(
        parts, by, call, operator_requests.resolve(parts.client, request, body.effect)
    )


@router.post(
    "/calls/{call_id}/write-off",
    response_model=CallStatus,
    responses=STATING,
    operation_id="write_off_acknowledgement",
)
async def write_off(call: CallId, body: WriteOffBody, parts: Parts, by: By) -> Response:
    """Give up an acknowledgement that the provider will never accept; see `GET /owed`."""
    by.require(Role.SETTLE, provider_of(call))
    act = operator_requests.write_off(
        parts.client, parts.ledger, call, body.cycle, body.kind, by=by.by, reason=body.reason
    )
    return await stated(parts, by, call, act)


async def stated(
    parts: ApiParts, by: Requester, call: str, act: Coroutine[Any, Any, Stated]
) -> Response:
    """The status after something was stated about a call."""
    try:
        async with asyncio.timeout(STATE_TIMEOUT.total_seconds()):
            status = (await act).status
    except TimeoutError:
        raise WorkerUnavailableError(
            f"{call}: the request is stored, and is carried out when a worker runs"
        ) from None
    status = status or await parts.status(parts.calls.call(call))
    return answer(by.shown(status), headers={"Location": call_location(call)})


def provider_of(call: str) -> str:
    return call.partition(".")[0]
