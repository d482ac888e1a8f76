"""YAML documents are bounded before anything is made of them."""

from __future__ import annotations

import time

import pytest

from ackbridge.catalog import yaml_document
from ackbridge.catalog.yaml_document import YamlError, parse_yaml

LAUGHS = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
    ]
)
MERGES = "\n".join(
    [
        "a0: &a0 {x: 1}",
        *(f"a{i}: &a{i} {{k{i}: *a{i - 1}, l{i}: *a{i - 1}, <<: *a{i - 1}}}" for i in range(1, 30)),
    ]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "more than 50000 values, aliases included"),
        (MERGES, "more than 50000 values, aliases included"),
        ("a: &a [*a]", "an alias contains itself"),
        ("[" * 5000, "nested too deeply|expected"),
        ("a: " + "x" * 2_000_000, "longer than 1048576 characters"),
        ("!!python/object/apply:os.system [echo]", ""),
    ],
    ids=["aliases", "merges", "itself", "deep", "long", "tag"],
)
def test_bombs_are_refused(text: str, problem: str) -> None:
    """In seconds, with a position."""
    started = time.process_time()
    if problem:
        with pytest.raises(YamlError, match=problem):
            parse_yaml(text)
    else:
        assert parse_yaml(text).value == ["echo"]
    assert time.process_time() - started < 10


def test_values_without_aliases_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading many takes the time."""
    monkeypatch.setattr(yaml_document, "MAX_NODES", 100)
    with pytest.raises(YamlError, match="more than 100 values"):
        parse_yaml("\n".join(f"k{i}: {i}" for i in range(100)))


def test_aliases_are_allowed() -> None:
    """As long as there are not too many."""
    document = parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}")
    assert document.value == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize("text", ["a: `true`", "a: @x", "a: %x"])
def test_a_reserved_character_at_the_beginning_says_what_it_needs(text: str) -> None:
    """An expression that begins with a literal is the usual case."""
    with pytest.raises(YamlError, match="needs quotes"):
        parse_yaml(text)
