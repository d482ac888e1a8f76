"""Reading integration files: every mistake at once, each with its file, line and field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ackbridge.errors import IntegrationFileError, Problem

from . import fields, operation, schema
from .catalog import Catalog
from .rules import contradictions
from .schema import Integration

Location = tuple[str | int, ...]
Marks = dict[Location, yaml.Mark]

SUFFIXES = (".yaml", ".yml")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_KNOWN_FIELDS = sorted(
    {
        field
        for part in vars(schema).values()
        if isinstance(part, type) and issubclass(part, BaseModel)
        for field in part.model_fields
    }
)


def load_catalog(folder: Path, environ: Mapping[str, str]) -> Catalog:
    """Load every integration file of a folder.

    Raises:
        IntegrationFileError: with every problem of every file.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not paths:
        problem = Problem(str(folder), 0, 0, "(folder)", "has no integration file (*.yaml)")
        raise IntegrationFileError([problem])
    problems: list[Problem] = []
    integrations: dict[str, Integration] = {}
    for path in paths:
        try:
            integration = load_integration(path, environ)
        except IntegrationFileError as error:
            problems += error.problems
            continue
        if integration.provider in integrations:
            message = f"another file defines {integration.provider!r} already"
            problems.append(Problem(str(path), 1, 1, "provider", message))
        integrations[integration.provider] = integration
    if problems:
        raise IntegrationFileError(problems)
    return Catalog(integrations)


def load_integration(path: Path, environ: Mapping[str, str]) -> Integration:
    """Load one integration file.

    Args:
        environ: what `${NAME}` and `${NAME:-default}` stand for.

    Raises:
        IntegrationFileError: with every problem found.
    """
    data, marks = _read(path)
    problems = [
        _problem(path, marks, location, message) for location, message in _expand(data, (), environ)
    ]
    try:
        integration = Integration.model_validate(data)
    except ValidationError as error:
        problems += [_from_pydantic(path, data, marks, dict(e)) for e in error.errors()]
        raise IntegrationFileError(problems) from None
    problems += [
        _problem(path, marks, location, message)
        for location, message in contradictions(integration)
    ]
    if problems:
        raise IntegrationFileError(problems)
    return integration


def integration_json_schema() -> dict[str, Any]:
    """The JSON Schema of integration files, for completion in editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ackbridge integration file",
        **Integration.model_json_schema(),
    }


def _read(path: Path) -> tuple[dict[str, Any], Marks]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrationFileError(
            [Problem(str(path), 0, 0, "(file)", f"cannot be read: {error}")]
        ) from None
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = f"not YAML: {error.problem or error}"
        raise IntegrationFileError([Problem(str(path), line, column, "(file)", message)]) from None
    finally:
        loader.dispose()
    if node is None or not isinstance(data, dict):
        raise IntegrationFileError([Problem(str(path), 1, 1, "(file)", "is not a mapping")])
    marks: Marks = {}
    repeated = list(_mark(node, (), marks))
    if repeated:
        raise IntegrationFileError(
            [_problem(path, marks, location, "is there twice") for location in repeated]
        )
    return data, marks


def _mark(node: yaml.Node, location: Location, marks: Marks) -> Iterator[Location]:
    """Note where everything stands; yield what stands there twice."""
    marks.setdefault(location, node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*location, key.value)
            if inner in marks:
                yield inner
            marks[inner] = key.start_mark
            yield from _mark(value, inner, marks)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _mark(value, (*location, index), marks)


def _expand(
    value: Any, location: Location, environ: Mapping[str, str]
) -> Iterator[tuple[Location, str]]:
    """Replace `${NAME}` in place, everywhere; yield what is not set."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        here = (*location, key)
        if isinstance(inner, dict | list):
            yield from _expand(inner, here, environ)
        elif isinstance(inner, str):
            for found in _VARIABLE.finditer(inner):
                if found["default"] is None and found["name"] not in environ:
                    yield here, f"the environment variable {found['name']} is not set"
            value[key] = _VARIABLE.sub(
                lambda found: environ.get(found["name"], found["default"] or ""), inner
            )


def _from_pydantic(path: Path, data: Any, marks: Marks, error: dict[str, Any]) -> Problem:
    location = _in_the_file(data, error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "is not a known field"
        near = difflib.get_close_matches(str(location[-1]), _KNOWN_FIELDS, n=1)
        message += f"; did you mean {near[0]}?" if near else ""
    elif error["type"] == "missing":
        message = "is missing"
    return _problem(path, marks, location, message)


def _in_the_file(data: Any, loc: tuple[str | int, ...]) -> Location:
    """A pydantic location without the names of union members, which the file does not have."""
    location: list[str | int] = []
    for position, part in enumerate(loc):
        has_part = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if has_part:
            data = data[part]
            location.append(part)
        elif position == len(loc) - 1 and isinstance(data, dict):
            location.append(part)
    return tuple(location)


def _problem(path: Path, marks: Marks, location: Location, message: str) -> Problem:
    field = ".".join(str(part) for part in location) or "(file)"
    known = location
    while known not in marks and known:
        known = known[:-1]
    mark = marks.get(known)
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return Problem(str(path), line, column, field, message)
