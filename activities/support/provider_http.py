"""Call a provider's API and read its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

import httpx

from ackbridge.catalog.matching import classify
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.rendering import OutboundRequest
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.wire import InvalidInputError, digest, read_json
from ackbridge.http.client import HttpResponse, ResponseTooLargeError, exchange
from ackbridge.security.oauth2 import TokenError
from ackbridge.security.redaction import Redactor

from .dependencies import Dependencies
from .retry import (
    THROTTLING_STATUSES,
    RetryableError,
    is_retryable_status,
    network_failure,
    parse_retry_after,
)

MAX_REPLY_BYTES = 1024 * 1024
"""A longer answer counts as none."""

MAX_QUOTED = 200
"""Characters of a provider's own text that operators are shown."""

Render = Callable[[Integration, Operation, dict[str, object]], OutboundRequest]
RenderOptional = Callable[[Integration, Operation, dict[str, object]], OutboundRequest | None]


@dataclass(frozen=True)
class ProviderResponse:
    """What the provider answered.

    Attributes:
        document: status, headers and body, for expressions; a body that is not JSON is a string.
        is_garbled: the body is not even nearly JSON, as after a broken transmission.
    """

    operation: Operation
    status: int
    document: dict[str, Any]
    is_garbled: bool = False


@overload
async def call_provider(
    deps: Dependencies, request: CallRequest, cycle: int, render: Render, **known: object
) -> ProviderResponse: ...


@overload
async def call_provider(
    deps: Dependencies, request: CallRequest, cycle: int, render: RenderOptional, **known: object
) -> ProviderResponse | None: ...


async def call_provider(
    deps: Dependencies, request: CallRequest, cycle: int, render: RenderOptional, **known: object
) -> ProviderResponse | None:
    """Send one request of a call's operation.

    Args:
        render: builds the request; None where the operation has none of this kind.
        known: what templates know besides the call's request: reference, response, reason.

    Raises:
        RetryableError: network error, 408, 425, 429, 5xx, no token, or too long an answer.
        InvalidInputError: the request cannot be built; nothing was sent.
        ConfigurationError: the worker does not know the operation or the secret.
    """
    integration = deps.catalog.integration(request.provider)
    operation = deps.catalog.operation(request.provider, request.operation)
    outbound = render(integration, operation, deps.template_context(request, cycle, **known))
    if outbound is None:
        return None
    reply = await _exchange(deps, request.provider, outbound)
    return ProviderResponse(operation, reply.status, _document(reply), _is_garbled(reply.body))


def refusal_reason(response: ProviderResponse, redactor: Redactor) -> str:
    """A refusal in one line: the status and, if there is one, the provider's error message."""
    body = response.document.get("body")
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    quoted = f": {redactor.clean(message, MAX_QUOTED)}" if isinstance(message, str) else ""
    return f"the provider refused with {response.status}{quoted}"


def read_message(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    response: ProviderResponse,
    source: MessageSource,
    reference: str | None,
) -> ProviderMessage | None:
    """The message in an answer; None when it is neither success, failure nor extension.

    Args:
        reference: the cycle's, for an answer that does not repeat it.
    """
    now = deps.clock()
    prefix = f"{source}:{names.idempotency_key(request.call_id, cycle)}"
    message = classify(
        response.operation,
        response.document,
        _event_key(prefix),
        source,
        now,
        deps.redactor(request.provider),
    )
    if message is None:
        return None
    known = {"reference": message.reference or reference}
    if message.kind is not MessageKind.EXTENSION:
        return message.model_copy(update=known)
    # A call accepts each key once, and after an extension it must still accept the response.
    key = _event_key(prefix, _extension_suffix(message, now))
    return message.model_copy(update={**known, "event_key": key})


def _extension_suffix(extension: ProviderMessage, now: datetime) -> str:
    """Equal extensions have equal suffixes: the same deadline, or the same span at about one time.

    A span counts from now. It becomes a new extension when half of it is over, not at each request.
    """
    if extension.until is not None or extension.extend_by is None:
        return f":{extension.until}"
    seconds = extension.extend_by.total_seconds()
    return f":+{seconds:g}:{int(now.timestamp() // (seconds / 2))}"


def _event_key(prefix: str, suffix: str = "") -> str:
    key = f"{prefix}{suffix}"
    if len(key) <= MAX_KEY_LENGTH:
        return key
    source, _, _ = prefix.partition(":")
    return f"{source}:{digest(prefix)}{suffix}"


async def _exchange(deps: Dependencies, provider: str, outbound: OutboundRequest) -> HttpResponse:
    try:
        reply = await exchange(
            deps.http,
            method=outbound.method,
            url=outbound.url,
            headers=outbound.headers,
            content=outbound.content,
            auth=deps.auths[provider],
            timeout=outbound.timeout,
            max_bytes=MAX_REPLY_BYTES,
        )
    except (httpx.HTTPError, TimeoutError) as error:
        raise network_failure(error) from None
    except ResponseTooLargeError as error:
        raise RetryableError(str(error), reached=True) from None
    except TokenError as error:
        raise RetryableError(str(error)) from None
    if is_retryable_status(reply.status):
        raise RetryableError(
            f"the provider answered {reply.status}",
            reached=reply.status not in (425, 429),
            retry_after=parse_retry_after(reply.headers.get("retry-after"), deps.clock()),
            throttled=reply.status in THROTTLING_STATUSES,
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
