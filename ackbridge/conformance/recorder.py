"""A proxy between us and a provider that writes down one example of each kind of message.

Requests of workers go to the provider, callbacks of the provider to the gateway; both are answered
with what the other side says. A callback is recorded when the gateway has accepted it, so that
nothing is kept whose signature is wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from ackbridge.catalog.model import Integration
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.http.client import HttpResponse, exchange, network_problem
from ackbridge.sandbox.provider_dialect import DialectReply, IncomingRequest
from ackbridge.sandbox.serving import HttpReply, read_request, send_reply
from ackbridge.security.private_files import make_private_file, make_private_folder

from .recording import (
    Exchanged,
    RecordedDelivery,
    Redaction,
    example_of_delivery,
    example_of_exchange,
    file_name,
)
from .request_matching import Route, build_routes, request_text

TIMEOUT: Final = timedelta(minutes=2)
"""Of one exchange; whoever sends has a shorter one."""

MAX_BYTES: Final = 4 * 1024 * 1024

_HOP_BY_HOP = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "host", "keep-alive"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)

log = logging.getLogger(__name__)


@dataclass
class Recorder:
    """An ASGI application.

    Attributes:
        folder: where examples are written; files that exist are kept.
        seen: the kinds of messages that need no other example: operation, what is answered, kind,
            whether it is retryable.
        records_all: write every message.
        on_written: called with each new file.
    """

    integration: Integration
    redaction: Redaction
    client: httpx.AsyncClient
    gateway_url: str
    folder: Path
    source: str
    seen: set[tuple[object, ...]] = field(default_factory=set)
    records_all: bool = False
    on_written: Callable[[Path], None] = lambda _path: None

    def __post_init__(self) -> None:
        self._routes = build_routes(self.integration)
        provider = urlsplit(self.integration.base_url)
        self._provider_url = f"{provider.scheme}://{provider.netloc}"
        self._callbacks = f"/callbacks/{self.integration.provider}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not supported")
        request = await read_request(scope, receive)
        is_callback = request.path == self._callbacks
        try:
            reply = await self._pass_on(
                request, self.gateway_url if is_callback else self._provider_url
            )
        except (httpx.HTTPError, TimeoutError, InvalidInputError) as error:
            text = f"the recorder: {network_problem(error)}"
            await send_reply(HttpReply(DialectReply(502, text.encode())), scope, receive, send)
            return
        headers = _end_to_end(reply.headers)
        passed_on = DialectReply(reply.status, reply.body, headers)
        try:
            self._record(request, reply, is_callback=is_callback)
        except Exception:
            # Whatever cannot be recorded is passed on all the same.
            log.exception("a message could not be recorded")
        await send_reply(HttpReply(passed_on), scope, receive, send)

    async def _pass_on(self, request: IncomingRequest, to: str) -> HttpResponse:
        query = f"?{request.query}" if request.query else ""
        return await exchange(
            self.client,
            method=request.method,
            url=f"{to}{request.path}{query}",
            headers=_end_to_end(request.headers),
            content=request.body or None,
            auth=None,
            timeout=TIMEOUT,
            max_bytes=MAX_BYTES,
        )

    def _record(self, request: IncomingRequest, reply: HttpResponse, *, is_callback: bool) -> None:
        if is_callback:
            if 200 <= reply.status < 300:
                arrived = RecordedDelivery(
                    request.method, request.query, request.headers, request.body
                )
                self._write(
                    example_of_delivery(self.integration, self.redaction, arrived, self.source)
                )
            return
        route = self._route(request)
        if route is None:
            return
        done = Exchanged(
            request.method,
            request.path,
            request.headers,
            request.body,
            reply.status,
            reply.headers,
            reply.body,
        )
        self._write(
            example_of_exchange(
                self.integration, self.redaction, route.operation, route.part, done, self.source
            )
        )

    def _route(self, request: IncomingRequest) -> Route | None:
        """What a request is; where operations share a path, the one that its ids name."""
        routes = [route for route in self._routes if route.matches(request)]
        text = request_text(request)

        def rank(route: Route) -> tuple[bool, bool]:
            is_named = f"{self.integration.provider}.{route.operation}." in text
            return is_named, f":{route.part}" in text

        return max(routes, key=rank, default=None)

    def _write(self, example: Mapping[str, Any]) -> None:
        kind = kind_of(example)
        if kind in self.seen and not self.records_all:
            return
        self.seen.add(kind)
        make_private_folder(self.folder)
        number = 1
        while (path := self.folder / file_name(example, number)).exists():
            number += 1
        make_private_file(path)
        path.write_text(f"{json.dumps(example, indent=2, ensure_ascii=False)}\n", "utf-8")
        self.on_written(path)


def kind_of(example: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells an example from those that show something else."""
    means = example["means"]
    listed = means if isinstance(means, list) else [means]
    answer = example.get("answer")
    kinds = tuple((one["kind"], one.get("retryable", False)) for one in listed)
    return example.get("operation"), answer["to"] if answer else None, kinds


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
