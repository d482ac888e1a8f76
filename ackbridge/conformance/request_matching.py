"""Matches what our own side sends to the part of the integration file and the call it is from."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.model import HttpRequest, Integration, Operation
from ackbridge.catalog.rendering import OutboundRequest, render_request, render_status
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.sandbox.provider_dialect import IncomingRequest
from ackbridge.security.secrets import CALLBACK_TOKEN

from .template_context import template_context

Part = Literal["request", "status", "result", "success", "failed"]
"""A request, a status request, one for the result, or an acknowledgement of either kind."""

_OF_CALL = ("reference", "kept", "call", "payload", "metadata", "response")
"""What differs from call to call."""

_MORE_CYCLES = 3
"""Cycles that reprocessing may add."""


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
    is_link: bool = False  # its whole URL is one that the provider has sent
    tells_call: bool = True  # whether it contains anything of the call, besides a key in a header

    def matches(self, request: IncomingRequest) -> bool:
        """Whether a request can have been rendered from this part."""
        if request.method != self.method or not self.path.fullmatch(request.path):
            return False
        given = dict(parse_qsl(request.query, keep_blank_values=True))
        if not self.is_link and not matches_template(dict(self.query), given):
            return False
        return self.body is None or self._matches_body(request.body)

    def _matches_body(self, body: bytes) -> bool:
        if self.encoding not in ("json", "form"):
            return True
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
    response, acknowledge = operation.response, operation.acknowledge
    parts: list[tuple[Part, HttpRequest | None]] = [
        ("request", operation.request),
        ("status", response.status),
        ("result", response.result),
    ]
    if acknowledge is not None:
        parts += [("success", acknowledge.request("success"))]
        parts += [("failed", acknowledge.request("failed"))]
    for part, sent in parts:
        if sent is not None:
            path = _pattern(base, sent.path)
            is_link = sent.path is None
            tells_call = part == "request" or _tells_call(sent)
            shape = (sent.query, sent.body, sent.encoding, is_link, tells_call)
            yield Route(name, part, sent.method, path, *shape)


def _tells_call(request: HttpRequest) -> bool:
    names = (name for one in request.expressions for name in one.referenced_names())
    return any(name[0] in _OF_CALL for name in names)


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
    """The call, cycle, operation and job that a request is for, as far as it tells."""

    call_id: str | None = None
    key: str | None = None  # the idempotency key in it; of an acknowledgement, without the suffix
    full_key: str | None = None  # with the suffix `:success` or `:failed`
    job_id: str | None = None  # of the job whose reference is in it
    operation: str | None = None
    part: Part | None = None  # where it is exactly what the file makes of the call

    @property
    def is_known(self) -> bool:
        return self.call_id is not None or self.job_id is not None


@dataclass(frozen=True)
class _Cycle:
    """One cycle of an expected call.

    Attributes:
        key: the idempotency key; None where requests do not tell their cycle.
        texts: what its requests and acknowledgements contain, and no others.
    """

    call_id: str
    operation: str
    key: str | None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rendered:
    """A request as the file makes it; headers by lower-case name."""

    cycle: _Cycle
    part: Part
    headers: Mapping[str, str]


class ExpectedCalls:
    """The calls that a provider can receive requests of, and the references it gave them."""

    def __init__(self, integration: Integration, callback_url: str) -> None:
        self._integration = integration
        self._callback_url = callback_url
        self._calls: dict[str, CallRequest] = {}
        self._cycles: list[_Cycle] = []
        self._rendered: defaultdict[tuple[str, str, bytes], list[_Rendered]] = defaultdict(list)
        self._references: dict[str, tuple[str, str]] = {}
        self._exclusive: CallRequest | None = None

    def add(self, request: CallRequest, *, identifies_call: bool, identifies_cycle: bool) -> None:
        """Expect a call.

        Args:
            identifies_call: whether its requests differ from those of other calls; otherwise it is
                the only current one of its kind, and gets those that identify no call.
            identifies_cycle: whether its requests differ from cycle to cycle.
        """
        self._calls[request.call_id] = request
        if not identifies_call:
            self._exclusive = request
            return
        operation = self._integration.operations[request.operation]
        last = operation.response.cycles + _MORE_CYCLES if identifies_cycle else 1
        for number in range(1, last + 1):
            self._add_cycle(request, operation, number, identifies_cycle=identifies_cycle)

    def add_reference(self, reference: str, job_id: str, operation: str) -> None:
        self._references[reference] = job_id, operation

    def exclusive(self, operations: Collection[str]) -> RequestOrigin:
        """The call that gets requests without an id, if it is of one of these operations."""
        call = self._exclusive
        if call is None or call.operation not in operations:
            return RequestOrigin()
        return RequestOrigin(call_id=call.call_id, operation=call.operation)

    def identify(self, request: IncomingRequest) -> RequestOrigin:
        """Find the call of a request: by the whole of it, or by a key, an id or a reference."""
        rendered = self._find_rendered(request)
        if rendered is not None:
            cycle = rendered.cycle
            return RequestOrigin(
                cycle.call_id, cycle.key, operation=cycle.operation, part=rendered.part
            )
        text = request_text(request)
        job_id, operation = next(
            (job for reference, job in self._references.items() if reference in text), (None, None)
        )
        by_reference = RequestOrigin(job_id=job_id, operation=operation)
        return self._find_cycle(text, job_id) or self._find_call(text, job_id) or by_reference

    def _find_rendered(self, request: IncomingRequest) -> _Rendered | None:
        target = f"{request.path}?{request.query}" if request.query else request.path
        body = _TOKEN_IN_URL.sub(b"", request.body)
        known = self._rendered.get((request.method, target, body), ())
        found = [one for one in known if one.headers.items() <= request.headers.items()]
        # Those of several calls may be alike, where a status request is sent without a reference.
        return found[0] if len({one.cycle.call_id for one in found}) == 1 else None

    def _find_cycle(self, text: str, job_id: str | None) -> RequestOrigin | None:
        for cycle in self._cycles:
            for one in cycle.texts:
                # The number at its end must not be the beginning of another one.
                found = re.search(re.escape(one) + r"(?!\d)(?::(success|failed))?", text)
                if found is not None:
                    full_key = f"{cycle.key}:{found[1]}" if found[1] else None
                    ids = (cycle.call_id, cycle.key, full_key, job_id)
                    return RequestOrigin(*ids, operation=cycle.operation)
        return None

    def _find_call(self, text: str, job_id: str | None) -> RequestOrigin | None:
        for call_id, request in self._calls.items():
            if call_id in text or request.key in text:
                return RequestOrigin(call_id, job_id=job_id, operation=request.operation)
        return None

    def _add_cycle(
        self, request: CallRequest, operation: Operation, number: int, *, identifies_cycle: bool
    ) -> None:
        context = template_context(request, number, self._callback_url)
        sent = render_request(self._integration, operation, context)
        cycle = _Cycle(request.call_id, request.operation, None)
        if identifies_cycle:
            key, spec = context["call"]["idempotency_key"], operation.request.key
            texts = [key]
            if spec is not None and spec.header is not None:
                # The key in the form that the provider wants.
                texts.append(unquote(sent.headers[spec.header]))
            cycle = replace(cycle, key=key, texts=tuple(dict.fromkeys(texts)))
        self._cycles.append(cycle)
        self._add_rendered(cycle, "request", sent)
        try:
            asked = render_status(self._integration, operation, context)
        except InvalidInputError:
            return  # It needs the reference, which identifies it.
        if asked is not None:
            self._add_rendered(cycle, "status", asked)

    def _add_rendered(self, cycle: _Cycle, part: Part, sent: OutboundRequest) -> None:
        url = urlsplit(sent.url)
        target = f"{url.path}?{url.query}" if url.query else url.path
        headers = {name.lower(): value for name, value in sent.headers.items()}
        self._rendered[sent.method, target, sent.content or b""].append(
            _Rendered(cycle, part, headers)
        )


_TOKEN_IN_URL = re.compile(b"(?:/|%2F)" + CALLBACK_TOKEN.pattern.encode())
"""The end of a call's own callback URL, which only the worker can make."""


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
