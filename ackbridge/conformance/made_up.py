"""Messages for operations without examples, made up where that is trivial.

Only plain fields, comparisons with constants, and `&&` and `||` of these. Everything else needs an
example; and a made-up message shows nothing about what the provider really sends.
"""

from __future__ import annotations

from typing import Any

from ackbridge.catalog.expressions import Expression, Node

from .message import Message

_PARTS = ("body", "headers", "query")


def make_true(message: Message, expression: Expression) -> None:
    """Make an expression true of a message, if it is simple."""
    _make_true(message, expression.tree)


def wrap_event(message: Message, each: Expression) -> bool:
    """Make the body the only event of a delivery; false where the place of events is no path."""
    node = each.tree
    while node["type"] in ("projection", "flatten"):
        # `items[*]` and `items[]` are the items themselves.
        node = node["children"][0]
    path = _path(node)
    if path is None:
        return False
    event, message.body = message.body, {}
    _assign(message, path, [event])
    return True


def fill(message: Message, expression: Expression | None, value: Any = None) -> None:
    """Give a value to the field that an expression reads, if it is a plain field without one."""
    path = _path(expression.tree) if expression is not None else None
    if path is not None and expression is not None and expression.search(message.document) is None:
        _assign(message, path, _value_of(path) if value is None else value)


def _value_of(path: list[str | int]) -> str:
    """A value that no other field has."""
    return f"made-up-{'-'.join(map(str, path))}"


def _make_true(message: Message, node: Node) -> None:
    children = node["children"]
    match node["type"]:
        case "and_expression":
            for child in children:
                _make_true(message, child)
        case "or_expression":
            _make_true(message, children[0])
        case "comparator":
            _compare(message, node["value"], *children)
        case "function_expression":
            _call(message, node["value"], children)
        case _:
            path = _path(node)
            if path is not None:
                _assign(message, path, _value_of(path))


def _compare(message: Message, operator: str, left: Node, right: Node) -> None:
    path, constant = _path(left), right
    if path is None:
        path, constant = _path(right), left
        operator = {"gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}.get(operator, operator)
    if path is None or constant["type"] != "literal":
        return
    value, beside = constant["value"], {"gt": 1, "lt": -1}.get(operator, 0)
    if operator != "ne":
        _assign(message, path, value + beside if beside else value)


def _call(message: Message, name: str, arguments: list[Node]) -> None:
    """A text or a list that contains a constant, or is contained in one."""
    if name not in ("contains", "starts_with", "ends_with"):
        return
    (within, part) = arguments
    if (path := _path(within)) is not None and part["type"] == "literal":
        _assign(message, path, part["value"])
    elif (path := _path(part)) is not None and (listed := _constants(within)):
        _assign(message, path, listed[0])


def _constants(node: Node) -> Any:
    """A list of constants, or a text; empty where it is neither."""
    if node["type"] == "literal":
        return node["value"]
    is_list = node["type"] == "multi_select_list"
    constants = [child.get("value") for child in node["children"] if child["type"] == "literal"]
    return constants if is_list else ()


def _path(node: Node) -> list[str | int] | None:
    """The fields and positions of a plain path; None if it is anything else."""
    match node["type"]:
        case "field":
            return [node["value"]]
        case "index":
            return [node["value"]] if node["value"] >= 0 else None
        case "subexpression" | "index_expression":
            paths = [_path(child) for child in node["children"]]
            return None if None in paths else [step for path in paths for step in path or ()]
        case _:
            return None


def _assign(message: Message, path: list[str | int], value: Any) -> None:
    if path == ["status"]:
        if message.status is not None and isinstance(value, int):
            message.status = value
        return
    if path[0] not in _PARTS:
        path = ["body", *path]
    part, *steps = path
    if steps:
        setattr(message, str(part), _with(getattr(message, str(part)), steps, value))


def _with(around: Any, steps: list[str | int], value: Any) -> Any:
    """The value with another one at a path; what is in the way of it is replaced."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, int):
        items = list(around) if isinstance(around, list) else []
        items += [None] * (step + 1 - len(items))
        items[step] = _with(items[step], rest, value)
        return items
    fields = dict(around) if isinstance(around, dict) else {}
    return {**fields, step: _with(fields.get(step), rest, value)}
