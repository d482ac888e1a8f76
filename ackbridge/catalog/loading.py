"""Reading integration files: every mistake at once, each with its file, line and field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ackbridge.errors import IntegrationFileError, Problem

from .catalog import Catalog
from .documents import Document, Mistake, Path, Unreadable, expand, read_document
from .publishing import known_fields
from .rules import contradictions
from .schema import Integration

SUFFIXES = (".yaml", ".yml")

# A `${` in a JSON Schema is part of a pattern.
_NOT_EXPANDED = frozenset({"payload_schema"})

_NOTHING = object()


def load_catalog(folder: FilePath, environ: Mapping[str, str]) -> Catalog:
    """Load every integration file of a folder.

    Raises:
        IntegrationFileError: with every problem of every file.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not paths:
        message = "has no integration file (*.yaml)" if folder.is_dir() else "is not a folder"
        raise IntegrationFileError([Problem(str(folder), 0, 0, "(folder)", message)])
    problems: list[Problem] = []
    integrations: dict[str, Integration] = {}
    files: dict[str, FilePath] = {}
    for path in paths:
        try:
            integration = load_integration(path, environ)
        except IntegrationFileError as error:
            problems += error.problems
            continue
        other = files.setdefault(integration.provider, path)
        if other is not path:
            message = f"{other} defines {integration.provider} already"
            problems.append(Problem(str(path), 1, 1, "provider", message))
        integrations[integration.provider] = integration
    if problems:
        raise IntegrationFileError(problems)
    return Catalog(MappingProxyType(integrations))


def load_integration(path: FilePath, environ: Mapping[str, str]) -> Integration:
    """Load one integration file.

    Args:
        environ: what `${NAME}` and `${NAME:-default}` stand for.

    Raises:
        IntegrationFileError: with every problem found, in the order of the file.
    """
    document = _read(path)
    value, unset = expand(document.value, environ, _NOT_EXPANDED)
    mistakes = [*document.mistakes, *unset]
    integration = None
    try:
        integration = Integration.model_validate(value)
    except ValidationError as error:
        # Without its variable a field is wrong in consequence only.
        already = {mistake.path for mistake in unset}
        mistakes += [m for m in _told(error, value) if m.path not in already]
    mistakes += contradictions(value)
    if integration is None or mistakes:
        raise IntegrationFileError(_problems(path, document, mistakes))
    return integration


def _read(path: FilePath) -> Document:
    try:
        document = read_document(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(str(path), 0, 0, "(file)", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problem = Problem(str(path), 0, 0, "(file)", "is not UTF-8")
    except Unreadable as error:
        place = error.place
        problem = Problem(str(path), place.line, place.column, "(file)", f"not YAML: {error}")
    else:
        if isinstance(document.value, dict):
            return document
        problem = Problem(str(path), 1, 1, "(file)", "is not a mapping")
    raise IntegrationFileError([problem])


def _problems(path: FilePath, document: Document, mistakes: list[Mistake]) -> list[Problem]:
    problems = [
        Problem(str(path), place.line, place.column, _field(mistake.path), mistake.message)
        for mistake in dict.fromkeys(mistakes)
        for place in [document.place(mistake.path)]
    ]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _field(path: Path) -> str:
    return ".".join(str(part) for part in path) or "(file)"


def _told(error: ValidationError, value: Any) -> Iterator[Mistake]:
    for details in error.errors(include_url=False, include_input=False):
        path = _in_the_file(details["loc"], value, missing=details["type"] == "missing")
        yield Mistake(path, _message(details, path))


def _message(details: ErrorDetails, path: Path) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_fields(details["loc"][:-1])
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


def _in_the_file(loc: Path, value: Any, *, missing: bool) -> Path:
    """A location of pydantic without the names of union members, which the file does not have."""
    path: Path = ()
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
