"""Documents that are not finished: some places are decided, all others free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from .constraints import FREE, same

Node = Any
"""A value in which places may be FREE. Never changed: a draft is shared by many others."""

Path = tuple[str | int, ...]
"""Where something is; `()` is the document as an expression sees it."""


class ConflictError(Exception):
    """Something else is decided there already."""


class ValueKind(StrEnum):
    """What a document stands for, which decides what its top level means."""

    VALUE = "value"
    CALLBACK = "callback"
    ANSWER = "answer"


_OWN_PLACES: Mapping[ValueKind, frozenset[str]] = {
    ValueKind.VALUE: frozenset(),
    ValueKind.CALLBACK: frozenset({"body", "headers", "query"}),
    ValueKind.ANSWER: frozenset({"body", "headers", "query", "status"}),
}

# What the HTTP libraries decide, and what is never shown to expressions.
_NOT_TO_CHOOSE = frozenset(
    {"authorization", "connection", "content-length", "cookie", "host", "proxy-authorization"}
    | {"transfer-encoding"}
)


@dataclass(frozen=True)
class Draft:
    """A document on its way.

    Attributes:
        kind: for CALLBACK and ANSWER, fields of the body stand at the top as well.
        root: for VALUE the value itself, else `body`, `headers`, `query` and `status`.
    """

    kind: ValueKind
    root: Node = FREE

    def below(self, path: Path, name: str) -> Path:
        """The place of a field, seen from a place."""
        if path or self.kind is ValueKind.VALUE or name in _OWN_PLACES[self.kind]:
            return (*path, name)
        return ("body", name)

    def at(self, path: Path) -> Node:
        """What is decided at a place; None where a decision above excludes it."""
        node = self.root
        for step in path:
            if node is FREE:
                return FREE
            if isinstance(step, str):
                node = node.get(step, FREE) if isinstance(node, dict) else None
            else:
                node = _item(node, step)
        return node

    def put(self, path: Path, value: Any) -> Draft:
        """Decide a place, and what is around it.

        Raises:
            ConflictError: it cannot be, beside what is decided.
        """
        if not path and self.kind is not ValueKind.VALUE:
            raise ConflictError
        draft = replace(self, root=_put(self.root, path, value))
        if path and path[0] != "body" and self.kind is not ValueKind.VALUE:
            _check_envelope(draft.root)
        return draft

    def value(self) -> Any:
        """The document as expressions see it when nothing more is decided."""
        if self.kind is ValueKind.VALUE:
            return finished(self.root)
        parts = self.parts()
        fields = parts["body"] if isinstance(parts["body"], dict) else {}
        return {**fields, **parts}

    def parts(self) -> dict[str, Any]:
        """Body, headers, query and, for answers, status."""
        root = {} if self.root is FREE else self.root
        parts = {
            "body": finished(root.get("body", {})),
            "headers": finished(root.get("headers", {})) or {},
            "query": finished(root.get("query", {})) or {},
        }
        if self.kind is ValueKind.ANSWER:
            parts["status"] = finished(root.get("status", 200))
        return parts


def finished(node: Node) -> Any:
    """The plain value; what is free or null is left out of objects, and null in lists."""
    if node is FREE:
        return None
    if isinstance(node, dict):
        filled = {key: finished(inner) for key, inner in node.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(node, list | tuple):
        return [finished(inner) for inner in node]
    return node


def length(node: Node) -> int:
    """How many items are decided of a list."""
    return len(node) if isinstance(node, list | tuple) else 0


def _item(node: Node, index: int) -> Node:
    if not isinstance(node, list | tuple):
        return None
    return node[index] if index < len(node) else FREE


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
    if same(node, value):
        return node
    raise ConflictError


def _check_envelope(root: Node) -> None:
    """Headers and parameters are texts, and not all of them are anybody's to choose."""
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
    may_be_chosen = name == name.lower() and name not in _NOT_TO_CHOOSE
    is_carried = isinstance(value, str) and value.isascii() and value.isprintable()
    return may_be_chosen and is_carried and value == value.strip() != ""
