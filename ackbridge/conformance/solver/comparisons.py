"""Inverses of comparisons."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .drafts import Draft, Path
from .search import Drafts, Search, Tree, evaluated
from .targets import OTHER_TEXT, SOME_TEXT, Target, exactly, json_equal

_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "lte": "gte", "gte": "lte"}
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "gt": operator.gt,
    "lte": operator.le,
    "gte": operator.ge,
}
_READS = frozenset({"field", "current", "identity", "index", "expref"})


def compare(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    """The inverse of `comparator`."""
    left, right = tree["children"]
    how = tree["value"]
    if is_constant(left):
        left, right, how = right, left, _MIRRORED[how]
    for outcome in (True, False):
        if target.accepts(outcome):
            for value in comparands(right, left, at, draft):
                for fixed in search.solve(right, exactly(value), at, draft):
                    yield from search.solve(left, _comparison(how, value, outcome), at, fixed)


def comparands(right: Tree, left: Tree, at: Path, draft: Draft) -> Iterator[Any]:
    """Candidates for the right side: its value if it is decided, else any value."""
    known, value = evaluated(right, at, draft)
    if is_constant(right):
        yield value
        return
    yield from [value] if known and value is not None else []
    known, value = evaluated(left, at, draft)
    yield from [value] if known and value is not None else []
    yield from (SOME_TEXT, 1, None)


def _comparison(how: str, value: Any, outcome: bool) -> Target:
    if how in ("eq", "ne"):
        if (how == "eq") is outcome:
            return exactly(value)
        return Target(lambda given: not json_equal(given, value), tuple(_others(value)))
    compares = _ORDERS[how]

    def accepts(given: Any) -> bool:
        return _is_ordered(given, value) and compares(given, value) is outcome

    return Target(accepts, tuple(offer for offer in _neighbours(value) if accepts(offer)))


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str):
        yield from (other for other in (OTHER_TEXT, SOME_TEXT) if other != value)
    else:
        yield from (SOME_TEXT, 1, True)
    yield None


def _neighbours(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return (value, f"{value}-", "")
    if isinstance(value, int | float):
        return (value, value + 1, value - 1)
    return ()


def _is_ordered(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    texts = isinstance(left, str) and isinstance(right, str)
    return texts or (isinstance(left, int | float) and isinstance(right, int | float))


def is_constant(tree: Tree) -> bool:
    """Whether it has the same value for every document."""
    return tree["type"] not in _READS and all(
        is_constant(child) for child in tree["children"] if isinstance(child, dict)
    )
