"""Forms that pick, combine and collect, turned round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from .constraints import FREE, Want, exactly, false, like, something, true
from .drafts import Draft, Node, Path, ValueKind, length
from .search import CHAINS, Search, Tree, Way, place_of, put

_MOST_PLACEMENTS = 20
_PLACES = ("field", "current", "identity", "index")


def _place(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    place = place_of(tree, at, draft)
    if place is None:
        return
    if place[:1] == ("headers",) and any(str(name) != str(name).lower() for name in place[1:2]):
        search.stuck["the names of headers are in lower case here"] = None
    if place == ("status",) and draft.kind is ValueKind.ANSWER:
        search.stuck["status is the HTTP status here; the body's own is body.status"] = None
    yield from search.settle(place, want, draft)


def _chain(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    yield from search.chain(tree["children"], want, at, draft)


def _and(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    left, right = tree["children"]
    yield from search.all_of([(left, true(), at), (right, want, at)], draft)
    yield from search.solve(left, want.false(), at, draft)


def _or(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    left, right = tree["children"]
    yield from search.solve(left, want.true(), at, draft)
    yield from search.all_of([(left, false(), at), (right, want, at)], draft)


def _not(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    (inner,) = tree["children"]
    if want.accepts(True):
        yield from search.solve(inner, false(), at, draft)
    if want.accepts(False):
        yield from search.solve(inner, true(), at, draft)


def _hash(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    pairs = {pair["value"]: pair["children"][0] for pair in tree["children"]}
    for offer in want.offers:
        if isinstance(offer, dict) and offer and offer.keys() <= pairs.keys():
            wishes = [(pairs[key], like(value), at) for key, value in offer.items()]
            yield from search.all_of(wishes, draft)
    yield from _made_of(search, list(pairs.values()), dict(pairs), want, at, draft)


def _list(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    trees = tree["children"]
    for offer in want.offers:
        if isinstance(offer, list) and len(offer) <= len(trees):
            wishes = [(inner, like(value), at) for inner, value in zip(trees, offer, strict=False)]
            yield from search.all_of(wishes, draft)
    yield from _made_of(search, trees, list(trees), want, at, draft)


def _made_of(
    search: Search, trees: Sequence[Tree], any_value: Any, want: Want, at: Path, draft: Draft
) -> Iterator[Draft]:
    """Anything of this form will do; as much of it as possible shall be something."""
    if want.accepts(None):
        yield from search.settle(at, want, draft)
    if want.accepts(any_value):
        for there in _there(at, draft):
            wishes = [(inner, something(), at) for inner in trees]
            yield from search.all_of(wishes, there, skip=True)
            yield there


def _there(at: Path, draft: Draft) -> Iterator[Draft]:
    """A place that is not null, so that something can be picked from it."""
    is_document = not at and draft.kind is not ValueKind.VALUE
    if is_document or draft.at(at) not in (FREE, None):
        yield draft
    else:
        yield from put(draft, at, {})


def _projection(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    left, right, *condition = tree["children"]
    if left["type"] == "flatten":
        (left,) = left["children"]
    for items in _item_wants(want):
        yield from _spread(search, left, right, condition, items, at, draft)
    if want.accepts(None):
        yield from search.solve(left, exactly(None), at, draft)


def _item_wants(want: Want) -> Iterator[list[Want]]:
    """Lists of wishes for the items that are left of a projection."""
    for offer in want.offers:
        if isinstance(offer, list) and None not in offer:
            yield [something() if value is FREE else like(value) for value in offer]
    if want.accepts([{"any": "thing"}]):
        yield [something()]


def _spread(
    search: Search,
    left: Tree,
    right: Tree,
    condition: Sequence[Tree],
    items: Sequence[Want],
    at: Path,
    draft: Draft,
) -> Iterator[Draft]:
    place = place_of(left, at, draft)
    if place is None:
        for value in _made_items(search, right, condition, items):
            yield from search.solve(left, like(value), at, draft)
        return
    if not items:
        yield from put(draft, place, [])
        return
    count = length(draft.at(place))
    # Without a condition every item counts: the list has these and no others.
    positions: Iterable[tuple[int, ...]] = [tuple(range(len(items)))]
    if condition:
        places = combinations(range(count + len(items)), len(items))
        positions = islice(places, _MOST_PLACEMENTS)
    for chosen in positions:
        wishes: list[tuple[Tree, Want, Path]] = []
        for position, item in zip(chosen, items, strict=True):
            wishes += [(one, true(), (*place, position)) for one in condition]
            wishes.append((right, item, (*place, position)))
        yield from search.all_of(wishes, draft)


def _made_items(
    search: Search, right: Tree, condition: Sequence[Tree], items: Sequence[Want]
) -> Iterator[list[Node]]:
    made = []
    for item in items:
        wishes: list[tuple[Tree, Want, Path]] = [(one, true(), ()) for one in condition]
        solved = search.all_of([*wishes, (right, item, ())], Draft(ValueKind.VALUE))
        draft = next(solved, None)
        if draft is None:
            return
        made.append(draft.root)
    yield made


def _values(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    left, right = tree["children"]
    place = place_of(left, at, draft)
    if place is None or (not place and draft.kind is not ValueKind.VALUE):
        search.stuck["* of something that is no field cannot be turned round"] = None
        return
    for items in _item_wants(want):
        wishes = [(right, item, (*place, f"any_{i}")) for i, item in enumerate(items, 1)]
        yield from search.all_of(wishes, draft)


def _slice(search: Search, tree: Tree, want: Want, at: Path, draft: Draft) -> Iterator[Draft]:
    start, _stop, step = tree["children"]
    if (start or 0) < 0 or step not in (None, 1):
        search.stuck["a slice from the end, or with steps, cannot be turned round"] = None
        return
    for offer in want.offers:
        if isinstance(offer, list):
            yield from put(draft, at, [FREE] * (start or 0) + offer)


STRUCTURE: Mapping[str, Way] = {
    **dict.fromkeys(_PLACES, _place),
    **dict.fromkeys(CHAINS, _chain),
    # It gives what is wanted, or it never will.
    "literal": lambda *_: iter(()),
    "and_expression": _and,
    "or_expression": _or,
    "not_expression": _not,
    "multi_select_dict": _hash,
    "multi_select_list": _list,
    "projection": _projection,
    "filter_projection": _projection,
    "value_projection": _values,
    "slice": _slice,
}
"""By the type of the form."""
