"""What an expression shall give: which values are accepted, and which are tried, best first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ackbridge.catalog.expressions import is_true

SOME_TEXT = "made-up"
"""Stands wherever any text will do."""

OTHER_TEXT = "something-else"
"""Stands wherever a text must differ from those that have a meaning."""


class _Free:
    def __repr__(self) -> str:
        return "FREE"


FREE: Final[Any] = _Free()
"""Nothing is decided here, and anything will do. None, on the other hand, is nothing at all."""

_TRUE: tuple[Any, ...] = (True, SOME_TEXT, 1, {"made": "up"}, [SOME_TEXT])
_FALSE: tuple[Any, ...] = (None, False, "", [], {})


@dataclass(frozen=True)
class Want:
    """A wish for a value.

    Attributes:
        accepts: whether a value fulfils it.
        offers: values that may, in the order in which they are tried.
    """

    accepts: Callable[[Any], bool]
    offers: tuple[Any, ...]

    def narrowed(self, condition: Callable[[Any], bool], also: Iterable[Any] = ()) -> Want:
        """The same, and a condition; `also` is tried after the own offers."""
        offers = [value for value in (*self.offers, *also) if self._may_be(value, condition)]
        return Want(lambda value: self.accepts(value) and condition(value), tuple(offers))

    def true(self) -> Want:
        """The same, as far as it is true."""
        return self.narrowed(is_true, _TRUE)

    def false(self) -> Want:
        """The same, as far as it is false."""
        return self.narrowed(lambda value: not is_true(value), _FALSE)

    def _may_be(self, value: Any, condition: Callable[[Any], bool]) -> bool:
        return self.accepts(value) and condition(value)


def same(left: Any, right: Any) -> bool:
    """Equality as JSON has it: true is not 1, in any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def fits(given: Any, pattern: Any) -> bool:
    """Whether a value has everything that a pattern has; FREE stands for anything."""
    if pattern is FREE:
        return True
    if isinstance(pattern, dict):
        return isinstance(given, dict) and all(
            fits(given.get(key), inner) for key, inner in pattern.items()
        )
    if isinstance(pattern, list) and isinstance(given, list):
        return len(given) == len(pattern) and all(map(fits, given, pattern))
    return same(given, pattern)


def exactly(value: Any) -> Want:
    """This value and no other."""
    return Want(lambda given: same(given, value), (value,))


def like(pattern: Any) -> Want:
    """Anything that has everything the pattern has."""
    return Want(lambda given: fits(given, pattern), (pattern,))


def one_of(*values: Any) -> Want:
    """Any of these values."""
    return Want(lambda given: any(same(given, value) for value in values), values)


def true() -> Want:
    """Anything that is true as JMESPath has it."""
    return Want(is_true, _TRUE)


def false() -> Want:
    """Anything that is false as JMESPath has it."""
    return Want(lambda value: not is_true(value), _FALSE)


def something() -> Want:
    """Anything but null."""
    return Want(lambda value: value is not None, (SOME_TEXT, 1, True, {"made": "up"}, [SOME_TEXT]))


def text(*wished: str) -> Want:
    """A text that is not empty; the wished ones are tried first."""
    return Want(lambda value: isinstance(value, str) and bool(value), (*wished, SOME_TEXT))


def marked(mark: str) -> Want:
    """A text or a number with a mark in it: an id that nothing else has.

    Args:
        mark: digits only, so that it may be a number too.
    """

    def accepts(value: Any) -> bool:
        is_key = isinstance(value, str | int | float) and not isinstance(value, bool)
        return is_key and mark in str(value)

    return Want(accepts, (mark, f"id_{mark}", int(mark)))
