"""Matches what our own side sends to the part of the integration file and the call it is from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.contracts.calls import CallRequest
from ackbridge.sandbox.provider_dialect import IncomingRequest

Part = Literal["request", "status", "success", "failed"]
"""A request, a status request, or an acknowledgement of either kind."""


@dataclass(frozen=True)
class Route:
    """One part of an operation: its method, path, query and body; `path` matches raw paths."""

    operation: str
    part: Part
    method: str
    path: re.Pattern[str]
    query: Mapping[str, Template]
    body: BodyTemplate | None = None
    encoding: str = "json"

    def matches(self, request: IncomingRequest) -> bool:
        """Whether a request can have been rendered from this part."""
        if request.method != self.method or not self.path.fullmatch(request.path):
            return False
        given = dict(parse_qsl(request.query, keep_blank_values=True))
        if not matches_template(dict(self.query), given):
            return False
        return self.body is None or self._matches_body(request.body)

    def _matches_body(self, body: bytes) -> bool:
        shape = self.body.content if self.body is not None else None
        if self.encoding == "form":
            if isinstance(shape, Expression):
                return True
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
            leaves = dict(_flat("", shape))
            # A list or an object in place of a value is encoded as several fields.
            nested = tuple(f"{name}[" for name in leaves)
            return matches_template(
                leaves, {k: v for k, v in fields.items() if not k.startswith(nested)}
            )
        return matches_template(shape, parse_body(body))


def build_routes(integration: Integration) -> list[Route]:
    base = urlsplit(integration.base_url).path
    return [
        route for name, one in integration.operations.items() for route in _routes(base, name, one)
    ]


def _routes(base: str, name: str, operation: Operation) -> Iterator[Route]:
    request, status = operation.request, operation.response.status
    yield Route(
        name,
        "request",
        request.method,
        _pattern(base, request.path),
        request.query,
        request.body,
        request.encoding,
    )
    if status is not None:
        path = _pattern(base, status.path)
        yield Route(name, "status", status.method, path, status.query)
    acknowledge = operation.acknowledge
    if acknowledge is None:
        return
    parts: tuple[Part, ...] = ("success", "failed")
    for part in parts:
        sent = acknowledge.request(part)
        if sent is not None:
            path = _pattern(base, sent.path)
            yield Route(name, part, sent.method, path, sent.query, sent.body, sent.encoding)


def matches_template(shape: Any, value: Any) -> bool:
    """Whether a value can have been rendered from a template: their constant parts are equal."""
    if isinstance(shape, Expression):
        return True
    if isinstance(shape, Template):
        return _matches_text(shape, value)
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= shape.keys()
            and all(
                matches_template(inner, value[key]) if key in value else _may_be_null(inner)
                for key, inner in shape.items()
            )
        )
    if isinstance(shape, list):
        is_list = isinstance(value, list) and len(value) == len(shape)
        return is_list and all(map(matches_template, shape, value))
    return bool(shape == value) or json.dumps(shape) == value


def parse_body(body: bytes) -> Any:
    """The JSON document, or the text if it is not JSON; None for an empty body."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return body.decode("utf-8", "replace")


def request_text(request: IncomingRequest) -> str:
    """Path, query, body and header values, decoded, one per line; ids are searched in it."""
    body = request.body.decode("utf-8", "replace")
    texts = [unquote(request.path), unquote_plus(request.query), body, unquote_plus(body)]
    return "\n".join([*texts, *map(unquote, request.headers.values())])


@dataclass(frozen=True)
class RequestOrigin:
    """The call, cycle and job that a request is for, as far as it tells."""

    call_id: str | None = None
    key: str | None = None  # the idempotency key in it; of an acknowledgement, without the suffix
    full_key: str | None = None  # with the suffix `:success` or `:failed`
    job_id: str | None = None  # of the job whose reference is in it

    @property
    def is_known(self) -> bool:
        return self.call_id is not None or self.job_id is not None


class ExpectedCalls:
    """The calls that a provider can receive requests of, and the references it gave them."""

    def __init__(self) -> None:
        self._requests: dict[str, CallRequest] = {}
        self._references: dict[str, str] = {}
        self._exclusive: dict[str, str] = {}

    def add(self, request: CallRequest, *, is_exclusive: bool) -> None:
        """Expect a call; an exclusive one is the only current call of its operation."""
        self._requests[request.call_id] = request
        if is_exclusive:
            self._exclusive[request.operation] = request.call_id

    def add_reference(self, reference: str, job_id: str) -> None:
        self._references[reference] = job_id

    def exclusive(self, operation: str) -> RequestOrigin:
        return RequestOrigin(call_id=self._exclusive.get(operation))

    def identify(self, text: str) -> RequestOrigin:
        """Find an idempotency key, a call id, the caller's own key, or a reference in a text."""
        job_id = next(
            (job for reference, job in self._references.items() if reference in text), None
        )
        for call_id, request in self._requests.items():
            key = re.search(re.escape(call_id) + r":\d+", text)
            if key is not None:
                full = re.search(re.escape(key.group()) + r":(success|failed)", text)
                return RequestOrigin(call_id, key.group(), full and full.group(), job_id)
            if call_id in text or request.key in text:
                return RequestOrigin(call_id, job_id=job_id)
        return RequestOrigin(job_id=job_id)


def _pattern(base: str, path: Template | None) -> re.Pattern[str]:
    if path is None:
        # The URL is an expression.
        return re.compile(".*")
    parts = [re.escape(part) if isinstance(part, str) else "[^/]+" for part in path.parts]
    return re.compile(re.escape(base) + "".join(parts))


def _matches_text(template: Template, value: Any) -> bool:
    if template.expressions == template.parts:
        return True
    parts = [re.escape(part) if isinstance(part, str) else ".*" for part in template.parts]
    return isinstance(value, str) and re.fullmatch("".join(parts), value, re.DOTALL) is not None


def _may_be_null(shape: Any) -> bool:
    if isinstance(shape, Template):
        return bool(shape.expressions)
    return shape is None or isinstance(shape, Expression)


def _flat(name: str, shape: Any) -> Iterator[tuple[str, Any]]:
    """Form fields by name: `a[b]`."""
    if isinstance(shape, dict | list):
        items = shape.items() if isinstance(shape, dict) else enumerate(shape)
        for key, inner in items:
            yield from _flat(f"{name}[{key}]" if name else str(key), inner)
    else:
        yield name, shape
