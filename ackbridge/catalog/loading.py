"""Loading a folder of integration files, and the subscribers beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from types import MappingProxyType

from ackbridge.errors import IntegrationFileError, Problem

from .catalog import Catalog
from .documents import Mistake
from .json_schema import published_integration, published_subscriber
from .reading import Kind, files_in, read_file
from .schema import Integration
from .subscribers import Subscriber
from .validation import contradictions

SUBSCRIBERS = "subscribers"
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
        files_in(folder / SUBSCRIBERS),
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
    return read_file(path, environ, Integration, published_integration, contradictions)


def load_subscriber(path: FilePath, environ: Mapping[str, str]) -> Subscriber:
    """Load the file of one subscriber; see `load_integration`."""
    return read_file(path, environ, Subscriber, published_subscriber, _no_rules)


def _no_rules(_document: object) -> tuple[Mistake, ...]:
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
