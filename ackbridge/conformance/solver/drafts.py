"""Partial documents: some places are decided, all others are free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from .targets import FREE, json_equal

Node = Any
"""A value in which places may be FREE; immutable, because drafts share it."""

Path = tuple[str | int, ...]
"""A place; `()` is the document as an expression sees it."""


class ConflictError(Exception):
    """The place is already decided otherwise."""


class ValueKind(StrEnum):
    """The kind of a document, which decides what its top level means."""

    VALUE = "value"
    CALLBACK = "callback"
    ANSWER = "answer"


_ENVELOPE_FIELDS: Mapping[ValueKind, frozenset[str]] = {
    ValueKind.VALUE: frozenset(),
    ValueKind.CALLBACK: frozenset({"body", "headers", "query"}),
    ValueKind.ANSWER: frozenset({"body", "headers", "query", "status"}),
}

# Set by HTTP libraries, or hidden from expressions.
_RESERVED_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "cookie", "host", "proxy-authorization"}
    | {"transfer-encoding"}
)


@dataclass(frozen=True)
class Draft:
    """A partial document."""

    kind: ValueKind  # for CALLBACK and ANSWER, fields of the body are at the top level too
    root: Node = FREE  # for VALUE the value itself, else `body`, `headers`, `query` and `status`

    def below(self, path: Path, name: str) -> Path:
        if path or self.kind is ValueKind.VALUE or name in _ENVELOPE_FIELDS[self.kind]:
            return (*path, name)
        return ("body", name)

    def at(self, path: Path) -> Node:
        """The value at a place; None where a decision above excludes it."""
        node = self.root
        for step in path:
            if node is FREE:
                return FREE
            if isinstance(step, str):
                node = node.get(step, FREE) if isinstance(node, dict) else None
            elif isinstance(node, list | tuple):
                node = node[step] if step < len(node) else FREE
            else:
                node = None
        return node

    def put(self, path: Path, value: Any) -> Draft:
        """Decide a place and its containers; raises `ConflictError` if it is decided otherwise."""
        if not path and self.kind is not ValueKind.VALUE:
            raise ConflictError
        draft = replace(self, root=_put(self.root, path, value))
        if path and path[0] != "body" and self.kind is not ValueKind.VALUE:
            _check_envelope(draft.root)
        return draft

    def value(self) -> Any:
        """The document as expressions see it."""
        if self.kind is ValueKind.VALUE:
            return plain_value(self.root)
        parts = self.parts()
        fields = parts["body"] if isinstance(parts["body"], dict) else {}
        return {**fields, **parts}

    def parts(self) -> dict[str, Any]:
        """Body, headers, query and, for ANSWER, status."""
        root = {} if self.root is FREE else self.root
        parts = {
            "body": plain_value(root.get("body", {})),
            "headers": plain_value(root.get("headers", {})) or {},
            "query": plain_value(root.get("query", {})) or {},
        }
        if self.kind is ValueKind.ANSWER:
            parts["status"] = plain_value(root.get("status", 200))
        return parts


def plain_value(node: Node) -> Any:
    """The value without FREE: left out of objects, as is null, and null in lists."""
    if node is FREE:
        return None
    if isinstance(node, dict):
        filled = {key: plain_value(inner) for key, inner in node.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(node, list | tuple):
        return [plain_value(inner) for inner in node]
    return node


def length(node: Node) -> int:
    """How many items of a list are decided."""
    return len(node) if isinstance(node, list | tuple) else 0


def _put(node: Node, path: Path, value: Any) -> Node:
    if not path:
        return _merged(node, value)
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if node is not FREE and not isinstance(node, dict):
            raise ConflictError
        fields = {} if node is FREE else node
        return {**fields, step: _put(fields.get(step, FREE), rest, value)}
    if node is not FREE and not isinstance(node, list | tuple):
        raise ConflictError
    items = [] if node is FREE else list(node)
    items += [FREE] * (step + 1 - len(items))
    items[step] = _put(items[step], rest, value)
    return items


def _merged(node: Node, value: Any) -> Node:
    if node is FREE or value is FREE:
        return value if node is FREE else node
    if isinstance(node, dict) and isinstance(value, dict):
        both = {key: _merged(node.get(key, FREE), inner) for key, inner in value.items()}
        return {**node, **both}
    if isinstance(node, list | tuple) and isinstance(value, list | tuple):
        if len(node) > len(value):
            raise ConflictError
        free = [FREE] * (len(value) - len(node))
        return [_merged(old, new) for old, new in zip([*node, *free], value, strict=True)]
    if json_equal(node, value):
        return node
    raise ConflictError


def _check_envelope(root: Node) -> None:
    """Check that headers and parameters are texts, and that no header is reserved."""
    headers, query = root.get("headers", FREE), root.get("query", FREE)
    status = root.get("status", FREE)
    if status is not FREE and not (_is_whole(status) and 100 < status < 600):
        raise ConflictError
    for texts in (headers, query):
        if texts is not FREE and not isinstance(texts, dict):
            raise ConflictError
    if headers is not FREE and not all(_is_header(*header) for header in headers.items()):
        raise ConflictError
    if query is not FREE and not all(_is_text(value) for value in query.values()):
        raise ConflictError


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Node) -> bool:
    return value in (FREE, None) or isinstance(value, str)


def _is_header(name: str, value: Node) -> bool:
    if value is FREE or value is None:
        return True
    may_be_chosen = name == name.lower() and name not in _RESERVED_HEADERS
    is_carried = isinstance(value, str) and value.isascii() and value.isprintable()
    return may_be_chosen and is_carried and value == value.strip() != ""
