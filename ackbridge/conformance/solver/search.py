"""The search for documents over which expressions give what is wanted.

`structure.py`, `comparing.py` and `functions.py` turn each form of JMESPath round. Every form
answers with drafts, the most natural one first; `solving.py` checks each with the real evaluator,
so that what is too generous there costs time and no truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from .constraints import FREE, Want, like, same
from .drafts import ConflictError, Draft, Path, ValueKind, finished, length

Tree = Mapping[str, Any]
"""A parsed expression: `type`, `children`, `value`."""

Way = Callable[["Search", Tree, Want, Path, Draft], Iterator[Draft]]

MOST_STEPS = 20_000
"""Turns of the search before it is given up."""

CHAINS = frozenset({"subexpression", "index_expression", "pipe"})


class SearchLimitError(Exception):
    """The search has taken too many steps."""


class Search:
    """One search.

    Attributes:
        stuck: the forms that could not be turned round, for people.
    """

    def __init__(self, ways: Mapping[str, Way], trees: Sequence[Tree] = ()) -> None:
        """Take how each form is turned round, and all expressions that shall be fulfilled.

        Their constants are tried wherever anything will do: what one expression leaves open,
        another one may compare with them.
        """
        self.stuck: dict[str, None] = {}
        self._ways = ways
        self._words = tuple(word for tree in trees for word in _constants(tree))
        self._steps = 0

    def solve(self, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
        """Drafts in which the expression gives what is wanted, seen from a place."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise SearchLimitError
        holds = self._holds_already(tree, want, at, draft)
        if holds:
            yield draft
        way = self._ways.get(tree["type"])
        if way is None:
            self.stuck[f"{tree['type']} cannot be turned round"] = None
            return
        for one in way(self, tree, want, at, draft):
            if one is not draft or not holds:
                yield one

    def settle(self, place: Path, want: Want, draft: Draft) -> Iterator[Draft]:
        """Decide one place."""
        here = draft.at(place)
        if here is not FREE and want.accepts(finished(here)):
            yield draft
        words = [word for word in self._words if want.accepts(word)] if here is FREE else []
        for offer in (*want.offers, *words):
            yield from put(draft, place, offer)

    def all_of(
        self, wishes: Sequence[tuple[Tree, Want, Path]], draft: Draft, *, skip: bool = False
    ) -> Iterator[Draft]:
        """Drafts in which all of them give what is wanted.

        Args:
            skip: what cannot be had is left out.
        """
        if not wishes:
            yield draft
            return
        (tree, want, at), *rest = wishes
        solved = False
        for one in self.solve(tree, want, at, draft):
            solved = True
            yield from self.all_of(rest, one, skip=skip)
        if skip and not solved:
            yield from self.all_of(rest, draft, skip=skip)

    def values(self, trees: Sequence[Tree], want: Want) -> Iterator[Any]:
        """Patterns of values that, handed through these forms in turn, give what is wanted."""
        for draft in self.chain(trees, want, (), Draft(ValueKind.VALUE)):
            yield draft.root

    def chain(self, trees: Sequence[Tree], want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
        """Forms of which each sees the result of the one before."""
        first, *rest = trees
        if not rest:
            yield from self.solve(first, want, at, draft)
            return
        place = place_of(first, at, draft)
        if place is not None:
            yield from self.chain(rest, want, place, draft)
            return
        for value in self.values(rest, want):
            yield from self.solve(first, like(value), at, draft)

    def _holds_already(self, tree: Tree, want: Want, at: Path, draft: Draft) -> bool:
        known, value = evaluated(tree, at, draft)
        return known and want.accepts(value)


def put(draft: Draft, place: Path, value: Any) -> Iterator[Draft]:
    """The draft with a place decided, if that can be."""
    here = draft.at(place)
    if here is not FREE and same(finished(here), value):
        yield draft
        return
    try:
        yield draft.put(place, value)
    except ConflictError:
        return


def place_of(tree: Tree, at: Path, draft: Draft) -> Path | None:
    """The place an expression names, if it does nothing but name one."""
    kind = tree["type"]
    if kind in ("current", "identity"):
        return at
    if kind == "field":
        return draft.below(at, tree["value"])
    if kind == "index":
        index: int = tree["value"]
        # Counted from the end of what is there, or of the shortest list that has it.
        return (*at, index if index >= 0 else max(length(draft.at(at)), -index) + index)
    if kind in CHAINS:
        for child in tree["children"]:
            place = place_of(child, at, draft)
            if place is None:
                return None
            at = place
        return at
    return None


def evaluated(tree: Tree, at: Path, draft: Draft) -> tuple[bool, Any]:
    """What an expression gives when nothing more is decided; false when it cannot be evaluated."""
    seen = draft.value()
    for step in at:
        if isinstance(step, str):
            seen = seen.get(step) if isinstance(seen, dict) else None
        else:
            seen = seen[step] if isinstance(seen, list) and step < len(seen) else None
    try:
        return True, ParsedResult("", cast("Any", tree)).search(seen)
    except (JMESPathError, ValueError, TypeError, ArithmeticError):
        return False, None


def _constants(tree: Tree) -> Iterator[Any]:
    if tree["type"] == "literal":
        yield tree["value"]
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _constants(child)
