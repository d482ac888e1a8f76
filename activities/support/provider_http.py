"""Call a provider's API and read its answer; large bodies are stored and passed by reference."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, overload

import httpx

from ackbridge.catalog.matching import (
    THROTTLING_STATUSES,
    classify,
    is_retryable_status,
    refusal,
)
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.rendering import OutboundRequest, apply_hook, fairness_key
from ackbridge.catalog.wire_formats import (
    CHARSET,
    NO_CHARSETS,
    OBJECT_MEDIA,
    XML_CHARSET,
    is_impossible,
    read_form,
    read_xml,
)
from ackbridge.contracts import names
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import BodyRef, MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.quotas import WHOLE_QUOTA
from ackbridge.contracts.wire import InvalidInputError, digest, read_json
from ackbridge.control.quota_headers import USUAL as USUAL_QUOTA_HEADERS
from ackbridge.control.quota_headers import read_statement
from ackbridge.http.client import THREAD_FROM, HttpResponse, exchange
from ackbridge.http.retry_after import parse_retry_after
from ackbridge.ledger.bodies import BINARY, JSON_TYPE, binary
from ackbridge.ledger.bodies import store_if_large as bounded_data
from ackbridge.security.oauth2 import TokenError
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import KnownSecrets

from .dependencies import Dependencies
from .retry import (
    RefusedError,
    RetryableError,
    network_failure,
    retry_delay,
)

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Of an answer, which a worker has in memory; a longer one cannot be used."""

MAX_QUOTED = 200
"""Characters of a provider's own text that operators are shown."""

MAX_CHARSET = 40
"""Characters of the name of a charset that operators are shown."""

TOO_MANY_REQUESTS = 429
"""The only status after which the provider has not looked at the request."""

_JSON_TYPE = re.compile(r"\s*(?:application|text)/(?:[\w.-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
_TEXT = re.compile(r"text/|application/(?:[\w.-]+\+)?(?:json|xml)\b|$", re.IGNORECASE)

Render = Callable[[Integration, Operation, dict[str, object]], OutboundRequest]
RenderOptional = Callable[[Integration, Operation, dict[str, object]], OutboundRequest | None]


@dataclass(frozen=True)
class ProviderResponse:
    """What the provider answered.

    Attributes:
        document: status, headers and body, for expressions; a body that is not JSON is a string.
        problem: why the body cannot be used; it is null then.
        retryable: why the same request may succeed a moment later, by its status.
        retry_after: the delay that its headers ask for, whatever its status.
    """

    operation: Operation
    status: int
    document: dict[str, Any]
    problem: str | None = None
    retryable: RetryableError | None = None
    retry_after: timedelta | None = None


@overload
async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: Render,
    *,
    holds_others: bool = ...,
    **known: object,
) -> ProviderResponse: ...


@overload
async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: RenderOptional,
    *,
    holds_others: bool = ...,
    **known: object,
) -> ProviderResponse | None: ...


async def call_provider(
    deps: Dependencies,
    request: CallRequest,
    cycle: int,
    render: RenderOptional,
    *,
    holds_others: bool = False,
    **known: object,
) -> ProviderResponse | None:
    """Send one request of a call's operation.

    Args:
        render: builds the request; None where the operation has none of this kind.
        holds_others: a pause that a 429 asks for is kept by all sends.
        known: what templates know besides the call's request: reference, response, reason.

    Raises:
        RetryableError: network error, or no token. A status that asks for another attempt is in the
            result: an expression of the file may explain it.
        InvalidInputError: the request cannot be built; nothing was sent.
        ConfigurationError: the worker does not know the operation or the secret.
    """
    integration = deps.catalog.integration(request.provider)
    operation = deps.catalog.operation(request.provider, request.operation)
    deps.secrets.use_in_task()
    context = deps.template_context(request, cycle, **known)
    outbound = render(integration, operation, context)
    if outbound is None:
        return None
    if integration.hook is not None:
        outbound = apply_hook(integration, outbound, context, deps.secrets)
    sent_at = deps.clock()
    reply = await _exchange(deps, request.provider, outbound)
    document, problem = await _document(deps, integration, reply)
    retry_after = _retry_after(reply, deps.clock())
    _count_for_quota(deps, request, reply, sent_at, retry_after if holds_others else None)
    return ProviderResponse(
        operation,
        reply.status,
        document,
        problem=problem,
        retryable=_retryable(reply.status, retry_after),
        retry_after=retry_after,
    )


async def fetch_document(
    deps: Dependencies, integration: Integration, outbound: OutboundRequest
) -> dict[str, Any]:
    """The document of a 2xx answer to a request that belongs to no call.

    Raises:
        RetryableError: network error, no token, an unreadable body, or a status that asks for
            another attempt.
        RefusedError: any other status.
        InvalidInputError: the request cannot be sent.
    """
    deps.secrets.use_in_task()
    if integration.hook is not None:
        outbound = apply_hook(integration, outbound, {}, deps.secrets)
    reply = await _exchange(deps, integration.provider, outbound)
    document, problem = await _document(deps, integration, reply)
    retryable = _retryable(reply.status, _retry_after(reply, deps.clock()))
    if retryable is not None:
        raise retryable
    if not 200 <= reply.status < 300:
        raise RefusedError(f"the provider answered {reply.status}")
    if problem is not None:
        raise RetryableError(problem)
    return document


def _retry_after(reply: HttpResponse, now: datetime) -> timedelta | None:
    value = reply.headers.get("retry-after")
    return parse_retry_after(value, now) if value is not None else None


def quota_key(deps: Dependencies, request: CallRequest) -> tuple[str, str]:
    """The provider and the tenant whose quota a request uses."""
    limits = deps.catalog.integration(request.provider).limits
    if limits is None or limits.quota_of == "provider":
        return request.provider, WHOLE_QUOTA
    operation = deps.catalog.operation(request.provider, request.operation)
    tenant = fairness_key(operation, deps.template_context(request, 1))
    return request.provider, tenant or WHOLE_QUOTA


def _count_for_quota(
    deps: Dependencies,
    request: CallRequest,
    reply: HttpResponse,
    sent_at: datetime,
    pause: timedelta | None,
) -> None:
    """Count an answer for the rate at which the provider is sent requests."""
    key, now = quota_key(deps, request), deps.clock()
    limits = deps.catalog.integration(request.provider).limits
    own = limits.headers if limits else None
    stated = None
    if own is not None or not USUAL_QUOTA_HEADERS.isdisjoint(reply.headers):
        names_of = (own.remaining, own.reset, own.limit) if own else None
        stated = read_statement(reply.headers, now, names_of)
    snapshot = deps.snapshots.latest(request.provider)
    deps.counters.quotas.count(
        key,
        sent_at,
        now,
        throttled=reply.status == TOO_MANY_REQUESTS,
        pause=pause,
        stated=stated,
        is_limited=snapshot is not None and key[1] in snapshot.quotas,
    )


def refusal_of(response: ProviderResponse, redactor: Redactor) -> RefusedError:
    """A refusal: the status and, if there is one, the provider's reason, in one line."""
    said = refusal(response.operation, response.document, redactor)
    text = f"the provider refused with {response.status}"
    if said.reason:
        text = f"{text}: {said.reason[:MAX_QUOTED]}"
    return RefusedError(text, said.code, response.retry_after)


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
        deps.redactor(request),
    )
    if message is None:
        return None
    known: dict[str, Any] = {"reference": message.reference or reference}
    if message.kind is not MessageKind.EXTENSION:
        if message.retryable:
            known["retry_after"] = retry_delay(cycle, response.retry_after)
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


async def _exchange(deps: Dependencies, provider: str, outbound: OutboundRequest) -> HttpResponse:
    try:
        return await exchange(
            deps.http,
            method=outbound.method,
            url=outbound.url,
            headers=outbound.headers,
            content=outbound.content,
            auth=None if outbound.is_open else deps.auths[provider],
            timeout=outbound.timeout,
            max_bytes=MAX_REPLY_BYTES,
            pool=provider,
        )
    except (httpx.HTTPError, TimeoutError) as error:
        raise network_failure(error) from None
    except TokenError as error:
        raise RetryableError(str(error), retry_after=error.retry_after) from None


def _retryable(status: int, retry_after: timedelta | None) -> RetryableError | None:
    if not is_retryable_status(status):
        return None
    return RetryableError(
        f"the provider answered {status}",
        reached=status != TOO_MANY_REQUESTS,
        retry_after=retry_after,
        throttled=status in THROTTLING_STATUSES,
    )


async def _document(
    deps: Dependencies, integration: Integration, reply: HttpResponse
) -> tuple[dict[str, Any], str | None]:
    """As `_read`; a large answer is read in a thread."""
    known = deps.provider_redactor(integration.provider).known
    if len(reply.body) < THREAD_FROM:
        return _read(integration, reply, known)
    return await asyncio.to_thread(_read, integration, reply, known)


def _read(
    integration: Integration, reply: HttpResponse, known: KnownSecrets
) -> tuple[dict[str, Any], str | None]:
    """The document of an answer, and why its body cannot be used; it is null then.

    Secrets of ours are removed before anything reads it: providers repeat what they were sent.
    """
    content_type = reply.headers.get("content-type", "")
    problem, body = reply.problem, None
    if problem is None:
        try:
            if integration.code.read is not None:
                body = integration.code.read_body(reply.body, reply.headers)
            else:
                body = _body(reply.body, content_type, known)
        except InvalidInputError as error:
            problem = str(error)
    body, headers = known.remove([body, dict(reply.headers)])
    fields = body if isinstance(body, dict) and BINARY not in body else {}
    document = {
        **fields,
        "body": body,
        "headers": headers,
        "query": {},
        "status": reply.status,
    }
    return document, problem


def _body(content: bytes, content_type: str, known: KnownSecrets) -> Any:
    """The value of a body: null if it is blank, a text if it is no JSON and does not have to be.

    Raises:
        InvalidInputError: it is not what its headers say.
    """
    is_json = _JSON_TYPE.match(content_type) is not None
    text = _decoded(content, content_type, is_json=is_json)
    if text is None:
        return binary(content_type, known.remove_bytes(content))
    if not text.strip().removeprefix("\ufeff"):
        return None
    if (media := OBJECT_MEDIA.match(content_type)) is not None:
        is_xml = media[1].lower() == "xml"
        return read_xml(text.encode(), charset="utf-8") if is_xml else read_form(text.encode())
    try:
        return read_json(text.encode(), is_lenient=True)
    except UnicodeEncodeError:
        raise InvalidInputError("the answer has half of a surrogate pair") from None
    except InvalidInputError as error:
        if is_json or (not content_type and text.lstrip().startswith(("{", "["))):
            raise InvalidInputError(f"the answer should be JSON; {error}") from None
        return text


def _decoded(body: bytes, content_type: str, *, is_json: bool) -> str | None:
    """The body as text; None if it is binary.

    Raises:
        InvalidInputError: it is neither in its charset nor in UTF-8.
    """
    is_text = _TEXT.match(content_type) is not None
    if not is_text and b"\0" in body:
        return None
    declared = CHARSET.search(content_type) or XML_CHARSET.match(body[:300].decode("latin-1"))
    named = declared[1] if declared else json.detect_encoding(body)
    is_unnamed_text = declared is None and not is_json and content_type.lower().startswith("text/")
    for charset in (named, "utf-8", *(("windows-1252",) if is_unnamed_text else ())):
        try:
            is_known = codecs.lookup(charset).name not in NO_CHARSETS
            if is_known and (charset == "utf-8" or not is_impossible(charset, body)):
                return body.decode(charset)
        except (UnicodeError, LookupError):
            continue
    if is_text and content_type:
        raise InvalidInputError(f"the answer cannot be decoded as {named[:MAX_CHARSET]}")
    return None


async def store_if_large(deps: Dependencies, call_id: str, name: str, data: Any) -> Any:
    """As `ackbridge.ledger.bodies.store_if_large`, in the ledger of this worker."""
    return data if data is None else await bounded_data(deps.ledger.bodies, call_id, name, data)


async def with_bounded_data(
    deps: Dependencies, call_id: str, message: ProviderMessage
) -> ProviderMessage:
    """The message, with a reference in place of data that is large; raises as `store_if_large`."""
    data = await store_if_large(deps, call_id, message.event_key, message.data)
    return message if data is message.data else message.model_copy(update={"data": data})


async def load_data(deps: Dependencies, data: Any) -> Any:
    """The data that a reference refers to; any other data as it is. None once it is deleted."""
    ref = BodyRef.of_data(data)
    if ref is None:
        return data
    body = await deps.ledger.bodies.read(ref.id)
    if body is None:
        return None
    return read_json(body) if ref.content_type == JSON_TYPE else binary(ref.content_type, body)
