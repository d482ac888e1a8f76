"""The demo's own integration files: as shipped, until its sandbox is put in a hurry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ackbridge.catalog.yaml_document import parse_yaml
from ackbridge.settings import integrations_folder

DEADLINE = timedelta(seconds=4)
"""How long an answer is awaited then. Answers that come take a small part of it."""

PARKED_FOR = timedelta(seconds=12)
"""How long a call stays parked then."""


@dataclass(frozen=True)
class DeadlineChange:
    """A span of time that is shorter in the copy.

    Attributes:
        operation, field: where, such as `response.deadline.initial`.
        before, after: as the files say it.
    """

    operation: str
    field: str
    before: str
    after: str


@contextmanager
def own_integrations(state: Path) -> Iterator[Path]:
    """A copy of the integration files we ship, for as long as the block runs."""
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="demo-integrations-", dir=state) as name:
        folder = Path(name)
        for path in integrations_folder(None).glob("*.yaml"):
            (folder / path.name).write_text(path.read_text())
        yield folder


def put_in_a_hurry(folder: Path) -> list[DeadlineChange]:
    """Shorten the times that `sandbox.yaml` waits; whoever has read it has to read it again.

    Args:
        folder: as `own_integrations` gave it.
    """
    path = folder / "sandbox.yaml"
    document = parse_yaml(path.read_text()).value
    changes = [
        change
        for name, operation in document["operations"].items()
        for change in _shorten(name, operation)
    ]
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return changes


def _shorten(name: str, operation: dict[str, Any]) -> Iterator[DeadlineChange]:
    deadline = operation["response"].get("deadline")
    if deadline:
        before, deadline["initial"] = deadline["initial"], _text(DEADLINE)
        yield DeadlineChange(name, "response.deadline.initial", before, deadline["initial"])
    if "parked_for" in operation:
        before, operation["parked_for"] = operation["parked_for"], _text(PARKED_FOR)
        yield DeadlineChange(name, "parked_for", before, operation["parked_for"])


def _text(span: timedelta) -> str:
    return f"{span.total_seconds():g}s"
