"""Messages generated from expressions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ackbridge.catalog.expressions import Expression
from ackbridge.conformance.solver.drafts import ValueKind
from ackbridge.conformance.solver.solve import CannotSimulateError, Requirement, Shape, compose
from ackbridge.conformance.solver.targets import (
    Target,
    exactly,
    false,
    marked,
    something,
    true,
)

NAMES = st.sampled_from(["a", "b", "body", "code", "status"])
CONSTANTS = st.sampled_from(["'x'", "'y'", "`1`", "`0`", "`true`", "`null`", "`[1]`"])


def requirement(expression: str, target: Target) -> Requirement:
    """A requirement of some field."""
    return Requirement(Expression(expression), target, "some.field", "be so")


def made(*requirements: tuple[str, Target], kind: ValueKind = ValueKind.CALLBACK) -> Shape:
    """A message that meets the requirements."""
    return compose([requirement(*one) for one in requirements], kind)


def refusal(*requirements: tuple[str, Target], kind: ValueKind = ValueKind.CALLBACK) -> str:
    """Why there is no such message."""
    with pytest.raises(CannotSimulateError) as refused:
        made(*requirements, kind=kind)
    return str(refused.value)


def paths() -> st.SearchStrategy[str]:
    """`a`, `a.b`, `a[0].b`, `headers."x-a"`."""
    steps = st.lists(st.sampled_from([".a", ".b", "[0]", "[-1]", "[1]"]), max_size=2)
    deep = st.builds(lambda name, more: name + "".join(more), NAMES, steps)
    return deep | st.sampled_from(['headers."x-a"', "query.q", "body.status", "@.a"])


def values() -> st.SearchStrategy[str]:
    """Expressions that select and collect."""
    picked = st.tuples(paths(), paths(), CONSTANTS)
    return st.one_of(
        paths(),
        picked.map(lambda p: f"{p[0]} || {p[1]}"),
        picked.map(lambda p: f"[{p[0]}, {p[1]}] | [0]"),
        picked.map(lambda p: f"a[?b == {p[2]}].code | [0]"),
        picked.map(lambda p: f"a[*].b | [0] || {p[0]}"),
        picked.map(lambda p: f"({p[0]} && {p[1]})"),
        picked.map(lambda p: f"{{n: {p[0]}, m: {p[1]}}}.n"),
        picked.map(lambda p: f"not_null({p[0]}, {p[1]})"),
        picked.map(lambda p: f"to_string({p[0]})"),
        picked.map(lambda p: f"join(':', [{p[0]}, to_string({p[1]})])"),
        picked.map(lambda p: f"a.{{n: b, m: {p[1]}}}"),
    )


def conditions() -> st.SearchStrategy[str]:
    """Expressions that are true or false."""
    operators = st.sampled_from(["==", "!=", "<", ">=", ">"])
    functions = st.sampled_from(["contains", "starts_with", "ends_with"])
    leaves = st.one_of(
        st.builds(lambda v, o, c: f"{v} {o} {c}", paths(), operators, CONSTANTS),
        st.builds(lambda v, o, w: f"{v} {o} {w}", paths(), operators, paths()),
        st.builds(lambda f, v: f"{f}({v}, 'x')", functions, paths()),
        st.builds(lambda v: f"length({v}) > `1`", paths()),
        paths(),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda one: f"!({one})", inner),
            st.builds(lambda one, two: f"({one}) && ({two})", inner, inner),
            st.builds(lambda one, two: f"({one}) || ({two})", inner, inner),
        ),
        max_leaves=4,
    )


WISHES = st.lists(
    st.one_of(
        st.tuples(conditions(), st.sampled_from([true(), false()])),
        st.tuples(values(), st.sampled_from([exactly("x"), marked("47"), something(), true()])),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(WISHES, st.sampled_from([ValueKind.CALLBACK, ValueKind.ANSWER]))
def test_composed_messages_meet_their_requirements(
    requirements: list[tuple[str, Target]], kind: ValueKind
) -> None:
    """By the real evaluator over the document; otherwise nothing is composed."""
    try:
        shape = made(*requirements, kind=kind)
    except CannotSimulateError:
        return
    for expression, target in requirements:
        assert target.accepts(Expression(expression).search(shape.document)), expression


SCALARS = st.sampled_from(["x", "y", 1, 2, True, "done"])
BODIES = st.dictionaries(
    st.sampled_from("abc"),
    SCALARS
    | st.dictionaries(st.sampled_from("pq"), SCALARS, min_size=1)
    | st.lists(st.dictionaries(st.sampled_from("kv"), SCALARS, min_size=2), min_size=1, max_size=2),
    min_size=1,
)


@settings(deadline=None)
@given(BODIES, st.data())
def test_existing_documents_are_found(body: dict[str, Any], data: st.DataObject) -> None:
    """Facts of one document can hold together again, in the forms that files use."""
    document = {**body, "body": body, "headers": {}, "query": {}}
    texts = data.draw(st.lists(values() | conditions(), min_size=1, max_size=4))
    texts += [f"{name}.p == 'x'" for name in body] + [f"{name} != 'x'" for name in body]
    facts = []
    for text in texts:
        found = Expression(text).search(document)
        facts.append((text, true() if found is True else false() if found is False else None))
    requirements = [(text, target) for text, target in facts if target is not None]
    shape = made(*requirements)
    for text, target in requirements:
        assert target.accepts(Expression(text).search(shape.document))


def test_callback_of_the_worked_example() -> None:
    """Lists with conditions, joined keys, and a condition that must not hold."""
    shape = made(
        ("evt.kind == 'BOOKED/OK'", true()),
        ("evt.kind == 'BOOKED/NO'", false()),
        ("obj[0].attrs[?k == 'client_ref'].v | [0]", exactly("norddeich.book.k1")),
        ("obj[0].ticket.no", marked("99")),
        ("join(':', [to_string(obj[0].ticket.no), to_string(evt.seq)])", marked("4711")),
        ("obj[0].carrier", something()),
    )
    assert shape.body["obj"][0]["attrs"] == [{"k": "client_ref", "v": "norddeich.book.k1"}]
    assert shape.body["evt"]["kind"] == "BOOKED/OK"


def test_plain_status_is_the_http_status_of_an_answer_only() -> None:
    """In a callback it is a field of the body."""
    wanted = ("status == `409`", true())
    assert made(wanted, kind=ValueKind.ANSWER).status == 409
    assert made(wanted, kind=ValueKind.ANSWER).body == {}
    assert made(wanted).body == {"status": 409}


def test_bodies_that_are_lists() -> None:
    """body[0] makes the whole body a list."""
    assert made(("body[0].x", exactly("q"))).body == [{"x": "q"}]


def test_headers_are_texts_in_lower_case() -> None:
    """Values that a header cannot have are rejected with the reason."""
    assert made(('headers."x-event"', marked("12"))).headers == {"x-event": "12"}
    assert "in lower case" in refusal(("headers.\"X-Event\" == 'x'", true()))
    assert "no value was found" in refusal(("headers.host == 'x'", true()))


def test_contradictions_are_named() -> None:
    """Two requirements that exclude each other are both in the message."""
    told = refusal(("status == 'ok'", true()), ("id", marked("1")), ("status == 'no'", true()))
    assert "status == 'no' must be so (not together with some.field: status == 'ok'" in told


def test_functions_without_inverse_are_named() -> None:
    """The file is not wrong, but cannot be simulated."""
    told = refusal(("sum(items[*].n) > `2`", true()))
    assert told == (
        "some.field: sum(items[*].n) > `2` must be so (the function sum has no inverse)"
    )


def test_preferences_are_met_where_possible() -> None:
    """A preference that contradicts a requirement is left out, and the next one is not."""
    shape = compose(
        [requirement("kind == 'a'", true())],
        ValueKind.CALLBACK,
        preferences=[requirement("kind == 'b'", true()), requirement("data", something())],
    )
    assert shape.body["kind"] == "a"
    assert shape.body["data"]
