"""Inverses of nodes that select, combine and project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from .drafts import Draft, Node, Path, ValueKind, length
from .search import CHAINS, Drafts, Inverse, Search, Tree, Trees, place_of, put
from .targets import FREE, Target, exactly, false, like, something, true

_MAX_PLACEMENTS = 20
_PLACES = ("field", "current", "identity", "index")


def _place(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    place = place_of(tree, at, draft)
    if place is None:
        return
    if place[:1] == ("headers",) and any(str(name) != str(name).lower() for name in place[1:2]):
        search.unsupported["the names of headers are in lower case here"] = None
    if place == ("status",) and draft.kind is ValueKind.ANSWER:
        search.unsupported["status is the HTTP status here; the body's own is body.status"] = None
    yield from search.decide(place, target, draft)


def _chain(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    yield from search.chain(tree["children"], target, at, draft)


def _and(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    left, right = tree["children"]
    yield from search.all_of([(left, true(), at), (right, target, at)], draft)
    yield from search.solve(left, target.false(), at, draft)


def _or(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    left, right = tree["children"]
    yield from search.solve(left, target.true(), at, draft)
    yield from search.all_of([(left, false(), at), (right, target, at)], draft)


def _not(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    (inner,) = tree["children"]
    if target.accepts(True):
        yield from search.solve(inner, false(), at, draft)
    if target.accepts(False):
        yield from search.solve(inner, true(), at, draft)


def _object(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    pairs = {pair["value"]: pair["children"][0] for pair in tree["children"]}
    for offer in target.offers:
        if isinstance(offer, dict) and offer and offer.keys() <= pairs.keys():
            requirements = [(pairs[key], like(value), at) for key, value in offer.items()]
            yield from search.all_of(requirements, draft)
    yield from _any_value(search, list(pairs.values()), dict(pairs), target, at, draft)


def _list(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    trees = tree["children"]
    for offer in target.offers:
        if isinstance(offer, list) and len(offer) <= len(trees):
            requirements = [
                (inner, like(value), at) for inner, value in zip(trees, offer, strict=False)
            ]
            yield from search.all_of(requirements, draft)
    yield from _any_value(search, trees, list(trees), target, at, draft)


def _any_value(
    search: Search, trees: Trees, any_value: Any, target: Target, at: Path, draft: Draft
) -> Drafts:
    """Any value of this form; as much of it as possible is not null."""
    if target.accepts(None):
        yield from search.decide(at, target, draft)
    if target.accepts(any_value):
        for there in _non_null(at, draft):
            requirements = [(inner, something(), at) for inner in trees]
            yield from search.all_of(requirements, there, skip=True)
            yield there


def _non_null(at: Path, draft: Draft) -> Drafts:
    """Drafts in which a place is not null, so that something can be selected from it."""
    is_document = not at and draft.kind is not ValueKind.VALUE
    if is_document or draft.at(at) not in (FREE, None):
        yield draft
    else:
        yield from put(draft, at, {})


def _projection(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    left, right, *condition = tree["children"]
    if left["type"] == "flatten":
        (left,) = left["children"]
    for items in _item_targets(target):
        yield from _solve_items(search, left, right, condition, items, at, draft)
    if target.accepts(None):
        yield from search.solve(left, exactly(None), at, draft)


def _item_targets(target: Target) -> Iterator[list[Target]]:
    """Lists of targets for the items of a projection."""
    for offer in target.offers:
        if isinstance(offer, list) and None not in offer:
            yield [something() if value is FREE else like(value) for value in offer]
    if target.accepts([{"any": "thing"}]):
        yield [something()]


def _solve_items(
    search: Search,
    left: Tree,
    right: Tree,
    condition: Sequence[Tree],
    items: Sequence[Target],
    at: Path,
    draft: Draft,
) -> Drafts:
    place = place_of(left, at, draft)
    if place is None:
        for value in _generate_items(search, right, condition, items):
            yield from search.solve(left, like(value), at, draft)
        return
    if not items:
        yield from put(draft, place, [])
        return
    count = length(draft.at(place))
    # Without a condition, the list has exactly these items.
    positions: Iterable[tuple[int, ...]] = [tuple(range(len(items)))]
    if condition:
        places = combinations(range(count + len(items)), len(items))
        positions = islice(places, _MAX_PLACEMENTS)
    for chosen in positions:
        requirements: list[tuple[Tree, Target, Path]] = []
        for position, item in zip(chosen, items, strict=True):
            requirements += [(one, true(), (*place, position)) for one in condition]
            requirements.append((right, item, (*place, position)))
        yield from search.all_of(requirements, draft)


def _generate_items(
    search: Search, right: Tree, condition: Sequence[Tree], items: Sequence[Target]
) -> Iterator[list[Node]]:
    made = []
    for item in items:
        requirements: list[tuple[Tree, Target, Path]] = [(one, true(), ()) for one in condition]
        solved = search.all_of([*requirements, (right, item, ())], Draft(ValueKind.VALUE))
        draft = next(solved, None)
        if draft is None:
            return
        made.append(draft.root)
    yield made


def _values(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    left, right = tree["children"]
    place = place_of(left, at, draft)
    if place is None or (not place and draft.kind is not ValueKind.VALUE):
        search.unsupported["* of anything but a field has no inverse"] = None
        return
    for items in _item_targets(target):
        requirements = [(right, item, (*place, f"any_{i}")) for i, item in enumerate(items, 1)]
        yield from search.all_of(requirements, draft)


def _slice(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    start, _stop, step = tree["children"]
    if (start or 0) < 0 or step not in (None, 1):
        search.unsupported["a slice from the end, or with steps, has no inverse"] = None
        return
    for offer in target.offers:
        if isinstance(offer, list):
            yield from put(draft, at, [FREE] * (start or 0) + offer)


STRUCTURE: Mapping[str, Inverse] = {
    **dict.fromkeys(_PLACES, _place),
    **dict.fromkeys(CHAINS, _chain),
    # A constant satisfies the target, or never will.
    "literal": lambda *_: iter(()),
    "and_expression": _and,
    "or_expression": _or,
    "not_expression": _not,
    "multi_select_dict": _object,
    "multi_select_list": _list,
    "projection": _projection,
    "filter_projection": _projection,
    "value_projection": _values,
    "slice": _slice,
}
"""By node type."""
