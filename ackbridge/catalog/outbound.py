"""From an operation and a call's context to what goes over the wire. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from .schema import Body, Integration, Operation
from .templates import evaluate, render_path, render_text, render_tree

Context = Mapping[str, Any]
"""`payload, metadata, call, callback_url, reference, response, reason`."""

_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Outbound:
    """One HTTP request, ready to be sent but for its authentication."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)


def render_request(integration: Integration, operation: Operation, context: Context) -> Outbound:
    """The operation's request.

    Raises:
        Invalid: a path has no value where it needs one.
    """
    request = operation.request
    headers, content = _encode(request.body, request.encoding, context)
    headers |= _texts(request.headers, context)
    if request.idempotency_header:
        headers[request.idempotency_header] = str(context["call"]["idempotency_key"])
    url = _url(integration, request.path, request.query, context)
    return Outbound(request.method, url, headers, content)


def render_acknowledgement(
    integration: Integration,
    operation: Operation,
    kind: str,
    context: Context,
) -> Outbound | None:
    """The acknowledgement of an answer, or of its absence; None where there is none of the kind.

    Args:
        kind: `success` or `failed`.

    Raises:
        Invalid: a path has no value where it needs one.
    """
    acknowledge = operation.acknowledge
    if acknowledge is None:
        return None
    body = acknowledge.success if kind == "success" else acknowledge.failed
    if body is None:
        return None
    headers, content = _encode(body, acknowledge.encoding, context)
    headers |= _texts(acknowledge.headers, context)
    if operation.request.idempotency_header:
        key = f"{context['call']['idempotency_key']}:{kind}"
        headers[operation.request.idempotency_header] = key
    url = _url(integration, acknowledge.path, {}, context)
    return Outbound(acknowledge.method, url, headers, content)


def render_status(
    integration: Integration, operation: Operation, context: Context
) -> Outbound | None:
    """The question how the provider's work stands; None where it cannot be asked.

    Raises:
        Invalid: a path has no value where it needs one, such as a reference that never came.
    """
    status = operation.response.status
    if status is None:
        return None
    url = _url(integration, status.path, status.query, context)
    return Outbound(status.method, url, _texts(status.headers, context))


def render_health(integration: Integration) -> Outbound | None:
    """The question whether the provider is up; None where it has no such request."""
    if integration.health is None:
        return None
    return Outbound("GET", _url(integration, integration.health.path, {}, {}))


def _url(integration: Integration, path: str, query: Mapping[str, str], context: Context) -> str:
    url = integration.base_url + render_path(path, context)
    values = _texts(query, context)
    return f"{url}?{urlencode(values)}" if values else url


def _texts(templates: Mapping[str, str], context: Context) -> dict[str, str]:
    rendered = {name: render_text(text, context) for name, text in templates.items()}
    return {name: text for name, text in rendered.items() if text is not None}


def _encode(
    body: Body | None, encoding: str, context: Context
) -> tuple[dict[str, str], bytes | None]:
    if body is None:
        return {}, None
    value = evaluate(body, context) if isinstance(body, str) else render_tree(body, context)
    headers = {"Content-Type": _CONTENT_TYPES[encoding]}
    if encoding == "form":
        return headers, urlencode(list(_form_fields("", value))).encode()
    return headers, json.dumps(value, ensure_ascii=False).encode()


def _form_fields(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as `a[b]=c` and `a[0]=b`; null is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _form_fields(f"{name}[{key}]" if name else str(key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _form_fields(f"{name}[{index}]" if name else str(index), inner)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is not None:
        yield name, str(value)
