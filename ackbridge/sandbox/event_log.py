"""What the simulated provider saw and did, in order."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ackbridge.clock import Clock

LONGEST = 200_000
"""Entries that are kept; the counts go on."""

_OF_A_CYCLE = re.compile(r"(?P<call_id>.+):(?P<cycle>\d+)", re.DOTALL)


class EventLog:
    """A log of what happened, and how often.

    Attributes:
        counts: by kind of entry, and what else is worth counting.
        dropped: how many entries, the oldest ones, had to go.
    """

    def __init__(self, clock: Clock, longest: int = LONGEST) -> None:
        """Begin.

        Args:
            longest: how many entries are kept.
        """
        self._clock = clock
        self._longest = longest
        self._entries: deque[dict[str, Any]] = deque()
        self._by_call: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._written = 0
        self.counts: Counter[str] = Counter()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, kind: str, **what: Any) -> None:
        """Add an entry `{number, at, kind, ...}`; what is None is left out."""
        self.counts[kind] += 1
        self._written += 1
        told = {name: value for name, value in what.items() if value is not None}
        entry = {"number": self._written, "at": self._clock().isoformat(), "kind": kind, **told}
        self._entries.append(entry)
        if "call_id" in entry:
            self._by_call[entry["call_id"]].append(entry)
        if len(self._entries) > self._longest:
            self._drop()

    def entries(
        self, *, call_id: str | None = None, after: int = 0, limit: int | None = None, **wanted: Any
    ) -> list[dict[str, Any]]:
        """The entries in order; those with the wanted values, where a value is given.

        Args:
            after: only those with a greater `number`.
            limit: so many at the most.
        """
        known: Iterable[dict[str, Any]] = self._entries
        if call_id is not None:
            known = self._by_call.get(call_id, ())
        asked = {name: value for name, value in wanted.items() if value is not None}
        found = (e for e in known if e["number"] > after and asked.items() <= e.items())
        return list(islice(found, limit))

    def _drop(self) -> None:
        oldest = self._entries.popleft()
        self.dropped += 1
        call_id = oldest.get("call_id")
        if call_id is not None:
            # Also the oldest of its call.
            self._by_call[call_id].popleft()
            if not self._by_call[call_id]:
                del self._by_call[call_id]


def whose(key: str, call_id: str | None = None) -> dict[str, Any]:
    """What an entry says of a request by its idempotency key: `<call id>:<cycle>`, if it is ours.

    A provider that is not told the call id can be asked by it nevertheless.
    """
    parts = _OF_A_CYCLE.fullmatch(key)
    return {
        "idempotency_key": key,
        "call_id": call_id or (parts and parts["call_id"]),
        "cycle": parts and int(parts["cycle"]),
    }
