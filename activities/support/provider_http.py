"""Call a provider's API and read its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

import httpx

from ackbridge.catalog.matching import classify, refusal
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

from .bodies import binary
from .dependencies import Dependencies
from .retry import (
    THROTTLING_STATUSES,
    RefusedError,
    RetryableError,
    UnreadableError,
    is_retryable_status,
    network_failure,
    parse_retry_after,
)

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Of an answer, which a worker has in memory; a longer one cannot be used."""

MAX_QUOTED = 200
"""Characters of a provider's own text that operators are shown."""

TOO_MANY_REQUESTS = 429
"""The only status after which the provider has not looked at the request."""

_CHARSET = re.compile(r"charset=\"?([\w.:-]+)", re.IGNORECASE)
_TEXT = re.compile(r"text/|application/(?:[\w.-]+\+)?(?:json|xml)\b|$", re.IGNORECASE)

Render = Callable[[Integration, Operation, dict[str, object]], OutboundRequest]
RenderOptional = Callable[[Integration, Operation, dict[str, object]], OutboundRequest | None]


@dataclass(frozen=True)
class ProviderResponse:
    """What the provider answered.

    Attributes:
        document: status, headers and body, for expressions; a body that is not JSON is a string.
        is_garbled: the body is not even nearly JSON, as after a broken transmission.
        retryable: why the same request may succeed a moment later, by its status.
    """

    operation: Operation
    status: int
    document: dict[str, Any]
    is_garbled: bool = False
    retryable: RetryableError | None = None


@overload
async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: Render,
    *,
    truncate: bool = ...,
    **known: object,
) -> ProviderResponse: ...


@overload
async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: RenderOptional,
    *,
    truncate: bool = ...,
    **known: object,
) -> ProviderResponse | None: ...


async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: RenderOptional,
    *,
    truncate: bool = False,
    **known: object,
) -> ProviderResponse | None:
    """Send one request of a call's operation.

    Args:
        render: builds the request; None where the operation has none of this kind.
        truncate: read the beginning of a body that is too long.
        known: what templates know besides the call's request: reference, response, reason.

    Raises:
        RetryableError: network error, no token, or too long an answer. A status that asks for
            another attempt is in the result: an expression of the file may explain it.
        UnreadableError: a 2xx that is too long.
        InvalidInputError: the request cannot be built; nothing was sent.
        ConfigurationError: the worker does not know the operation or the secret.
    """
    integration = deps.catalog.integration(request.provider)
    operation = deps.catalog.operation(request.provider, request.operation)
    outbound = render(integration, operation, deps.template_context(request, cycle, **known))
    if outbound is None:
        return None
    reply = await _exchange(deps, request.provider, outbound, truncate=truncate)
    document, is_garbled = _read(reply)
    return ProviderResponse(
        operation, reply.status, document, is_garbled, _retryable(reply, deps.clock())
    )


def refusal_of(response: ProviderResponse, redactor: Redactor) -> RefusedError:
    """A refusal: the status and, if there is one, the provider's reason, in one line."""
    said = refusal(response.operation, response.document, redactor)
    text = f"the provider refused with {response.status}"
    return RefusedError(f"{text}: {said.reason[:MAX_QUOTED]}" if said.reason else text, said.code)


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
    message = classify(
        response.operation,
        response.document,
        own_event_key(source, request, cycle),
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
    key = own_event_key(source, request, cycle, _extension_suffix(message, now))
    return message.model_copy(update={**known, "event_key": key})


def _extension_suffix(extension: ProviderMessage, now: datetime) -> str:
    """Equal extensions have equal suffixes: the same deadline, or the same span at about one time.

    A span counts from now. It becomes a new extension when half of it is over, not at each request.
    """
    if extension.until is not None or extension.extend_by is None:
        return f":{extension.until}"
    seconds = extension.extend_by.total_seconds()
    return f":+{seconds:g}:{int(now.timestamp() // (seconds / 2))}"


def own_event_key(source: str, request: CallRequest, cycle: int, suffix: str = "") -> str:
    """The event key of a message that was not a callback, the same for the whole cycle."""
    key = names.idempotency_key(request.call_id, cycle)
    whole = f"{source}:{key}{suffix}"
    return (
        whole if len(whole) <= MAX_KEY_LENGTH else f"{source}:{digest(f'{source}:{key}')}{suffix}"
    )


async def _exchange(
    deps: Dependencies, provider: str, outbound: OutboundRequest, *, truncate: bool
) -> HttpResponse:
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
            truncate=truncate,
        )
    except (httpx.HTTPError, TimeoutError) as error:
        raise network_failure(error) from None
    except ResponseTooLargeError as error:
        if error.status is not None and 200 <= error.status < 300:
            raise UnreadableError(str(error)) from None
        raise RetryableError(str(error), reached=True) from None
    except TokenError as error:
        raise RetryableError(str(error)) from None
    return reply


def _retryable(reply: HttpResponse, now: datetime) -> RetryableError | None:
    if not is_retryable_status(reply.status):
        return None
    return RetryableError(
        f"the provider answered {reply.status}",
        reached=reply.status != TOO_MANY_REQUESTS,
        retry_after=parse_retry_after(reply.headers.get("retry-after"), now),
        throttled=reply.status in THROTTLING_STATUSES,
    )


def _read(reply: HttpResponse) -> tuple[dict[str, Any], bool]:
    """The document of an answer, and whether its body is garbled."""
    content_type = reply.headers.get("content-type", "")
    text = _decoded(reply.body, content_type)
    is_garbled = False
    body: Any = None
    if text is None:
        body = binary(content_type, reply.body)
    elif text.strip():
        try:
            body = read_json(text.encode())
        except InvalidInputError:
            body, is_garbled = text, _is_garbled(text)
        except UnicodeEncodeError:
            body = text
    fields = body if isinstance(body, dict) and text is not None else {}
    document = {
        **fields,
        "body": body,
        "headers": dict(reply.headers),
        "query": {},
        "status": reply.status,
    }
    return document, is_garbled


def _decoded(body: bytes, content_type: str) -> str | None:
    """The body as text; None if it is binary."""
    is_text = _TEXT.match(content_type) is not None
    if not is_text and b"\0" in body:
        return None
    declared = _CHARSET.search(content_type)
    for charset in (declared[1] if declared else json.detect_encoding(body), "utf-8"):
        try:
            return body.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
    # Texts in an undeclared charset stay readable, but for the letters outside of ASCII.
    return body.decode("utf-8", "replace") if is_text else None


def _is_garbled(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return False
    except ValueError:
        return True
    return False
