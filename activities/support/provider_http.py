"""One exchange with a provider: rendered, authenticated, bounded, read as a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import httpx

from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.rendering import OutboundRequest
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError, read_json
from ackbridge.http.client import HttpResponse, ResponseTooLargeError, exchange
from ackbridge.security.oauth2 import TokenError
from ackbridge.security.redaction import Redactor

from .dependencies import Dependencies
from .retry import (
    RETRYABLE_STATUSES,
    NoAnswerError,
    is_retryable,
    no_connection,
    retry_after,
)

MAX_REPLY_BYTES = 1024 * 1024
"""What a provider may answer; more is cut off and counts as no answer."""

SHOWN = 200
"""Characters of a provider's own words that are repeated to operators."""

Render = Callable[[Integration, Operation, dict[str, object]], OutboundRequest]
MayRender = Callable[[Integration, Operation, dict[str, object]], OutboundRequest | None]


@dataclass(frozen=True)
class ProviderResponse:
    """What the provider answered.

    Attributes:
        document: status, headers and body, for expressions; a body that is no JSON is a text.
        is_garbled: the body is not even nearly JSON, as after a broken transmission.
    """

    operation: Operation
    status: int
    document: dict[str, Any]
    is_garbled: bool = False


@overload
async def converse(
    provisions: Dependencies, request: CallRequest, cycle: int, render: Render, **known: object
) -> ProviderResponse: ...


@overload
async def converse(
    provisions: Dependencies, request: CallRequest, cycle: int, render: MayRender, **known: object
) -> ProviderResponse | None: ...


async def converse(
    provisions: Dependencies, request: CallRequest, cycle: int, render: MayRender, **known: object
) -> ProviderResponse | None:
    """Say to a call's provider what the operation has for it, and hear what it answers.

    Args:
        render: what to say; None where there is nothing to be said.
        known: what templates know besides the request: reference, response, reason.

    Raises:
        NoAnswerError: network trouble, 408, 425, 429, 5xx, no token, too long an answer.
        InvalidInputError: it cannot be said; nothing was sent.
        ConfigurationError: the worker does not know the operation, or not the secret.
    """
    integration = provisions.catalog.integration(request.provider)
    operation = provisions.catalog.operation(request.provider, request.operation)
    outbound = render(integration, operation, provisions.context(request, cycle, **known))
    if outbound is None:
        return None
    reply = await _exchanged(provisions, request.provider, outbound)
    return ProviderResponse(operation, reply.status, _document(reply), _is_garbled(reply.body))


def refusal(answer: ProviderResponse, redactor: Redactor) -> str:
    """A provider's refusal in one line: its status and, where it says one, its message."""
    body = answer.document.get("body")
    error = body.get("error", body) if isinstance(body, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    said = f": {redactor.clean(words, SHOWN)}" if isinstance(words, str) else ""
    return f"the provider refused with {answer.status}{said}"


async def _exchanged(
    provisions: Dependencies, provider: str, outbound: OutboundRequest
) -> HttpResponse:
    try:
        reply = await exchange(
            provisions.client,
            method=outbound.method,
            url=outbound.url,
            headers=outbound.headers,
            content=outbound.content,
            auth=provisions.auths[provider],
            timeout=outbound.timeout,
            max_bytes=MAX_REPLY_BYTES,
        )
    except (httpx.HTTPError, TimeoutError) as error:
        raise no_connection(error) from None
    except ResponseTooLargeError as error:
        raise NoAnswerError(str(error), reached=True) from None
    except TokenError as error:
        raise NoAnswerError(str(error)) from None
    if is_retryable(reply.status):
        raise NoAnswerError(
            f"the provider answered {reply.status}",
            reached=reply.status not in (425, 429),
            retry_after=retry_after(reply.headers.get("retry-after"), provisions.clock()),
            is_later=reply.status in RETRYABLE_STATUSES,
        )
    return reply


def _document(reply: HttpResponse) -> dict[str, Any]:
    try:
        body = read_json(reply.body) if reply.body.strip() else None
    except InvalidInputError:
        body = reply.body.decode("utf-8", "replace")
    fields = body if isinstance(body, dict) else {}
    return {
        **fields,
        "body": body,
        "headers": dict(reply.headers),
        "query": {},
        "status": reply.status,
    }


def _is_garbled(body: bytes) -> bool:
    try:
        json.loads(body or b"null")
    except RecursionError:
        return False
    except ValueError:
        return True
    return False
