"""Calls: start, read, list, and what operators request of one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from ackbridge.client.calls import status_at_end
from ackbridge.client.recorded import recorded_status
from ackbridge.contracts.calls import CallRequest, CallStatus, Stage
from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import Language, Name
from ackbridge.contracts.wire import StrictModel
from ackbridge.errors import KeyReusedError

from .access import ApiParts, By, Parts
from .http import (
    CallId,
    IdempotencyKey,
    PreferWait,
    StrictRoute,
    answer,
    call_location,
    conditional,
)
from .problems import INVALID, KEY_REUSED, NOT_FOUND, documented

router = APIRouter(tags=["calls"], route_class=StrictRoute)

ACCEPTED_DESCRIPTION = "It is under way; `Location` is where its status is."


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


@router.post(
    "/calls",
    response_model=CallStatus,
    status_code=200,
    responses={
        202: {"model": CallStatus, "description": ACCEPTED_DESCRIPTION},
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


def provider_of(call: str) -> str:
    return call.partition(".")[0]
