"""Load integration files, examples and subscriber files, and report every problem and its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ackbridge.errors import IntegrationFileError, Problem, did_you_mean, unknown_name

from .catalog import Catalog
from .examples import Example, RecordedExample
from .fields import FilePart
from .file_warnings import find_warnings
from .hooks import HookError, load_hook
from .json_schema import field_names, json_schema_of
from .model import Integration
from .subscribers import Subscriber
from .validation import find_conflicts, find_refused_addresses, find_unknown_subscribers
from .yaml_document import (
    FieldPath,
    FieldProblem,
    Position,
    YamlDocument,
    YamlError,
    expand_variables,
    parse_yaml,
)

SUBSCRIBERS_FOLDER = "subscribers"
"""The folder of subscriber files, within the folder of integration files."""

NOT_EXPANDED = frozenset({"payload_schema"})
"""Fields whose texts are not expanded: in a JSON Schema, `${` is part of a pattern."""

_SUFFIXES = (".yaml", ".yml")

_ABSENT = object()

Model = TypeVar("Model", bound=FilePart)


@dataclass(frozen=True)
class _FileKind(Generic[Model]):
    """A kind of file.

    Attributes:
        name_field: the field that names what the file defines.
        conflicts: finds what no single field shows.
    """

    model: type[Model]
    name_field: str
    conflicts: Callable[[Any], Iterable[FieldProblem]]


_INTEGRATION = _FileKind(Integration, "provider", find_conflicts)
_SUBSCRIBER = _FileKind(Subscriber, "subscriber", find_refused_addresses)
_EXAMPLE = _FileKind(Example, "source", lambda _document: ())


def load_catalog(folder: Path, environ: Mapping[str, str]) -> Catalog:
    """Load every integration file of a folder, and every subscriber file of its `subscribers`.

    Raises:
        IntegrationFileError: with every problem of every file.
    """
    paths = _files_in(folder)
    if not paths:
        message = "contains no integration file (*.yaml)" if folder.is_dir() else "is not a folder"
        message += "; ACKBRIDGE_INTEGRATIONS says which one is used"
        raise IntegrationFileError([Problem(str(folder), 0, 0, "(folder)", message)])
    problems: list[Problem] = []
    integrations = _load_all(paths, environ, _INTEGRATION, problems)
    subscribers = _load_all(_files_in(folder / SUBSCRIBERS_FOLDER), environ, _SUBSCRIBER, problems)
    problems += _unknown_subscribers(paths, integrations, subscribers)
    if problems:
        raise IntegrationFileError(problems)
    return Catalog(MappingProxyType(integrations), MappingProxyType(subscribers))


def _unknown_subscribers(
    paths: list[Path],
    integrations: Mapping[str, Integration],
    subscribers: Mapping[str, Subscriber],
) -> Iterator[Problem]:
    """Events that an integration file sends to a subscriber without a file."""
    wrong = {
        name: problems
        for name, integration in integrations.items()
        if (problems := list(find_unknown_subscribers(integration, subscribers)))
    }
    for path in paths if wrong else ():
        document = _parse(path)
        yield from _in_file(path, document, wrong.get(str(document.value.get("provider")), []))


def load_integration(path: Path, environ: Mapping[str, str]) -> Integration:
    """Load one integration file.

    Args:
        environ: the values of `${NAME}` and `${NAME:-default}`.

    Raises:
        IntegrationFileError: with every problem, in the order of the file.
    """
    return _load(path, environ, _INTEGRATION)


def integration_warnings(path: Path, environ: Mapping[str, str]) -> list[Problem]:
    """What is allowed in an integration file, and may still not be what its author wants.

    Raises:
        IntegrationFileError: as `load_integration`.
    """
    integration = load_integration(path, environ)
    return _in_file(path, _parse(path), list(find_warnings(integration)))


def load_subscriber(path: Path, environ: Mapping[str, str]) -> Subscriber:
    """Load one subscriber file; see `load_integration`."""
    return _load(path, environ, _SUBSCRIBER)


def load_examples(path: Path, integration: Integration) -> list[RecordedExample]:
    """Load the examples of an integration file, in the order of its patterns and of their names.

    Args:
        path: the integration file; patterns are relative to its folder.

    Raises:
        IntegrationFileError: with every problem of every example.
    """
    problems: list[Problem] = []
    found: dict[Path, RecordedExample] = {}
    for index, pattern in enumerate(integration.example_patterns):
        files = sorted(file for file in path.parent.glob(pattern) if file.is_file())
        if not files:
            field = ("examples",) if isinstance(integration.examples, str) else ("examples", index)
            nothing = FieldProblem(field, f"no file matches {pattern}")
            problems += _in_file(path, _parse(path), [nothing])
        for file in files:
            try:
                found[file] = _load_example(file, integration)
            except IntegrationFileError as error:
                problems += error.problems
    if problems:
        raise IntegrationFileError(list(dict.fromkeys(problems)))
    return list(found.values())


def _load_example(path: Path, integration: Integration) -> RecordedExample:
    document = _parse(path, _parse_json, "JSON")
    example = _validated(path, document, document.value, _EXAMPLE, list(document.problems))
    recorded = RecordedExample(path, example, document)
    named = [("operation", example.operation)]
    named += [(f"means.{i}.operation", one.operation) for i, one in enumerate(example.means)]
    unknown = [
        recorded.problem(
            FieldProblem(
                tuple(field.split(".")), unknown_name("operation", name, integration.operations)
            )
        )
        for field, name in named
        if name is not None and name not in integration.operations
    ]
    if unknown:
        raise IntegrationFileError(unknown)
    return recorded


def _parse_json(text: str) -> YamlDocument:
    """Parse JSON; its positions are read by the YAML parser, its values are JSON's."""
    try:
        value = json.loads(text)
        return replace(parse_yaml(text), value=value)
    except json.JSONDecodeError as error:
        raise YamlError(error.msg, Position(error.lineno, error.colno)) from None


def integration_files(folder: Path) -> list[Path]:
    """The integration files of a folder, in alphabetical order."""
    return _files_in(folder)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES)


def _load_all(
    paths: list[Path],
    environ: Mapping[str, str],
    kind: _FileKind[Model],
    problems: list[Problem],
) -> dict[str, Model]:
    loaded: dict[str, Model] = {}
    files: dict[str, Path] = {}
    for path in paths:
        try:
            model = _load(path, environ, kind)
        except IntegrationFileError as error:
            problems += error.problems
            continue
        name = getattr(model, kind.name_field)
        other = files.setdefault(name, path)
        if other is not path:
            message = f"{name} is already defined in {other}"
            problems.append(Problem(str(path), 1, 1, kind.name_field, message))
        loaded[name] = model
    return loaded


def _load(path: Path, environ: Mapping[str, str], kind: _FileKind[Model]) -> Model:
    document = _parse(path)
    value, unset = expand_variables(document.value, environ, NOT_EXPANDED)
    # A field whose variable is not set is reported once.
    problems = [*map(_explained, document.problems), *unset]
    model = _validated(path, document, value, kind, problems)
    if isinstance(model, Integration) and model.hook is not None:
        try:
            model.attach(load_hook(path.parent / model.hook))
        except HookError as error:
            problem = FieldProblem(("hook",), str(error))
            raise IntegrationFileError(_in_file(path, document, [problem])) from None
    return model


def _validated(
    path: Path,
    document: YamlDocument,
    value: Any,
    kind: _FileKind[Model],
    problems: list[FieldProblem],
) -> Model:
    reported = {problem.path for problem in problems}
    model = None
    try:
        model = kind.model.model_validate(value)
    except ValidationError as error:
        problems += [p for p in _describe(error, value, kind) if p.path not in reported]
    problems += kind.conflicts(value)
    if model is None or problems:
        raise IntegrationFileError(_in_file(path, document, problems))
    return model


def _explained(problem: FieldProblem) -> FieldProblem:
    """A duplicate key, with what was probably meant."""
    if problem.path != ("auth",):
        return problem
    return replace(problem, message=f"{problem.message}. {SEVERAL_AUTHS}")


def _parse(
    path: Path, parse: Callable[[str], YamlDocument] = parse_yaml, kind: str = "YAML"
) -> YamlDocument:
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(str(path), 0, 0, "(file)", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problem = Problem(str(path), 0, 0, "(file)", "is not UTF-8")
    except YamlError as error:
        at = error.position
        problem = Problem(str(path), at.line, at.column, "(file)", f"not {kind}: {error}")
    else:
        if isinstance(document.value, dict):
            return document
        problem = Problem(str(path), 1, 1, "(file)", "is not a mapping")
    raise IntegrationFileError([problem])


def _in_file(path: Path, document: YamlDocument, problems: list[FieldProblem]) -> list[Problem]:
    located = [
        Problem(str(path), at.line, at.column, _dotted(problem.path), problem.message)
        for problem in dict.fromkeys(problems)
        for at in [document.position(problem.path)]
    ]
    return sorted(located, key=lambda problem: (problem.line, problem.column))


def _dotted(path: FieldPath) -> str:
    return ".".join(str(part) for part in path) or "(file)"


def _describe(error: ValidationError, value: Any, kind: _FileKind[Model]) -> Iterator[FieldProblem]:
    for details in error.errors(include_url=False, include_input=False):
        path = _path_in_file(details["loc"], value, is_missing=details["type"] == "missing")
        yield FieldProblem(path, _message(details, path, kind))


def _message(details: ErrorDetails, path: FieldPath, kind: _FileKind[Model]) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            known = field_names(json_schema_of(kind.model), details["loc"][:-1])
            hint = did_you_mean(str(path[-1]), known) or f" Known fields: {', '.join(known)}"
            return f"unknown field.{hint}{_hint(path)}"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "needs a type"
        case "union_tag_invalid":
            return f"type must be one of {context.get('expected_tags', '')}"
        case "string_pattern_mismatch":
            return f"does not match {context.get('pattern', '')}"
        case "model_type":
            known = field_names(json_schema_of(kind.model), details["loc"])
            return f"should be a mapping. Known fields: {', '.join(known)}"
    return details["msg"].removeprefix("Value error, ").removeprefix("Input ")


def _hint(path: FieldPath) -> str:
    """What people trip over."""
    name = str(path[-1])
    if name.endswith((")", "]", "'", '"')):
        return " Within {} an expression with a comma or a bracket needs quotes"
    if path[0] == "auth":
        return f" {SEVERAL_AUTHS}"
    return ""


SEVERAL_AUTHS = "Several authentications at once are a list: auth: [{type: …}, {type: …}]"


def _path_in_file(loc: FieldPath, value: Any, *, is_missing: bool) -> FieldPath:
    """Pydantic's location without the names of union members, which are not in the file."""
    path: FieldPath = ()
    for position, part in enumerate(loc):
        inner = _child(value, part)
        if inner is not _ABSENT:
            path, value = (*path, part), inner
        elif is_missing and position == len(loc) - 1:
            path = (*path, part)
    return path


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part, _ABSENT)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return _ABSENT
