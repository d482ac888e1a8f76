"""YAML documents with the position of every key, and the environment variables in their texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

MAX_LENGTH: Final = 1024 * 1024
"""Characters of a file."""

MAX_NODES: Final = 50_000
"""Of a document, each alias counted with all that it stands for."""

FieldPath: TypeAlias = tuple[str | int, ...]
"""Keys and list positions that lead to a field."""


@dataclass(frozen=True)
class Position:
    """A position in the file, counted from 1; 0 if there is none."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with a field; its file and line are not known yet."""

    path: FieldPath
    message: str


class YamlError(ValueError):
    """The text is not YAML.

    Attributes:
        position: where parsing failed.
    """

    def __init__(self, message: str, position: Position) -> None:
        self.position = position
        super().__init__(message)


@dataclass(frozen=True)
class YamlDocument:
    """A parsed document.

    Attributes:
        value: mappings with text keys, lists, texts, numbers, booleans, None.
        positions: of every key and list item.
        problems: duplicate keys.
    """

    value: Any
    positions: Mapping[FieldPath, Position]
    problems: tuple[FieldProblem, ...]

    def position(self, path: FieldPath) -> Position:
        """The position of a field, or of the closest part around it that exists."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, Position())


class _Loader(yaml.SafeLoader):
    """Resolves scalars as YAML 1.2 does, and editors: YAML 1.1 reads NO as false and 1:30 as 90."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


_UNQUOTED = "; within {} or [], a text that contains any of {}[],: needs quotes"

_RESERVED = "; a text that begins with it needs quotes"


def parse_yaml(text: str) -> YamlDocument:
    """Parse one YAML document.

    Raises:
        YamlError: it is not YAML, is more than one document, is too large, or contains itself.
    """
    if len(text) > MAX_LENGTH:
        raise YamlError(f"longer than {MAX_LENGTH} characters", Position(1, 1))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        builder = _Builder(loader)
        value = builder.build(node, ()) if node is not None else None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise YamlError("a control character", position) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = _UNQUOTED if "flow" in (error.context or "") else ""
        problem = error.problem or "unexpected text"
        hint = _RESERVED if "cannot start any token" in problem else hint
        raise YamlError(f"{problem}{hint}", _position(mark)) from None
    except RecursionError:
        raise YamlError("nested too deeply", Position(1, 1)) from None
    return YamlDocument(value, builder.positions, tuple(builder.problems))


@dataclass
class _Builder:
    """Builds plain values from nodes, and records their positions."""

    loader: _Loader
    positions: dict[FieldPath, Position] = field(default_factory=dict)
    problems: list[FieldProblem] = field(default_factory=list)
    _open: list[yaml.Node] = field(default_factory=list)
    _built: int = 0

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        self._built += 1
        if self._built > MAX_NODES:
            raise _error(f"more than {MAX_NODES} values, aliases included", node)
        self.positions.setdefault(path, _position(node.start_mark))
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if any(node is parent for parent in self._open):
            raise _error("an alias contains itself", node)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(inner, (*path, i)) for i, inner in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node, path: FieldPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key must be a text", key)
            if key.tag == "tag:yaml.org,2002:merge":
                merged = {**self._merged(inner, path), **merged}
                continue
            here = (*path, key.value)
            if key.value in own:
                self.problems.append(FieldProblem(here, "is defined twice"))
            self.positions[here] = _position(key.start_mark)
            own[key.value] = self.build(inner, here)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: FieldPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for inner in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(inner, yaml.MappingNode):
                raise _error("<< takes a mapping", inner)
            values = {**self.build(inner, path), **values}
        return values


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _position(mark: yaml.Mark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}")


def expand_variables(
    value: Any, environ: Mapping[str, str], leave: frozenset[str], path: FieldPath = ()
) -> tuple[Any, list[FieldProblem]]:
    """Replace `${NAME}` and `${NAME:-default}` in every text; `$${` is a literal `${`.

    Args:
        leave: keys whose values are not changed.

    Returns:
        The new value, and the variables that are not set.
    """
    problems: list[FieldProblem] = []

    def expand(key: str | int, inner: Any) -> Any:
        if key in leave:
            return inner
        expanded, found = expand_variables(inner, environ, leave, (*path, key))
        problems.extend(found)
        return expanded

    if isinstance(value, dict):
        return {key: expand(key, inner) for key, inner in value.items()}, problems
    if isinstance(value, list):
        return [expand(index, inner) for index, inner in enumerate(value)], problems
    if not isinstance(value, str):
        return value, problems
    unset = [
        FieldProblem(path, f"environment variable {found['name']} is not set")
        for found in _VARIABLE.finditer(value)
        if found["name"] and found["default"] is None and found["name"] not in environ
    ]
    return _VARIABLE.sub(lambda found: _replacement(found, environ), value), unset


def _replacement(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "${"
    current = environ.get(found["name"], "")
    return current if current or found["default"] is None else found["default"]


def walk_texts(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Every text in a value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from walk_texts(inner, (*path, key))
