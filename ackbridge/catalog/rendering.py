"""Render what an operation sends: requests, acknowledgements, status requests, and notices."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from ackbridge.contracts.calls import Notice
from ackbridge.contracts.wire import InvalidInputError

from .expressions import ExpressionError
from .fields import Encoding
from .model import Integration, NoticeTexts, Operation
from .templates import (
    BodyTemplate,
    Context,
    PathTemplate,
    ScalarTemplate,
    TextTemplate,
    scalar_text,
)

_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}

# A key may have any character, a header may not; % is quoted too, so that two keys stay two.
_SAFE_IN_KEYS = string.punctuation.replace("%", "")


class MissingReferenceError(InvalidInputError):
    """An acknowledgement that cannot be written without the provider's reference."""


@dataclass(frozen=True)
class OutboundRequest:
    """One HTTP request, ready to be sent but for its authentication.

    Attributes:
        url: with the query.
        timeout: of the whole exchange.
        content: the encoded body; None for no body.
    """

    method: str
    url: str
    timeout: timedelta
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)


def render_request(
    integration: Integration, operation: Operation, context: Context
) -> OutboundRequest:
    """The operation's request.

    Args:
        context: payload, metadata, call, callback_url, reference, response, reason.

    Raises:
        InvalidInputError: a template has no usable value; the text names it and hides the value.
    """
    request = operation.request
    headers = {**_key(operation, context), **_headers(request.headers, context, "request")}
    content = None
    if request.body is not None:
        content = _content(request.body, request.encoding, context, "request.body")
    return OutboundRequest(
        request.method,
        _url(integration, request.path, request.query, context, "request"),
        operation.receipt.timeout,
        _with_type(headers, request.encoding, content),
        content,
    )


def render_acknowledgement(
    integration: Integration, operation: Operation, kind: str, context: Context
) -> OutboundRequest | None:
    """The acknowledgement of an answer, or of its absence; None where there is none of the kind.

    Args:
        kind: `success` or `failed`; part of the idempotency key.

    Raises:
        MissingReferenceError: it needs the reference, and the context has none.
        InvalidInputError: as `render_request`.
    """
    try:
        return _acknowledgement(integration, operation, kind, context)
    except InvalidInputError as error:
        if context["reference"] is not None:
            raise
        try:
            _acknowledgement(integration, operation, kind, {**context, "reference": "known"})
        except InvalidInputError:
            raise error from None
        reason = f"{error}; it needs the provider's reference, and none is known"
        raise MissingReferenceError(reason) from None


def _acknowledgement(
    integration: Integration, operation: Operation, kind: str, context: Context
) -> OutboundRequest | None:
    acknowledge = operation.acknowledge
    if acknowledge is None:
        return None
    body = acknowledge.success if kind == "success" else acknowledge.failed
    if body is None:
        return None
    headers = {
        **_key(operation, context, f":{kind}"),
        **_headers(acknowledge.headers, context, "acknowledge"),
    }
    content = _content(body, acknowledge.encoding, context, f"acknowledge.{kind}")
    return OutboundRequest(
        acknowledge.method,
        _url(integration, acknowledge.path, {}, context, "acknowledge"),
        acknowledge.timeout,
        _with_type(headers, acknowledge.encoding, content),
        content,
    )


def render_status(
    integration: Integration, operation: Operation, context: Context
) -> OutboundRequest | None:
    """The question how the provider's work stands; None where it cannot be asked.

    Raises:
        InvalidInputError: as `render_request`; for instance a reference that never came.
    """
    status = operation.response.status
    if status is None:
        return None
    return OutboundRequest(
        status.method,
        _url(integration, status.path, status.query, context, "response.status"),
        operation.receipt.timeout,
        _headers(status.headers, context, "response.status"),
    )


def render_health(integration: Integration) -> OutboundRequest | None:
    """The question whether the provider is up; None where it has no such request."""
    if integration.health is None:
        return None
    health = integration.health
    return OutboundRequest("GET", integration.base_url + health.path, health.timeout)


def _key(operation: Operation, context: Context, suffix: str = "") -> dict[str, str]:
    name = operation.request.idempotency_header
    if name is None:
        return {}
    return {name: quote(f"{context['call']['idempotency_key']}{suffix}", safe=_SAFE_IN_KEYS)}


def _with_type(headers: dict[str, str], encoding: str, content: bytes | None) -> dict[str, str]:
    if content is None or any(name.lower() == "content-type" for name in headers):
        return headers
    return {**headers, "Content-Type": _CONTENT_TYPES[encoding]}


def _headers(
    templates: Mapping[str, ScalarTemplate], context: Context, where: str
) -> dict[str, str]:
    headers = {}
    for name, template in templates.items():
        here = f"{where}.headers.{name}"
        value = _value(template, context, here)
        if value is None:
            continue
        text = _scalar(value, template.source, here)
        if not text.isascii() or not text.isprintable():
            raise InvalidInputError(f"{here}: has characters that a header cannot have")
        headers[name] = text.strip()
    return headers


def _url(
    integration: Integration,
    path: PathTemplate,
    query: Mapping[str, ScalarTemplate],
    context: Context,
    where: str,
) -> str:
    url = integration.base_url + _path(path, context, f"{where}.path")
    pairs = list(_query(query, context, f"{where}.query"))
    return f"{url}?{urlencode(pairs)}" if pairs else url


def _path(template: PathTemplate, context: Context, here: str) -> str:
    pieces = []
    for part in template.parts:
        if isinstance(part, str):
            pieces.append(part)
            continue
        try:
            value = part.evaluate(context)
            text = "" if value is None else scalar_text(value, part.text)
        except ExpressionError as error:
            raise InvalidInputError(f"{here}: {template.source}: {error}") from None
        if not text:
            raise InvalidInputError(f"{here}: {template.source}: {part.text} has no value")
        pieces.append(quote(text, safe=""))
    path = "".join(pieces)
    # Quoting leaves dots alone, and servers walk up the tree at them.
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InvalidInputError(f"{here}: {template.source}: a segment is . or ..")
    return path


def _query(
    templates: Mapping[str, ScalarTemplate], context: Context, where: str
) -> Iterator[tuple[str, str]]:
    for name, template in templates.items():
        here = f"{where}.{name}"
        value = _value(template, context, here)
        for single in value if isinstance(value, list) else [value]:
            if single is not None:
                yield name, _scalar(single, template.source, here)


def _content(body: BodyTemplate, encoding: Encoding, context: Context, here: str) -> bytes | None:
    value = _value(body, context, here)
    if value is None:
        return None
    if encoding == "form" and not isinstance(value, dict):
        raise InvalidInputError(f"{here}: a form is a mapping")
    try:
        if encoding == "form":
            return urlencode(list(_form_fields("", value))).encode()
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise InvalidInputError(f"{here}: cannot be written as {encoding}") from None


def _form_fields(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as `a[b]=c` and `a[0]=b`; null is left out."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _form_fields(f"{name}[{key}]" if name else str(key), inner)
    elif value is not None:
        yield name, scalar_text(value, name)


def _value(template: ScalarTemplate | BodyTemplate, context: Context, here: str) -> Any:
    try:
        return template.value(context)
    except ExpressionError as error:
        raise InvalidInputError(f"{here}: {error}") from None


def _scalar(value: Any, what: str, here: str) -> str:
    try:
        return scalar_text(value, what)
    except ExpressionError as error:
        raise InvalidInputError(f"{here}: {error}") from None


MAX_TITLE_LENGTH = 120
MAX_TEXT_LENGTH = 600
"""Characters of a message, and of an alternative; every call carries its notices."""

Clean = Callable[[str], str]
"""Takes out of a value what must not be shown."""


def render_notice(
    kind: str,
    texts: NoticeTexts,
    context: Context,
    language: str | None = None,
    clean: Clean | None = None,
) -> Notice | None:
    """One notice; None where it cannot be said, because a template has no usable value.

    Args:
        kind: one of `NOTICE_KINDS`.
        context: payload, metadata, call.
        language: which the user reads, a language tag.
        clean: what every value goes through before it is put into the text.
    """
    text = texts.choose(language)
    try:
        title = _bounded(text.title, context, MAX_TITLE_LENGTH, clean)
        message = _bounded(text.message, context, MAX_TEXT_LENGTH, clean)
        alternative = (
            _bounded(text.alternative, context, MAX_TEXT_LENGTH, clean)
            if text.alternative
            else None
        )
    except ExpressionError:
        return None
    if not title or not message:
        return None
    return Notice(kind=kind, title=title, message=message, alternative=alternative or None)


def _bounded(template: TextTemplate, context: Context, longest: int, clean: Clean | None) -> str:
    text = template.text(context, clean).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
