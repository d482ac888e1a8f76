"""Composes a document that meets several requirements, or explains why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jmespath

from ackbridge.catalog.expressions import Expression

from .comparisons import compare
from .drafts import ConflictError, Draft, Path, ValueKind
from .functions import call
from .search import Drafts, Inverse, Search, SearchLimitError, Tree
from .structure import STRUCTURE
from .targets import Target

_INVERSES: Mapping[str, Inverse] = {**STRUCTURE, "comparator": compare, "function_expression": call}


class CannotSimulateError(Exception):
    """There is no such document, or none was found; the text names the expression."""


@dataclass(frozen=True)
class Requirement:
    """A required value of an expression; messages say that it must meet the `expectation`."""

    expression: Expression
    target: Target
    field: str
    expectation: str

    def __str__(self) -> str:
        return f"{self.field}: {self.expression} must {self.expectation}"


@dataclass(frozen=True)
class Shape:
    """A message of a provider, before it is encoded and signed; only answers have a status."""

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None

    @property
    def document(self) -> dict[str, Any]:
        fields = self.body if isinstance(self.body, dict) else {}
        own = {"body": self.body, "headers": dict(self.headers), "query": dict(self.query)}
        status = {} if self.status is None else {"status": self.status}
        return {**fields, **own, **status}


def compose(
    requirements: Sequence[Requirement],
    kind: ValueKind,
    given: Mapping[Path, Any] | None = None,
    preferences: Sequence[Requirement] = (),
) -> Shape:
    """A message that meets all requirements, and as many preferences as possible, in their order.

    `given` has values by place: `("status",): 202`. Raises `CannotSimulateError`, which names the
    expression, or the two that exclude each other.
    """
    found = _solve(requirements, kind, given or {})
    if found is None:
        raise CannotSimulateError(_explain(requirements, kind, given or {}))
    kept = list(requirements)
    for preference in preferences:
        better = _solve([*kept, preference], kind, given or {})
        if better is not None:
            found = better
            kept.append(preference)
    return Shape(**found.parts())


def _search(requirements: Sequence[Requirement]) -> Search:
    return Search(_INVERSES, [_tree(requirement) for requirement in requirements])


def _tree(requirement: Requirement) -> Tree:
    tree: Tree = jmespath.compile(requirement.expression.text).parsed
    return tree


def _solve(
    requirements: Sequence[Requirement], kind: ValueKind, given: Mapping[Path, Any]
) -> Draft | None:
    try:
        return next(_drafts(_search(requirements), requirements, kind, given), None)
    except SearchLimitError:
        return None


def _drafts(
    search: Search, requirements: Sequence[Requirement], kind: ValueKind, given: Mapping[Path, Any]
) -> Drafts:
    draft = Draft(kind, {})
    try:
        for place, value in given.items():
            draft = draft.put(place, value)
    except ConflictError:
        return
    # Constraints that null satisfies come last: most of them hold by themselves.
    ordered = sorted(requirements, key=lambda requirement: requirement.target.accepts(None))
    yield from _solve_from(search, ordered, 0, draft)


def _solve_from(
    search: Search, requirements: Sequence[Requirement], done: int, draft: Draft
) -> Drafts:
    seen = draft.value()
    if not all(one.target.accepts(one.expression.search(seen)) for one in requirements[:done]):
        return
    if done == len(requirements):
        yield draft
        return
    requirement = requirements[done]
    if requirement.target.accepts(requirement.expression.search(seen)):
        yield from _solve_from(search, requirements, done + 1, draft)
    for one in search.solve(_tree(requirement), requirement.target, (), draft):
        if one is not draft:
            yield from _solve_from(search, requirements, done + 1, one)


def _explain(
    requirements: Sequence[Requirement], kind: ValueKind, given: Mapping[Path, Any]
) -> str:
    """The smallest set of requirements that has no solution."""
    for requirement in requirements:
        search = _search([requirement])
        try:
            if next(_drafts(search, [requirement], kind, given), None) is None:
                why = "; ".join(search.unsupported) or "no value was found"
                return f"{requirement} ({why})"
        except SearchLimitError:
            return f"{requirement} (the search is too large)"
    for position, requirement in enumerate(requirements):
        for other in requirements[:position]:
            if _solve([other, requirement], kind, given) is None:
                return f"{requirement} (not together with {other})"
    return f"{requirements[-1]} (not together with all other requirements)"
