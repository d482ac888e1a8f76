"""Compiled expressions: the same results as jmespath's own interpreter."""

from __future__ import annotations

from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from ackbridge.catalog.expressions import Evaluate, Expression, ExpressionError, compile_node

LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 1.0, "", "a", "x", [], {}]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=12,
)
ATOMS = st.sampled_from(
    ["a", "b", "c", "a.b", "a.b.c", "@", "'a'", "'x'", "`0`", "`1`", "`true`", "`false`", "`null`"]
)


def _around(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Larger expressions of smaller ones; some are compiled, some are left to the interpreter."""
    two = ("{} == {}", "{} != {}", "{} && {}", "{} || {}", "{} | {}", "{} < {}", "[{}, {}]")
    one = ("!{}", "{}.a", "{}[0]", "{}[]", "{}[?a]", "{}[*].a", "type({})", "not_null({})")
    pairs = st.builds(
        lambda f, left, right: f"({f.format(left, right)})", st.sampled_from(two), inner, inner
    )
    return pairs | st.builds(lambda f, only: f.format(f"({only})"), st.sampled_from(one), inner)


@given(text=st.recursive(ATOMS, _around, max_leaves=5), document=VALUES)
def test_results_equal_those_of_jmespath(text: str, document: Any) -> None:
    """The same value of the same type, or the same error, for any expression and document."""
    compiled = jmespath.compile(text)
    found = _result(compile_node(compiled.parsed), document)
    assert found == _result(compiled.search, document)


@pytest.mark.parametrize("text", ["type == 'done'", "order.id", "a && b.c != 'x' || !d"])
def test_common_expressions_do_not_use_the_interpreter(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ordinary callbacks are matched without it."""
    visited: list[str] = []
    monkeypatch.setattr(
        "jmespath.visitor.TreeInterpreter.visit",
        lambda self, node, *_: visited.append(node["type"]),
    )
    compile_node(jmespath.compile(text).parsed)({"type": "done"})
    assert set(visited) <= {"not_expression"}


def _result(evaluate: Evaluate, document: Any) -> tuple[type, Any]:
    try:
        value = evaluate(document)
    except (JMESPathError, TypeError) as error:
        return type(error), str(error)
    return type(value), value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(" * 500 + "a" + ")" * 500, "nested"),
        ("!" * 1000 + "a", "nested"),
        ("[" * 80 + "a" + "]" * 80, "nested more than 60 levels deep"),
        ("a || " * 900 + "b", "longer than 4000 characters"),
        (" | ".join(["[@, @]"] * 12), "too many times"),
        (" | ".join(["{a: @, b: [@, @]}"] * 8), "too many times"),
        (" | ".join(["map(&[@, @], [@])"] * 12), "too many times"),
    ],
)
def test_expressions_that_could_hang_are_refused(text: str, problem: str) -> None:
    """Deep ones, long ones, and those whose value grows with every step."""
    with pytest.raises(ValueError, match=problem):
        Expression(text)


@pytest.mark.parametrize("text", ["replace(a, 'x', a)", "join(a, b)"])
def test_functions_that_repeat_a_text_are_bounded(text: str) -> None:
    """A document of 200 kB must not become one of many gigabytes."""
    document = {"a": "x" * 100_000, "b": [""] * 100_000}
    with pytest.raises(ExpressionError):
        Expression(text).evaluate(document)
    assert Expression("join('-', b)").evaluate({"b": ["x", "y"]}) == "x-y"
