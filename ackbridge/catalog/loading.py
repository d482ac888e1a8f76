"""Load integration and subscriber files, and report every problem with its file, line and field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ackbridge.errors import IntegrationFileError, Problem

from .catalog import Catalog
from .fields import FilePart
from .json_schema import known_fields, published_integration, published_subscriber
from .model import Integration
from .subscribers import Subscriber
from .validation import find_conflicts
from .yaml_document import (
    FieldPath,
    FieldProblem,
    YamlDocument,
    YamlError,
    expand_variables,
    parse_yaml,
)

SUBSCRIBERS_FOLDER = "subscribers"
"""The folder, in that of the integration files, with a file for each subscriber."""


def load_catalog(folder: FilePath, environ: Mapping[str, str]) -> Catalog:
    """Load every integration file of a folder, and every subscriber of its `subscribers`.

    Raises:
        IntegrationFileError: with every problem of every file.
    """
    paths = files_in(folder)
    if not paths:
        message = "has no integration file (*.yaml)" if folder.is_dir() else "is not a folder"
        raise IntegrationFileError([Problem(str(folder), 0, 0, "(folder)", message)])
    problems: list[Problem] = []
    integrations = _all(
        paths,
        lambda path: load_integration(path, environ),
        lambda one: one.provider,
        "provider",
        problems,
    )
    subscribers = _all(
        files_in(folder / SUBSCRIBERS_FOLDER),
        lambda path: load_subscriber(path, environ),
        lambda one: one.subscriber,
        "subscriber",
        problems,
    )
    if problems:
        raise IntegrationFileError(problems)
    return Catalog(MappingProxyType(integrations), MappingProxyType(subscribers))


def load_integration(path: FilePath, environ: Mapping[str, str]) -> Integration:
    """Load one integration file.

    Args:
        environ: what `${NAME}` and `${NAME:-default}` stand for.

    Raises:
        IntegrationFileError: with every problem found, in the order of the file.
    """
    return read_file(path, environ, Integration, published_integration, find_conflicts)


def load_subscriber(path: FilePath, environ: Mapping[str, str]) -> Subscriber:
    """Load the file of one subscriber; see `load_integration`."""
    return read_file(path, environ, Subscriber, published_subscriber, _no_rules)


def _no_rules(_document: object) -> tuple[FieldProblem, ...]:
    return ()


def _all(
    paths: list[FilePath],
    load: Callable[[FilePath], Kind],
    name_of: Callable[[Kind], str],
    field: str,
    problems: list[Problem],
) -> dict[str, Kind]:
    """What the files define, by name; mistakes are added to the problems."""
    found: dict[str, Kind] = {}
    files: dict[str, FilePath] = {}
    for path in paths:
        try:
            one = load(path)
        except IntegrationFileError as error:
            problems += error.problems
            continue
        name = name_of(one)
        other = files.setdefault(name, path)
        if other is not path:
            message = f"{other} defines {name} already"
            problems.append(Problem(str(path), 1, 1, field, message))
        found[name] = one
    return found


SUFFIXES = (".yaml", ".yml")

Schema = Callable[[], dict[str, Any]]
"""Gives the published JSON Schema of a kind of file; asked for only when something is wrong."""

Rules = Callable[[Any], Iterable[FieldProblem]]
"""Tells what does not fit together in a document."""

Kind = TypeVar("Kind", bound=FilePart)

# A `${` in a JSON Schema is part of a pattern.
_NOT_EXPANDED = frozenset({"payload_schema"})

_NOTHING = object()


def files_in(folder: FilePath) -> list[FilePath]:
    """The files of a folder that are ours to read, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)


def read_file(
    path: FilePath, environ: Mapping[str, str], kind: type[Kind], schema: Schema, rules: Rules
) -> Kind:
    """Read one file.

    Args:
        environ: what `${NAME}` and `${NAME:-default}` stand for.

    Raises:
        IntegrationFileError: with every problem found, in the order of the file.
    """
    document = _read(path)
    value, unset = expand_variables(document.value, environ, _NOT_EXPANDED)
    mistakes = [*document.mistakes, *unset]
    found = None
    try:
        found = kind.model_validate(value)
    except ValidationError as error:
        # Without its variable a field is wrong in consequence only.
        already = {mistake.path for mistake in unset}
        mistakes += [m for m in _told(error, value, schema) if m.path not in already]
    mistakes += rules(value)
    if found is None or mistakes:
        raise IntegrationFileError(_problems(path, document, mistakes))
    return found


def _read(path: FilePath) -> YamlDocument:
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(str(path), 0, 0, "(file)", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problem = Problem(str(path), 0, 0, "(file)", "is not UTF-8")
    except YamlError as error:
        place = error.place
        problem = Problem(str(path), place.line, place.column, "(file)", f"not YAML: {error}")
    else:
        if isinstance(document.value, dict):
            return document
        problem = Problem(str(path), 1, 1, "(file)", "is not a mapping")
    raise IntegrationFileError([problem])


def _problems(
    path: FilePath, document: YamlDocument, mistakes: list[FieldProblem]
) -> list[Problem]:
    problems = [
        Problem(str(path), place.line, place.column, _field(mistake.path), mistake.message)
        for mistake in dict.fromkeys(mistakes)
        for place in [document.place(mistake.path)]
    ]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _field(path: FieldPath) -> str:
    return ".".join(str(part) for part in path) or "(file)"


def _told(error: ValidationError, value: Any, schema: Schema) -> Iterator[FieldProblem]:
    for details in error.errors(include_url=False, include_input=False):
        path = _in_the_file(details["loc"], value, missing=details["type"] == "missing")
        yield FieldProblem(path, _message(details, path, schema))


def _message(details: ErrorDetails, path: FieldPath, schema: Schema) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_fields(schema(), details["loc"][:-1])
        near = get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"is not a known field; {hint}"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return "needs a type"
    if kind == "union_tag_invalid":
        return f"type must be one of {context.get('expected_tags', '')}"
    if kind == "string_pattern_mismatch":
        return f"does not match {context.get('pattern', '')}"
    return details["msg"].removeprefix("Value error, ").removeprefix("Input ")


def _in_the_file(loc: FieldPath, value: Any, *, missing: bool) -> FieldPath:
    """A location of pydantic without the names of union members, which the file does not have."""
    path: FieldPath = ()
    for position, part in enumerate(loc):
        inner = _inside(value, part)
        if inner is not _NOTHING:
            path, value = (*path, part), inner
        elif missing and position == len(loc) - 1:
            path = (*path, part)
    return path


def _inside(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part, _NOTHING)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return _NOTHING
