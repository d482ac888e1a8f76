"""Events of calls for pages: a stream of them, and the tokens with which a page reads it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from ackbridge.contracts.identity import Role
from ackbridge.contracts.limits import Language
from ackbridge.contracts.wire import StrictModel, Wire
from ackbridge.security.http_auth import AuthenticationError

from .access import ApiParts, By, Parts, authenticate
from .calls import provider_of
from .event_streams import MEDIA_TYPE, EventStreamResponse, Streams, number_of
from .event_tokens import EventAccess
from .http import CallId, StrictRoute, answer, call_location
from .problems import NOT_FOUND, UNAUTHENTICATED, ProblemError, documented

router = APIRouter(tags=["events"], route_class=StrictRoute)

_NO_STREAMS: Final = "streams are switched off: ACKBRIDGE_STREAMS_SECRETS is not set"

_STREAM: Final[dict[str, Any]] = {
    "description": "Server-sent events. Each has an `id`, and a notice's body as `data`; a comment"
    " at least every 15 seconds says that the stream is there. It ends after the last event.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
}


class EventTokenBody(StrictModel):
    """What a token is for.

    Attributes:
        language: of the texts that the call has not rendered itself, a tag such as `de`.
    """

    language: Language | None = None


class EventToken(Wire):
    """A token with which a page follows one call.

    Attributes:
        url: the path of the stream.
    """

    token: str
    expires_at: AwareDatetime
    url: str


@router.post(
    "/calls/{call_id}/event-tokens",
    response_model=EventToken,
    status_code=201,
    responses=documented(NOT_FOUND),
    operation_id="create_event_token",
)
async def create_event_token(
    call: CallId, parts: Parts, by: By, body: EventTokenBody | None = None
) -> Response:
    """Make a token for a page: with it, the page can follow this call, and nothing else.

    The call need not have started yet.
    """
    by.require(Role.READ, provider_of(call))
    tokens = _streams(parts).tokens
    token, expires_at = tokens.mint(call, body.language if body else None)
    made = EventToken(token=token, expires_at=expires_at, url=f"{call_location(call)}/events")
    return answer(made, status=201)


async def _access(
    request: Request,
    call: CallId,
    parts: Parts,
    token: Annotated[
        str | None,
        Query(description="An event token, for clients that can send no `Authorization`."),
    ] = None,
) -> EventAccess | None:
    """Who may follow: with an event token, or with the role `read`; answers 401 or 403."""
    given = token or request.headers.get("authorization", "").partition(" ")[2].strip()
    if parts.streams is not None and given:
        try:
            return parts.streams.tokens.verify(given, call)
        except AuthenticationError as error:
            if token is not None:
                challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
                raise HTTPException(UNAUTHENTICATED.status, str(error), challenge) from None
    requester = await authenticate(request)
    requester.require(Role.READ, provider_of(call))
    return None


@router.get(
    "/calls/{call_id}/events",
    response_class=Response,
    responses={
        200: _STREAM,
        204: {"description": "`Last-Event-ID` is the last event that there will be."},
        **documented(NOT_FOUND),
    },
    operation_id="follow_call",
)
async def follow_call(
    call: CallId,
    parts: Parts,
    access: Annotated[EventAccess | None, Depends(_access)],
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The last event that was read.")
    ] = None,
) -> Response:
    """Follow a call: its newest event, and those that come.

    Needs an event token of the call, or the role `read`.
    """
    streams = _streams(parts)
    lifetime = streams.lifetime
    if access is not None:
        lifetime = max(access.expires_at - parts.clock(), timedelta(0))
    stream = await streams.hub.open(call, number_of(last_event_id), lifetime)
    if stream is None:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return EventStreamResponse(streams.hub, stream, access.language if access else None)


def _streams(parts: ApiParts) -> Streams:
    if parts.streams is None:
        raise ProblemError(NOT_FOUND, _NO_STREAMS)
    return parts.streams
