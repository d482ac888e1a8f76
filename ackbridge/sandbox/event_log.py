"""A bounded log of what the simulated provider received and did."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ackbridge.clock import Clock

MAX_EVENTS = 200_000

_OUR_KEY = re.compile(r"(?P<call_id>.+):(?P<cycle>\d+)", re.DOTALL)


class EventLog:
    """Events in order, the oldest ones dropped, and counters that keep counting."""

    def __init__(self, clock: Clock, max_events: int = MAX_EVENTS) -> None:
        self._clock = clock
        self._max_events = max_events
        self._events: deque[dict[str, Any]] = deque()
        self._by_call: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._recorded = 0
        self.counts: Counter[str] = Counter()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def record(self, kind: str, **fields: Any) -> None:
        """Add an event `{number, at, kind, ...}`; fields that are None are left out."""
        self.counts[kind] += 1
        self._recorded += 1
        given = {name: value for name, value in fields.items() if value is not None}
        event = {"number": self._recorded, "at": self._clock().isoformat(), "kind": kind, **given}
        self._events.append(event)
        if "call_id" in event:
            self._by_call[event["call_id"]].append(event)
        if len(self._events) > self._max_events:
            self._drop_oldest()

    def find(
        self, *, call_id: str | None = None, after: int = 0, limit: int | None = None, **wanted: Any
    ) -> list[dict[str, Any]]:
        """Events in order with the values that are given, and a `number` greater than `after`."""
        events: Iterable[dict[str, Any]] = self._events
        if call_id is not None:
            events = self._by_call.get(call_id, ())
        given = {name: value for name, value in wanted.items() if value is not None}
        found = (e for e in events if e["number"] > after and given.items() <= e.items())
        return list(islice(found, limit))

    def _drop_oldest(self) -> None:
        oldest = self._events.popleft()
        self.dropped += 1
        call_id = oldest.get("call_id")
        if call_id is not None:
            # It is also the oldest event of its call.
            self._by_call[call_id].popleft()
            if not self._by_call[call_id]:
                del self._by_call[call_id]


def key_fields(key: str, call_id: str | None = None) -> dict[str, Any]:
    """The fields `idempotency_key`, `call_id` and `cycle` of an event.

    A key of Ackbridge is `<call id>:<cycle>`: events are found by call id even where the provider
    is not given one.
    """
    parts = _OUR_KEY.fullmatch(key)
    return {
        "idempotency_key": key,
        "call_id": call_id or (parts and parts["call_id"]),
        "cycle": parts and int(parts["cycle"]),
    }
