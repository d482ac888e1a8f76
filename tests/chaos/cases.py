"""Calls in all records at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .records import Kept, Run, RunState, Seen, Told


@dataclass(frozen=True)
class Operation:
    """What one has to know about an operation to judge its calls."""

    acknowledges: bool


@dataclass(frozen=True)
class Case:
    """One call in all records.

    Attributes:
        runs: in the order of their start.
    """

    call_id: str
    operation: Operation
    told: Told
    seen: Seen = field(default_factory=Seen)
    kept: Kept = field(default_factory=Kept)
    runs: tuple[Run, ...] = ()

    @property
    def chain(self) -> tuple[Run, ...]:
        """The runs of the first execution chain; later ones only repeat its outcome."""
        return tuple(run for run in self.runs if run.chain == self.runs[0].chain)

    @property
    def last(self) -> Run | None:
        """The run that stands for the call."""
        return self.chain[-1] if self.runs else None

    @property
    def is_open(self) -> bool:
        """Whether its workflow runs."""
        return self.last is not None and self.last.state is RunState.OPEN

    @property
    def heard(self) -> frozenset[str]:
        """Every event key that came to it."""
        return frozenset[str]().union(*(run.heard for run in self.runs))


@dataclass(frozen=True)
class Totals:
    """What is counted over the whole run.

    Attributes:
        kills: by part.
        deaths: parts that ended by themselves, a line each.
        provider: the sandbox's own summary.
    """

    kills: Counter[str] = field(default_factory=Counter)
    deaths: tuple[str, ...] = ()
    provider: Mapping[str, Any] = field(default_factory=dict)
