"""Understanding what our own side sends: which part of the integration file it comes from."""

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
from ackbridge.sandbox.provider_dialect import Incoming

Part = Literal["request", "status", "success", "failed"]
"""A request, a status request, or an acknowledgement of either kind."""


@dataclass(frozen=True)
class Route:
    """Where one part of an operation goes.

    Attributes:
        path: matches raw paths.
        body: what stands in the file; None for no body.
    """

    operation: str
    part: Part
    method: str
    path: re.Pattern[str]
    query: Mapping[str, Template]
    body: BodyTemplate | None = None
    encoding: str = "json"

    def fits(self, request: Incoming) -> bool:
        """Whether a request may have come from here."""
        if request.method != self.method or not self.path.fullmatch(request.path):
            return False
        given = dict(parse_qsl(request.query, keep_blank_values=True))
        if not agrees(dict(self.query), given):
            return False
        return self.body is None or self._has(request.body)

    def _has(self, body: bytes) -> bool:
        shape = self.body.content if self.body is not None else None
        if self.encoding == "form":
            if isinstance(shape, Expression):
                return True
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
            leaves = dict(_flat("", shape))
            # A list or an object in place of a value is spread over fields of its own.
            spread = tuple(f"{name}[" for name in leaves)
            return agrees(leaves, {k: v for k, v in fields.items() if not k.startswith(spread)})
        return agrees(shape, parsed(body))


def routes(integration: Integration) -> list[Route]:
    """Every route of a file, in its order."""
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
    path = _pattern(base, acknowledge.path)
    kinds: tuple[tuple[Part, BodyTemplate | None], ...] = (
        ("success", acknowledge.success),
        ("failed", acknowledge.failed),
    )
    for part, body in kinds:
        if body is not None:
            yield Route(name, part, acknowledge.method, path, {}, body, acknowledge.encoding)


def agrees(shape: Any, value: Any) -> bool:
    """Whether a value may have been made from a template: what is fixed there is the same here."""
    if isinstance(shape, Expression):
        return True
    if isinstance(shape, Template):
        return _agrees_with_text(shape, value)
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= shape.keys()
            and all(
                agrees(inner, value[key]) if key in value else _may_be_null(inner)
                for key, inner in shape.items()
            )
        )
    if isinstance(shape, list):
        is_list = isinstance(value, list) and len(value) == len(shape)
        return is_list and all(map(agrees, shape, value))
    return bool(shape == value) or json.dumps(shape) == value


def parsed(body: bytes) -> Any:
    """JSON if it is JSON, else the text."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return body.decode("utf-8", "replace")


def everything_said(request: Incoming) -> str:
    """All texts of a request, decoded, one a line: for finding ids in them."""
    body = request.body.decode("utf-8", "replace")
    said = [unquote(request.path), unquote_plus(request.query), body, unquote_plus(body)]
    return "\n".join([*said, *map(unquote, request.headers.values())])


def _pattern(base: str, path: Template) -> re.Pattern[str]:
    parts = [re.escape(part) if isinstance(part, str) else "[^/]+" for part in path.parts]
    return re.compile(re.escape(base) + "".join(parts))


def _agrees_with_text(template: Template, value: Any) -> bool:
    if template.expressions == template.parts:
        return True
    parts = [re.escape(part) if isinstance(part, str) else ".*" for part in template.parts]
    return isinstance(value, str) and re.fullmatch("".join(parts), value, re.DOTALL) is not None


def _may_be_null(shape: Any) -> bool:
    if isinstance(shape, Template):
        return bool(shape.expressions)
    return shape is None or isinstance(shape, Expression)


def _flat(name: str, shape: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a form, as they are named in it."""
    if isinstance(shape, dict | list):
        items = shape.items() if isinstance(shape, dict) else enumerate(shape)
        for key, inner in items:
            yield from _flat(f"{name}[{key}]" if name else str(key), inner)
    else:
        yield name, shape
