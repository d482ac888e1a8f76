"""The search for documents over which expressions have the required values.

`structure.py`, `comparisons.py` and `functions.py` have an inverse for each node type of JMESPath.
It yields drafts, the most natural one first; `solve.py` checks each with the real evaluator, so
that an inverse that yields too many costs time only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from .drafts import ConflictError, Draft, Path, ValueKind, length, plain_value
from .targets import FREE, Target, json_equal, like

Tree = Mapping[str, Any]
"""A parsed expression: `type`, `children`, `value`."""

Trees = Sequence[Tree]
Drafts = Iterator[Draft]

Inverse = Callable[["Search", Tree, Target, Path, Draft], Drafts]

MAX_STEPS = 20_000
"""Steps after which the search stops."""

CHAINS = frozenset({"subexpression", "index_expression", "pipe"})


class SearchLimitError(Exception):
    """The search needs too many steps."""


class Search:
    """One search; `unsupported` has messages about nodes without an inverse."""

    def __init__(self, inverses: Mapping[str, Inverse], trees: Trees = ()) -> None:
        """Try constants of `trees` where any value is possible: others may compare with them."""
        self.unsupported: dict[str, None] = {}
        self._inverses = inverses
        self._constants = tuple(constant for tree in trees for constant in _literals(tree))
        self._steps = 0

    def solve(self, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
        """Drafts in which an expression, evaluated at a place, satisfies a target."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SearchLimitError
        known, value = evaluated(tree, at, draft)
        holds = known and target.accepts(value)
        if holds:
            yield draft
        inverse = self._inverses.get(tree["type"])
        if inverse is None:
            self.unsupported[f"{tree['type']} has no inverse"] = None
            return
        for one in inverse(self, tree, target, at, draft):
            if one is not draft or not holds:
                yield one

    def decide(self, place: Path, target: Target, draft: Draft) -> Drafts:
        """Drafts in which a place satisfies a target."""
        here = draft.at(place)
        if here is not FREE and target.accepts(plain_value(here)):
            yield draft
        constants = filter(target.accepts, self._constants) if here is FREE else ()
        for offer in (*target.offers, *constants):
            yield from put(draft, place, offer)

    def all_of(
        self, requirements: Sequence[tuple[Tree, Target, Path]], draft: Draft, *, skip: bool = False
    ) -> Drafts:
        """Drafts in which all requirements hold; `skip` leaves out those that cannot."""
        if not requirements:
            yield draft
            return
        (tree, target, at), *rest = requirements
        solved = False
        for one in self.solve(tree, target, at, draft):
            solved = True
            yield from self.all_of(rest, one, skip=skip)
        if skip and not solved:
            yield from self.all_of(rest, draft, skip=skip)

    def values(self, trees: Trees, target: Target) -> Iterator[Any]:
        """Patterns of values for which a chain of nodes satisfies a target."""
        for draft in self.chain(trees, target, (), Draft(ValueKind.VALUE)):
            yield draft.root

    def chain(self, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
        """Nodes of which each is evaluated over the result of the one before."""
        first, *rest = trees
        if not rest:
            yield from self.solve(first, target, at, draft)
            return
        place = place_of(first, at, draft)
        if place is not None:
            yield from self.chain(rest, target, place, draft)
            return
        for value in self.values(rest, target):
            yield from self.solve(first, like(value), at, draft)


def put(draft: Draft, place: Path, value: Any) -> Drafts:
    """The draft with a place decided, if possible."""
    here = draft.at(place)
    if here is not FREE and json_equal(plain_value(here), value):
        yield draft
        return
    try:
        yield draft.put(place, value)
    except ConflictError:
        return


def place_of(tree: Tree, at: Path, draft: Draft) -> Path | None:
    """The place that an expression names; None if it does anything else."""
    kind = tree["type"]
    if kind in ("current", "identity"):
        return at
    if kind == "field":
        return draft.below(at, tree["value"])
    if kind == "index":
        index: int = tree["value"]
        # From the end of the decided list, or of the shortest list that has it.
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
    """Whether an expression can be evaluated over a draft, and its value."""
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


def _literals(tree: Tree) -> Iterator[Any]:
    if tree["type"] == "literal":
        yield tree["value"]
    for child in tree["children"]:
        if isinstance(child, dict):
            yield from _literals(child)
