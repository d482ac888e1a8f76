"""Putting together a document that fulfils several wishes at once, or saying why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jmespath

from ackbridge.catalog.expressions import Expression

from .comparisons import compare
from .constraints import Want
from .drafts import ConflictError, Draft, Path, ValueKind
from .functions import call
from .search import Search, SearchLimitError, Tree, Way
from .structure import STRUCTURE

_WAYS: Mapping[str, Way] = {**STRUCTURE, "comparator": compare, "function_expression": call}


class CannotSimulateError(Exception):
    """There is no such document, or none that we can find; the text says which expression."""


@dataclass(frozen=True)
class Wish:
    """What one expression of an integration file shall give.

    Attributes:
        field: where the expression stands in the file, for people.
        says: what is wanted, for people: `hold`, `not hold`, `be an id`.
    """

    expression: Expression
    want: Want
    field: str
    says: str

    def __str__(self) -> str:
        return f"{self.field}: {self.expression} shall {self.says}"


@dataclass(frozen=True)
class Shape:
    """A message of a provider, before it is encoded and signed.

    Attributes:
        body: JSON of any kind.
        status: of an HTTP answer; None for a callback.
    """

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What expressions see."""
        fields = self.body if isinstance(self.body, dict) else {}
        own = {"body": self.body, "headers": dict(self.headers), "query": dict(self.query)}
        status = {} if self.status is None else {"status": self.status}
        return {**fields, **own, **status}


def compose(
    wishes: Sequence[Wish],
    kind: ValueKind,
    given: Mapping[Path, Any] | None = None,
    hopes: Sequence[Wish] = (),
) -> Shape:
    """A message that fulfils all wishes, and as many hopes as possible.

    Args:
        kind: CALLBACK or ANSWER.
        given: what is decided already, by place: `("status",): 202`.
        hopes: in the order of their weight.

    Raises:
        CannotSimulateError: naming the expression that cannot be had, or not beside which other
            one.
    """
    found = _first(wishes, kind, given or {})
    if found is None:
        raise CannotSimulateError(_why(wishes, kind, given or {}))
    kept = list(wishes)
    for hope in hopes:
        better = _first([*kept, hope], kind, given or {})
        if better is not None:
            found = better
            kept.append(hope)
    return Shape(**found.parts())


def _search(wishes: Sequence[Wish]) -> Search:
    return Search(_WAYS, [_tree(wish) for wish in wishes])


def _tree(wish: Wish) -> Tree:
    tree: Tree = jmespath.compile(wish.expression.text).parsed
    return tree


def _first(wishes: Sequence[Wish], kind: ValueKind, given: Mapping[Path, Any]) -> Draft | None:
    try:
        return next(_drafts(_search(wishes), wishes, kind, given), None)
    except SearchLimitError:
        return None


def _drafts(
    search: Search, wishes: Sequence[Wish], kind: ValueKind, given: Mapping[Path, Any]
) -> Iterator[Draft]:
    draft = Draft(kind, {})
    try:
        for place, value in given.items():
            draft = draft.put(place, value)
    except ConflictError:
        return
    # What must be something comes before what must not: that mostly holds by itself.
    ordered = sorted(wishes, key=lambda wish: wish.want.accepts(None))
    yield from _fulfil(search, ordered, 0, draft)


def _fulfil(search: Search, wishes: Sequence[Wish], done: int, draft: Draft) -> Iterator[Draft]:
    seen = draft.value()
    if not all(wish.want.accepts(wish.expression.search(seen)) for wish in wishes[:done]):
        return
    if done == len(wishes):
        yield draft
        return
    wish = wishes[done]
    if wish.want.accepts(wish.expression.search(seen)):
        yield from _fulfil(search, wishes, done + 1, draft)
    for one in search.solve(_tree(wish), wish.want, (), draft):
        if one is not draft:
            yield from _fulfil(search, wishes, done + 1, one)


def _why(wishes: Sequence[Wish], kind: ValueKind, given: Mapping[Path, Any]) -> str:
    """The smallest part of the wishes that cannot be had."""
    for wish in wishes:
        search = _search([wish])
        try:
            if next(_drafts(search, [wish], kind, given), None) is None:
                why = "; ".join(search.stuck) or "nothing makes it so"
                return f"{wish} ({why})"
        except SearchLimitError:
            return f"{wish} (there are too many ways to try)"
    for position, wish in enumerate(wishes):
        for other in wishes[:position]:
            if _first([other, wish], kind, given) is None:
                return (
                    f"{wish} (it cannot while {other.field}: {other.expression} shall {other.says})"
                )
    return f"{wishes[-1]} (not beside everything else the message must say)"
