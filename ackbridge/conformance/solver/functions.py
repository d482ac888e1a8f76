"""Inverses of functions."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping

from .comparisons import comparands, is_constant
from .drafts import Draft, Path
from .search import Drafts, Search, Tree, Trees, evaluated
from .targets import FREE, OTHER_TEXT, SOME_TEXT, Target, exactly, like, one_of, something

_OF_A_TYPE = {
    "string": SOME_TEXT,
    "number": 1,
    "boolean": True,
    "array": [SOME_TEXT],
    "object": {"made": "up"},
    "null": None,
}

Function = Callable[[Search, Trees, Target, Path, Draft], Drafts]


def call(search: Search, tree: Tree, target: Target, at: Path, draft: Draft) -> Drafts:
    """The inverse of `function_expression`."""
    function = _FUNCTIONS.get(tree["value"])
    if function is None:
        search.unsupported[f"the function {tree['value']} has no inverse"] = None
        return
    yield from function(search, tree["children"], target, at, draft)


def _text_predicate(
    test: Callable[[str, str], bool], offers: Callable[[str], tuple[str, ...]]
) -> Function:
    def inverse(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
        text, part = trees
        for value in comparands(part, text, at, draft):
            if not isinstance(value, str):
                continue
            for fixed in search.solve(part, exactly(value), at, draft):
                for outcome in filter(target.accepts, (True, False)):
                    wanted = _predicate_target(test, value, outcome, offers(value))
                    yield from search.solve(text, wanted, at, fixed)

    return inverse


def _predicate_target(
    test: Callable[[str, str], bool], part: str, outcome: bool, offers: tuple[str, ...]
) -> Target:
    def accepts(given: object) -> bool:
        return isinstance(given, str) and test(given, part) is outcome

    tried = offers if outcome else (OTHER_TEXT, SOME_TEXT, "")
    return Target(accepts, tuple(offer for offer in tried if accepts(offer)))


def _contains(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    container, part = trees
    if is_constant(container):
        _, held = evaluated(container, at, draft)
        inside = tuple(held) if isinstance(held, list) else (held,)
        if target.accepts(True):
            yield from search.solve(part, one_of(*inside), at, draft)
        if target.accepts(False):
            outside = Target(lambda given: given not in inside, (OTHER_TEXT, SOME_TEXT, 1))
            yield from search.solve(part, outside, at, draft)
        return
    yield from _text_predicate(operator.contains, lambda text: (text, f"{SOME_TEXT} {text}"))(
        search, trees, target, at, draft
    )
    for value in comparands(part, container, at, draft):
        for fixed in search.solve(part, exactly(value), at, draft):
            if target.accepts(True):
                yield from search.solve(container, exactly([value]), at, fixed)
            if target.accepts(False):
                yield from search.solve(container, exactly([]), at, fixed)


def _length(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    for count in (*target.offers, 1, 0):
        if isinstance(count, int) and not isinstance(count, bool) and target.accepts(count):
            for value in ([FREE] * count, "x" * count):
                yield from search.solve(trees[0], like(value), at, draft)


def _join(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    glue, parts = trees
    known, between = evaluated(glue, at, draft)
    if not known or not isinstance(between, str):
        return
    for offer in target.offers:
        if not isinstance(offer, str):
            continue
        if parts["type"] != "multi_select_list":
            pieces = offer.split(between) if between else [offer]
            yield from search.solve(parts, like(pieces), at, draft)
            continue
        for pieces in _pieces(offer, between, parts["children"], at, draft):
            if target.accepts(between.join(pieces)):
                yield from search.solve(parts, like(pieces), at, draft)


def _pieces(text: str, between: str, trees: Trees, at: Path, draft: Draft) -> Iterator[list[str]]:
    """Texts that join to this one, or of which one contains it."""
    if between and text.count(between) >= len(trees) - 1:
        yield text.split(between, len(trees) - 1)
    known = [_known_text(tree, at, draft) for tree in trees]
    for position, value in enumerate(known):
        if value is None:
            pieces = [one if one is not None else "1" for one in known]
            yield [*pieces[:position], text, *pieces[position + 1 :]]


def _known_text(tree: Tree, at: Path, draft: Draft) -> str | None:
    is_known, value = evaluated(tree, at, draft)
    # to_string makes a text of null, too.
    is_free = not is_known or not isinstance(value, str) or (value == "null" != tree.get("value"))
    return None if is_free else str(value)


def _to_string(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    for offer in target.offers:
        if not isinstance(offer, str):
            continue
        yield from search.solve(trees[0], exactly(offer), at, draft)
        try:
            value = json.loads(offer)
        except ValueError:
            continue
        if not isinstance(value, str):
            yield from search.solve(trees[0], exactly(value), at, draft)


def _to_number(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    for offer in (*target.offers, 1):
        if isinstance(offer, int | float) and not isinstance(offer, bool) and target.accepts(offer):
            for value in (offer, str(offer)):
                yield from search.solve(trees[0], exactly(value), at, draft)


def _not_null(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    filled = target.narrowed(lambda value: value is not None, something().offers)
    for position, tree in enumerate(trees):
        nulls = [(before, exactly(None), at) for before in trees[:position]]
        yield from search.all_of([*nulls, (tree, filled, at)], draft)


def _type(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    for name, value in _OF_A_TYPE.items():
        if target.accepts(name):
            yield from search.solve(trees[0], exactly(value), at, draft)


def _map(search: Search, trees: Trees, target: Target, at: Path, draft: Draft) -> Drafts:
    reference, items = trees
    (inner,) = reference["children"]
    for offer in target.offers:
        if isinstance(offer, list):
            made = [next(search.values([inner], exactly(value)), FREE) for value in offer]
            yield from search.solve(items, like(made), at, draft)


_FUNCTIONS: Mapping[str, Function] = {
    "contains": _contains,
    "starts_with": _text_predicate(str.startswith, lambda text: (text, f"{text}-{SOME_TEXT}")),
    "ends_with": _text_predicate(str.endswith, lambda text: (text, f"{SOME_TEXT}-{text}")),
    "length": _length,
    "join": _join,
    "to_string": _to_string,
    "to_number": _to_number,
    "not_null": _not_null,
    "type": _type,
    "map": _map,
}
