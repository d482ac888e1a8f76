"""The demo's copy of the integration files, whose deadlines can be shortened."""

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

PROVIDERS = ("sandbox", "stripe")

DEADLINE = timedelta(seconds=4)
"""The shortened deadline of a response. Responses that are sent take a fraction of it."""

PARKED_FOR = timedelta(seconds=16)
"""The shortened time to live of a parked call."""


@dataclass(frozen=True)
class DeadlineChange:
    """A time span that is shorter in the copy; a field is such as `response.deadline.initial`."""

    operation: str
    field: str
    before: str
    after: str


@contextmanager
def copy_integrations(state: Path) -> Iterator[Path]:
    """A copy of the integration files of the two providers that are run, removed at the end."""
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="demo-integrations-", dir=state) as path:
        folder = Path(path)
        for name in PROVIDERS:
            file = f"{name}.yaml"
            (folder / file).write_text((integrations_folder(None) / file).read_text())
        yield folder


def shorten_deadlines(folder: Path) -> list[DeadlineChange]:
    """Shorten the deadlines in `sandbox.yaml`; processes that have loaded it need a restart."""
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
