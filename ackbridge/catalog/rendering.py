"""Render what an operation sends: requests, acknowledgements, status requests and notices. Pure."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from ackbridge.contracts.calls import Notice
from ackbridge.contracts.wire import InvalidInputError, digest
from ackbridge.security.secrets import Secrets

from .callbacks import ListSpec
from .encodings import WireFormatError, write_multipart, write_xml
from .expressions import Expression, ExpressionError
from .fields import Encoding
from .hooks import call
from .model import HttpRequest, Integration, NoticeTexts, Operation
from .templates import (
    BodyTemplate,
    Clean,
    Context,
    PathTemplate,
    ScalarTemplate,
    Template,
    TextTemplate,
    decimal_text,
    scalar_text,
)

EVENT_LIST_TIMEOUT: Final = timedelta(seconds=30)

MAX_TITLE_LENGTH: Final = 120
MAX_TEXT_LENGTH: Final = 600
"""Characters of a notice's message, and of its alternative; every call's history carries them."""

MAX_AMOUNT_LENGTH: Final = 40
"""Characters of the value of an operation's `sum`."""

MAX_FAIRNESS_KEY_BYTES: Final = 64
"""Temporal's limit."""

_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)

# Every number is matched as a whole: a search for an exponent would begin again at each digit.
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?', re.ASCII)

_LINK = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?([/?][!-\[\]-~]*)?")

# A key may contain characters that a header cannot; % is quoted too, so that keys stay distinct.
_SAFE_IN_KEYS = string.punctuation.replace("%", "")


class MissingReferenceError(InvalidInputError):
    """An acknowledgement needs the provider's reference, and none is known."""


@dataclass(frozen=True)
class OutboundRequest:
    """One HTTP request, complete except for its authentication.

    Attributes:
        url: with the query.
        timeout: of the whole exchange.
        content: the encoded body; None for no body.
        is_open: it goes to a host that must not see our authentication.
    """

    method: str
    url: str
    timeout: timedelta
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    is_open: bool = False


def render_request(
    integration: Integration, operation: Operation, context: Context
) -> OutboundRequest:
    """Render the operation's request.

    Raises:
        InvalidInputError: a template has no usable value; names the template, not the value.
    """
    headers = _idempotency_header(operation, context)
    timeout = operation.receipt.timeout
    return _request(integration, operation.request, timeout, context, "request", headers)


def render_acknowledgement(
    integration: Integration, operation: Operation, kind: str, context: Context
) -> OutboundRequest | None:
    """Render an acknowledgement; None where the operation sends none of this kind.

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
        raise MissingReferenceError(
            f"{error}; it needs the provider's reference, and none is known"
        ) from None


def _acknowledgement(
    integration: Integration, operation: Operation, kind: str, context: Context
) -> OutboundRequest | None:
    acknowledge = operation.acknowledge
    request = acknowledge.request(kind) if acknowledge is not None else None
    if acknowledge is None or request is None:
        return None
    where = "acknowledge" if request.path is acknowledge.path else f"acknowledge.{kind}"
    headers = _idempotency_header(operation, context, f":{kind}")
    return _request(integration, request, acknowledge.timeout, context, where, headers)


def render_status(
    integration: Integration, operation: Operation, context: Context
) -> OutboundRequest | None:
    """Render the status request; None where the operation has none.

    Raises:
        MissingReferenceError: its query needs the reference, and the context has none.
        InvalidInputError: as `render_request`, for instance when no reference is known.
    """
    status = operation.response.status
    if status is None:
        return None
    if context["reference"] is None:
        _require_no_reference(status, context)
    return _request(integration, status, operation.receipt.timeout, context, "response.status")


def render_result(
    integration: Integration, operation: Operation, context: Context
) -> OutboundRequest | None:
    """Render the request for the result; None where the message of the success has it.

    Raises:
        InvalidInputError: as `render_request`.
    """
    result = operation.response.result
    if result is None:
        return None
    return _request(integration, result, result.timeout, context, "response.result")


def _require_no_reference(status: HttpRequest, context: Context) -> None:
    """Without it, a parameter that is left out would ask about every work of the provider."""
    named: list[tuple[str, Template]] = [(f"query.{n}", one) for n, one in status.query.items()]
    named += [("body", template) for template in status.body.templates] if status.body else []
    for name, template in named:
        reads = (read for one in template.expressions for read in one.referenced_names())
        if ("reference",) in reads and template.render(context) is None:
            raise MissingReferenceError(
                f"response.status.{name}: it needs the provider's reference, and none is known"
            )


def apply_hook(
    integration: Integration, request: OutboundRequest, context: Context, secrets: Secrets
) -> OutboundRequest:
    """The request as the integration's Python code changes and signs it.

    Raises:
        InvalidInputError: the code fails, or what it makes cannot be sent.
    """
    code = integration.code
    if code.render is not None:
        request = call("render", code.render, request, dict(context))
        if not isinstance(request, OutboundRequest) or _LINK.fullmatch(request.url) is None:
            raise InvalidInputError("hook: render must return a request with an http or https URL")
        access = integration.access_to(request.url)
        if access is None:
            host = urlsplit(request.url).netloc
            raise InvalidInputError(f"hook: render: {host} is not one of hosts")
        request = replace(request, is_open=access == "open")
    if code.sign is not None:
        headers = call("sign", code.sign, request, _remembering(code.refs, secrets))
        if not isinstance(headers, Mapping):
            raise InvalidInputError("hook: sign must return headers by name")
        added = {str(name): str(value) for name, value in headers.items()}
        request = replace(request, headers={**request.headers, **added})
    return request


def _remembering(refs: set[str], secrets: Secrets) -> Callable[[str], str]:
    """Resolves references, and notes them for redaction: the code names them nowhere else."""

    def resolve(ref: str) -> str:
        refs.add(ref)
        return secrets.resolve(ref)

    return resolve


def render_event_list(
    integration: Integration, spec: ListSpec, context: Context
) -> OutboundRequest:
    """Render the request for a page of the provider's events.

    Args:
        context: `since`, `until`, and `page`, which is null for the first one. Where no template
            reads it, it is the URL or the path of the page.

    Raises:
        InvalidInputError: as `render_request`.
    """
    templates = (spec.path, *spec.query.values(), *spec.headers.values())
    read = (name for one in templates for e in one.expressions for name in e.referenced_names())
    is_link = context["page"] is not None and ("page",) not in read
    request = HttpRequest.model_construct(
        method="GET",
        path=None if is_link else spec.path,
        url=Expression("page") if is_link else None,
        query={} if is_link else spec.query,
        headers=spec.headers,
    )
    return _request(integration, request, EVENT_LIST_TIMEOUT, context, "callbacks.list")


def render_health(integration: Integration) -> OutboundRequest | None:
    """Render the health request; None where the integration has none."""
    health = integration.health
    if health is None:
        return None
    return OutboundRequest("GET", integration.base_url + health.path, health.timeout)


def render_notice(
    kind: str,
    texts: NoticeTexts,
    context: Context,
    language: str | None = None,
    clean: Clean | None = None,
) -> Notice | None:
    """Render a notice; None where one of its templates has no usable value.

    Args:
        kind: one of `NOTICE_KINDS`.
        language: the user's, a language tag.
        clean: applied to each value before it becomes part of the text.
    """
    text = texts.choose(language)
    try:
        title = _bounded(text.title, context, MAX_TITLE_LENGTH, clean)
        message = _bounded(text.message, context, MAX_TEXT_LENGTH, clean)
        alternative = (
            _bounded(text.alternative, context, MAX_TEXT_LENGTH, clean) if text.alternative else ""
        )
    except ExpressionError:
        return None
    if not title or not message:
        return None
    return Notice(kind=kind, title=title, message=message, alternative=alternative or None)


def _bounded(template: TextTemplate, context: Context, longest: int, clean: Clean | None) -> str:
    text = template.render_text(context, clean).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def amount(operation: Operation, context: Context) -> str | None:
    """The operation's `sum` for one call, as decimal text; None where it is not a number."""
    value = operation.sum.search(context) if operation.sum is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = value if isinstance(value, str) else decimal_text(value)
    return text if len(text) <= MAX_AMOUNT_LENGTH and _DECIMAL.fullmatch(text) else None


def fairness_key(operation: Operation, context: Context) -> str | None:
    """The tenant of one call, by the operation's `fairness`; None where it says nothing."""
    value = operation.fairness.search(context) if operation.fairness is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    key = str(value)
    is_short = len(key.encode()) <= MAX_FAIRNESS_KEY_BYTES
    return key if is_short else digest(key)[:MAX_FAIRNESS_KEY_BYTES]


def _idempotency_header(operation: Operation, context: Context, suffix: str = "") -> dict[str, str]:
    """The header with the key; with a suffix, the key of something else about the same work."""
    spec = operation.request.key
    if spec is None or spec.header is None:
        return {}
    key = f"{context['call']['idempotency_key']}{suffix}"
    if spec.key is not None:
        known = {**context, "call": {**context["call"], "idempotency_key": key}}
        with _naming("request.idempotency.key"):
            value = spec.key.render(known)
            key = "" if value is None else scalar_text(value, spec.key.source)
        if not key:
            raise InvalidInputError(f"request.idempotency.key: {spec.key.source} has no value")
    key = quote(key, safe=_SAFE_IN_KEYS)
    if spec.max_length is not None and len(key) > spec.max_length:
        raise InvalidInputError(
            f"request.idempotency: the key has {len(key)} characters, and the provider takes"
            f" {spec.max_length}"
        )
    return {spec.header: key}


def _request(
    integration: Integration,
    request: HttpRequest,
    timeout: timedelta,
    context: Context,
    where: str,
    own_headers: Mapping[str, str] = MappingProxyType({}),
) -> OutboundRequest:
    """Render a request.

    Args:
        where: the field that it is, for errors.
        own_headers: headers that the file does not have to name; its own ones win.
    """
    headers = {**own_headers, **_headers(request.headers, context, where)}
    url, is_open = _url(integration, request, context, where)
    content = None
    if request.body is not None:
        content, content_type = _encode_body(request.body, request.encoding, context, where)
        if content is not None and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = content_type
    return OutboundRequest(request.method, url, timeout, headers, content, is_open)


def _headers(
    templates: Mapping[str, ScalarTemplate], context: Context, where: str
) -> dict[str, str]:
    headers = {}
    for name, template in templates.items():
        here = f"{where}.headers.{name}"
        with _naming(here):
            value = template.render(context)
            if value is None:
                continue
            text = scalar_text(value, template.source)
        if not text.isascii() or not text.isprintable():
            raise InvalidInputError(f"{here}: contains characters that are not allowed in a header")
        headers[name] = text.strip()
    return headers


def _url(
    integration: Integration, request: HttpRequest, context: Context, where: str
) -> tuple[str, bool]:
    """The URL, and whether the request goes there without our authentication."""
    is_open = False
    if request.path is not None:
        url = integration.base_url + _path(request.path, context, f"{where}.path")
    elif request.url is not None:
        url, is_open = _linked_url(integration, request.url, context, f"{where}.url")
    else:
        raise InvalidInputError(f"{where}: has neither a path nor a url")
    pairs = list(_query(request.query, context, f"{where}.query"))
    separator = "&" if "?" in url else "?"
    return f"{url}{separator}{urlencode(pairs)}" if pairs else url, is_open


def _linked_url(
    integration: Integration, expression: Expression, context: Context, here: str
) -> tuple[str, bool]:
    """A URL that the provider has sent; only its own host and those of the file are allowed."""
    with _naming(here):
        value = expression.evaluate(context)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{here}: {expression.text} has no value")
    url = urljoin(f"{integration.base_url}/", value.strip()).partition("#")[0]
    if _LINK.fullmatch(url) is None:
        raise InvalidInputError(f"{here}: {expression.text} is not an http or https URL")
    access = integration.access_to(url)
    if access is None:
        host = urlsplit(url).netloc
        raise InvalidInputError(f"{here}: {host} is neither the host of base_url nor one of hosts")
    return url, access == "open"


def _path(template: PathTemplate, context: Context, here: str) -> str:
    segments = []
    for part in template.parts:
        if isinstance(part, str):
            segments.append(part)
            continue
        with _naming(f"{here}: {template.source}"):
            value = part.evaluate(context)
            text = "" if value is None else scalar_text(value, part.text)
        if not text:
            raise InvalidInputError(f"{here}: {template.source}: {part.text} has no value")
        segments.append(quote(text, safe=""))
    path = "".join(segments)
    # Quoting leaves dots as they are, and servers resolve such segments to another path.
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InvalidInputError(f"{here}: {template.source}: a path segment must not be . or ..")
    return path


def _query(
    templates: Mapping[str, ScalarTemplate], context: Context, where: str
) -> Iterator[tuple[str, str]]:
    for name, template in templates.items():
        with _naming(f"{where}.{name}"):
            value = template.render(context)
            for single in value if isinstance(value, list) else [value]:
                if single is not None:
                    yield name, scalar_text(single, template.source)


def _encode_body(
    body: BodyTemplate, encoding: Encoding, context: Context, where: str
) -> tuple[bytes | None, str]:
    """The body and its content type."""
    here = f"{where}.body"
    with _naming(here):
        value = body.render(context)
    if value is None:
        return None, ""
    try:
        return _encoded(value, encoding)
    except (TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, WireFormatError | ExpressionError) else ""
        raise InvalidInputError(f"{here}: cannot be written as {encoding}{reason}") from None


def _encoded(value: Any, encoding: Encoding) -> tuple[bytes, str]:
    match encoding:
        case "json":
            return _json_text(value).encode(), "application/json"
        case "form":
            if not isinstance(value, dict):
                raise WireFormatError("a form must be a mapping")
            fields = urlencode(list(_form_fields("", value)))
            return fields.encode(), "application/x-www-form-urlencoded"
        case "text":
            return scalar_text(value, "the body").encode(), "text/plain; charset=utf-8"
        case "xml":
            return write_xml(value), "application/xml"
        case "multipart":
            return write_multipart(value)


def _json_text(value: Any) -> str:
    """JSON whose numbers are decimals; many parsers take no exponents."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _STRING_OR_NUMBER.sub(lambda found: _without_exponent(found[0]), text)


def _without_exponent(token: str) -> str:
    if token.startswith('"') or "e" not in token.lower():
        return token
    return decimal_text(float(token))


def _form_fields(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values become `a[b]=c` and `a[0]=b`; null values are left out."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _form_fields(f"{name}[{key}]" if name else str(key), inner)
    elif value is not None:
        yield name, scalar_text(value, name)


@contextmanager
def _naming(template: str) -> Iterator[None]:
    """Name the template that an expression's error is about."""
    try:
        yield
    except ExpressionError as error:
        raise InvalidInputError(f"{template}: {error}") from None
