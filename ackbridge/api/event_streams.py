"""The events of a call as server-sent events, for one reader."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ackbridge.clock import Clock
from ackbridge.contracts.calls import Effect, Notice, NoticeStatus, OutcomeCode
from ackbridge.contracts.deliveries import NoticeBody, NoticeData, NoticeEvent, event_id
from ackbridge.contracts.edge import StreamSettings
from ackbridge.contracts.names import split_call_id
from ackbridge.contracts.notices import default_notices, notice_kind
from ackbridge.ledger.call_events import CallEvent, CallEventStore
from ackbridge.security.secrets import Secrets

from .event_hub import EventHub, Stream, is_final
from .event_tokens import EventTokens

MEDIA_TYPE: Final = "text/event-stream"

RECONNECT_AFTER: Final = 3000
"""Milliseconds, for browsers that reconnect by themselves."""

_NUMBER = re.compile(r":([0-9]{1,9})\.[a-z_]+\Z")
_PATH = re.compile(r"/calls/[^/]+/events\Z")
_HIDDEN: Final = {"data": {"metadata", "reference", "response"}}
"""Nothing of the caller's or the provider's own: a page may be anybody's."""


def number_of(last_event_id: str | None) -> int:
    """The number of the event that a reader had last, by the id of it; 0 if it is none of ours."""
    found = _NUMBER.search(last_event_id or "")
    return int(found[1]) if found else 0


def body_of(event: CallEvent, language: str | None) -> NoticeBody:
    """An event as a page gets it, which is the body of a notice."""
    provider, operation, key = split_call_id(event.call_id)
    kind = NoticeEvent.COMPLETED_LATE if event.late else NoticeEvent(event.status)
    data = NoticeData(
        call_id=event.call_id,
        provider=provider,
        operation=operation,
        key=key,
        sequence=event.number,
        status=event.status,
        late=event.late,
        notice=event.notice or _built_in(event, kind, language),
        effect=event.effect,
        code=event.code,
    )
    return NoticeBody(
        id=event_id(event.call_id, event.number, kind),
        type=f"call.{kind}",
        timestamp=event.at,
        data=data,
    )


def _built_in(event: CallEvent, kind: NoticeEvent, language: str | None) -> Notice:
    if event.status in (NoticeStatus.FAILED, NoticeStatus.CANCELLED):
        code = event.code or OutcomeCode.PROVIDER_FAILED
        name = notice_kind(code, event.effect or Effect.UNKNOWN)
    else:
        name = kind
    return default_notices(language)[name]


def encode(event: CallEvent, language: str | None) -> bytes:
    """An event in the format of server-sent events."""
    body = body_of(event, language)
    return f"id: {body.id}\ndata: {body.model_dump_json(exclude=_HIDDEN)}\n\n".encode()


class EventStreamResponse(Response):
    """The events of a stream until the last one, or until its reader is gone."""

    media_type = MEDIA_TYPE

    def __init__(self, hub: EventHub, stream: Stream, language: str | None) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            media_type=MEDIA_TYPE,
        )
        # It has no length.
        del self.headers["content-length"]
        self._hub = hub
        self._stream = stream
        self._language = language

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda _task: stream.close())
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            await _write(send, b"retry: %d\n\n" % RECONNECT_AFTER)
            async for event in stream:
                if event is None:
                    await _write(send, b":\n\n")
                    continue
                await _write(send, encode(event, self._language))
                if is_final(event):
                    break
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._hub.close(stream)


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True)
class Streams:
    """What streams are made with.

    Attributes:
        lifetime: of a stream that was opened without an event token.
        origins: of the pages that may read streams.
    """

    hub: EventHub
    tokens: EventTokens
    lifetime: timedelta
    origins: tuple[str, ...]


def open_streams(
    settings: StreamSettings, secrets: Secrets, events: CallEventStore, clock: Clock
) -> Streams | None:
    """As configured; None: there are no streams.

    Raises:
        ConfigurationError: a secret does not resolve, or is too short.
    """
    references = _listed(settings.secrets)
    if not references:
        return None
    tokens = EventTokens([secrets.resolve(one) for one in references], settings.lifetime, clock)
    hub = EventHub(events, most=settings.most, poll_every=settings.poll_every)
    origins = tuple(one.rstrip("/") for one in _listed(settings.origins))
    return Streams(hub, tokens, settings.lifetime, origins)


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


class EventStreamCors:
    """Lets pages of known origins read streams of events, and nothing else."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._streams = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=["GET"],
            allow_headers=["authorization", "last-event-id"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_stream = scope["type"] == "http" and _PATH.search(_raw_path(scope))
        await (self._streams if is_stream else self._app)(scope, receive, send)


def _raw_path(scope: Mapping[str, object]) -> str:
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if isinstance(raw, bytes) else str(scope.get("path", ""))
