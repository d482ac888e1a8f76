"""YAML documents that remember where everything stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

FieldPath = tuple[str | int, ...]
"""Where something is in a document: keys and list positions."""


@dataclass(frozen=True)
class Position:
    """A position in the file, from 1; 0 for nowhere."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong at a path, before it has a file and a line."""

    path: FieldPath
    message: str


class YamlError(ValueError):
    """The text is not YAML.

    Attributes:
        place: where the reader gave up.
    """

    def __init__(self, message: str, place: Position) -> None:
        self.place = place
        super().__init__(message)


@dataclass(frozen=True)
class YamlDocument:
    """A document as plain values.

    Attributes:
        value: mappings with text keys, lists, texts, numbers, booleans, None.
        places: of every key and list item.
        mistakes: keys that are there twice.
    """

    value: Any
    places: Mapping[FieldPath, Position]
    mistakes: tuple[FieldProblem, ...]

    def place(self, path: FieldPath) -> Position:
        """Where a path stands, or the nearest thing around it that is there."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Position())


class _Loader(yaml.SafeLoader):
    """Scalars as YAML 1.2 has them, which is how editors read the file too.

    Under YAML 1.1 the country NO is false, 1:30 is ninety and a date is no text.
    """


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def parse_yaml(text: str) -> YamlDocument:
    """Read one YAML document.

    Raises:
        YamlError: it is not YAML, or more than one document, or it contains itself.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Reader(loader)
        value = reader.read(node, ()) if node is not None else None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Position(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise YamlError("a control character", place) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(error.problem or "unexpected text", _place(mark)) from None
    except RecursionError:
        raise YamlError("nested too deeply", Position(1, 1)) from None
    return YamlDocument(value, reader.places, tuple(reader.mistakes))


@dataclass
class _Reader:
    loader: _Loader
    places: dict[FieldPath, Position] = field(default_factory=dict)
    mistakes: list[FieldProblem] = field(default_factory=list)
    _open: list[yaml.Node] = field(default_factory=list)

    def read(self, node: yaml.Node, path: FieldPath) -> Any:
        self.places.setdefault(path, _place(node.start_mark))
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if any(node is around for around in self._open):
            raise yaml.MarkedYAMLError(
                problem="an alias contains itself", problem_mark=node.start_mark
            )
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(inner, (*path, i)) for i, inner in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node, path: FieldPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a text", problem_mark=key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                merged = {**self._merged(inner, path), **merged}
                continue
            here = (*path, key.value)
            if key.value in own:
                self.mistakes.append(FieldProblem(here, "is there twice"))
            self.places[here] = _place(key.start_mark)
            own[key.value] = self.read(inner, here)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: FieldPath) -> dict[str, Any]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values: dict[str, Any] = {}
        for inner in nodes:
            if not isinstance(inner, yaml.MappingNode):
                raise yaml.MarkedYAMLError(
                    problem="<< takes a mapping", problem_mark=inner.start_mark
                )
            values = {**self.read(inner, path), **values}
        return values


_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}")


def expand_variables(
    value: Any, environ: Mapping[str, str], leave: frozenset[str], path: FieldPath = ()
) -> tuple[Any, list[FieldProblem]]:
    """Replace `${NAME}` and `${NAME:-default}` in every text; `$${` is a literal `${`.

    Args:
        leave: keys whose values stay as they are.

    Returns:
        The new value, and the variables that are not set.
    """
    mistakes: list[FieldProblem] = []

    def inside(key: str | int, inner: Any) -> Any:
        if key in leave:
            return inner
        expanded, found = expand_variables(inner, environ, leave, (*path, key))
        mistakes.extend(found)
        return expanded

    if isinstance(value, dict):
        return {key: inside(key, inner) for key, inner in value.items()}, mistakes
    if isinstance(value, list):
        return [inside(index, inner) for index, inner in enumerate(value)], mistakes
    if not isinstance(value, str):
        return value, mistakes
    missing = [
        FieldProblem(path, f"the environment variable {found['name']} is not set")
        for found in _VARIABLE.finditer(value)
        if found["name"] and found["default"] is None and found["name"] not in environ
    ]
    return _VARIABLE.sub(lambda found: _replacement(found, environ), value), missing


def _replacement(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "${"
    set_to = environ.get(found["name"], "")
    return set_to if set_to or found["default"] is None else found["default"]


def walk_texts(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Every text in a value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from walk_texts(inner, (*path, key))


def _place(mark: yaml.Mark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)
