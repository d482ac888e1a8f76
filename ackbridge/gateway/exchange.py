"""One callback on its way, and what is replied to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive

from ackbridge.catalog.model import CallbackSpec, Integration
from ackbridge.security.specs import HeaderVerify

from .inbound_event import InboundEvent

_CREDENTIALS = {"authorization", "proxy-authorization", "cookie"}


@dataclass(frozen=True)
class CallbackReply:
    """What the provider gets.

    Attributes:
        code: the HTTP status.
        status: one word for what happened.
        reason: why; says nothing a stranger may not know.
        retry_after: seconds, when coming again is right.
    """

    code: int
    status: str
    reason: str | None = None
    retry_after: int | None = None


@dataclass(slots=True)
class Exchange:
    """One callback on its way: each step fills in what the next ones need.

    Attributes:
        provider: as the path says.
        headers: by lower-case name.
        query: the raw query string.
        receive: the ASGI request's.
    """

    provider: str
    headers: Mapping[str, str]
    query: bytes
    receive: Receive
    body: bytes = field(init=False)
    integration: Integration = field(init=False)
    callbacks: CallbackSpec = field(init=False)
    parsed: Any = field(init=False)
    letter: InboundEvent | None = None


def document_of(exchange: Exchange) -> dict[str, Any]:
    """What expressions see. Credentials are left out: documents are kept in the ledger."""
    secret = set(_CREDENTIALS)
    if isinstance(exchange.callbacks.verify, HeaderVerify):
        secret.add(exchange.callbacks.verify.name.lower())
    parsed = exchange.parsed
    return {
        **(parsed if isinstance(parsed, dict) else {}),
        "body": parsed,
        "headers": {name: value for name, value in exchange.headers.items() if name not in secret},
        "query": dict(parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True)),
    }
