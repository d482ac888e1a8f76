"""Target values of an expression: which values are accepted, and which to try first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ackbridge.catalog.expressions import is_true

SOME_TEXT = "made-up"
"""Used where any text is possible."""

OTHER_TEXT = "something-else"
"""Used where a text must differ from those with a meaning."""


class _Free:
    def __repr__(self) -> str:
        return "FREE"


FREE: Final[Any] = _Free()
"""A place that is not decided: any value is possible. None is decided to be null."""

_TRUE: tuple[Any, ...] = (True, SOME_TEXT, 1, {"made": "up"}, [SOME_TEXT])
_FALSE: tuple[Any, ...] = (None, False, "", [], {})


@dataclass(frozen=True)
class Target:
    """The values that an expression may have, and candidates in the order of trying."""

    accepts: Callable[[Any], bool]
    offers: tuple[Any, ...]

    def narrowed(self, condition: Callable[[Any], bool], also: Iterable[Any] = ()) -> Target:
        """This target and a condition; `also` is tried after its own offers."""

        def accepts(value: Any) -> bool:
            return self.accepts(value) and condition(value)

        return Target(accepts, tuple(filter(accepts, (*self.offers, *also))))

    def true(self) -> Target:
        return self.narrowed(is_true, _TRUE)

    def false(self) -> Target:
        return self.narrowed(lambda value: not is_true(value), _FALSE)


def json_equal(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(json_equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(json_equal, left, right))
    return bool(left == right)


def matches(given: Any, pattern: Any) -> bool:
    """Whether a value has everything that a pattern has; FREE matches anything."""
    if pattern is FREE:
        return True
    if isinstance(pattern, dict):
        return isinstance(given, dict) and all(
            matches(given.get(key), inner) for key, inner in pattern.items()
        )
    if isinstance(pattern, list) and isinstance(given, list):
        return len(given) == len(pattern) and all(map(matches, given, pattern))
    return json_equal(given, pattern)


def exactly(value: Any) -> Target:
    return Target(lambda given: json_equal(given, value), (value,))


def like(pattern: Any) -> Target:
    return Target(lambda given: matches(given, pattern), (pattern,))


def one_of(*values: Any) -> Target:
    return Target(lambda given: any(json_equal(given, value) for value in values), values)


def true() -> Target:
    """Any value that is true in JMESPath."""
    return Target(is_true, _TRUE)


def false() -> Target:
    return Target(lambda value: not is_true(value), _FALSE)


def something() -> Target:
    """Any value but null."""
    return Target(
        lambda value: value is not None, (SOME_TEXT, 1, True, {"made": "up"}, [SOME_TEXT])
    )


def text(*preferred: str) -> Target:
    """A text that is not empty; the preferred ones are tried first."""
    return Target(lambda value: isinstance(value, str) and bool(value), (*preferred, SOME_TEXT))


def marked(mark: str) -> Target:
    """A text or a number that contains `mark`: a unique id, of digits only."""

    def accepts(value: Any) -> bool:
        is_key = isinstance(value, str | int | float) and not isinstance(value, bool)
        return is_key and mark in str(value)

    return Target(accepts, (mark, f"id_{mark}", int(mark)))
