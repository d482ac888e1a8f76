"""What the simulated provider saw and did, in order."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from ackbridge.clock import Clock

LONGEST = 200_000
"""Entries that are kept; the counts go on."""


class Journal:
    """A log of what happened, and how often.

    Attributes:
        counts: by kind of entry, and what else is worth counting.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: deque[dict[str, Any]] = deque(maxlen=LONGEST)
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, **what: Any) -> None:
        """Add an entry `{at, kind, ...}`; what is None is left out."""
        self.counts[kind] += 1
        told = {name: value for name, value in what.items() if value is not None}
        self._entries.append({"at": self._clock().isoformat(), "kind": kind, **told})

    def entries(self, **wanted: str | None) -> list[dict[str, Any]]:
        """The entries in order; those with the wanted values, where a value is given."""
        asked = {name: value for name, value in wanted.items() if value is not None}
        return [entry for entry in self._entries if asked.items() <= entry.items()]
