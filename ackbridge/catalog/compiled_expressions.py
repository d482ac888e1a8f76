"""JMESPath expressions as plain functions: what matching needs, without walking a tree each time.

Paths, comparisons for equality, texts and logic are what integration files are made of; they become
closures. Every other node is left to jmespath's own interpreter, of which one is kept per
expression, since a new one for each evaluation is half of its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from jmespath.visitor import TreeInterpreter

Node: TypeAlias = Any
"""A dictionary with `type`, `children` and, for some types, `value`."""
Evaluate: TypeAlias = Callable[[Any], Any]
"""From a document to the value over it."""


def build_evaluation(node: Node) -> Evaluate:
    """The function that a parsed expression stands for."""
    return _build(node, TreeInterpreter())


def is_true(value: Any) -> bool:
    """Truth as JMESPath has it: everything but null, false and what is empty."""
    return not (value is None or value is False or value in ("", [], {}))


def _build(node: Node, interpreter: TreeInterpreter) -> Evaluate:
    children: list[Node] = node["children"]
    match node["type"]:
        case "field":
            return _field(node["value"])
        case "literal":
            constant = node["value"]
            return lambda _document: constant
        case "identity" | "current":
            return lambda document: document
        case "subexpression" | "pipe":
            return _chain([_build(child, interpreter) for child in children])
        case "comparator" if node["value"] in ("eq", "ne"):
            left, right = (_build(child, interpreter) for child in children)
            return _comparison(interpreter.COMPARATOR_FUNC[node["value"]], left, right)
        case "or_expression":
            left, right = (_build(child, interpreter) for child in children)
            return lambda document: found if is_true(found := left(document)) else right(document)
        case "and_expression":
            left, right = (_build(child, interpreter) for child in children)
            return lambda document: right(document) if is_true(found := left(document)) else found
        case _:
            return lambda document: interpreter.visit(node, document)


def _field(name: str) -> Evaluate:
    def evaluate(document: Any) -> Any:
        return document.get(name) if isinstance(document, dict) else None

    return evaluate


def _chain(steps: list[Evaluate]) -> Evaluate:
    def evaluate(document: Any) -> Any:
        for step in steps:
            document = step(document)
        return document

    return evaluate


def _comparison(compare: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(document: Any) -> Any:
        return compare(left(document), right(document))

    return evaluate
