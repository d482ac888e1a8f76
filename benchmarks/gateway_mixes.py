"""What is sent to the gateway in its benchmark: signed events of the sandbox."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from ackbridge.sandbox.signing import Signer

Request = tuple[dict[str, str], str]
"""Headers and body."""

REPEATED = 0.1
"""The share of the events that come twice."""

AT_ONCE = 20
"""Events for one call that come together."""


@dataclass(frozen=True)
class Mix:
    """Events in the order in which they are sent.

    Attributes:
        events: call id and event key of each.
    """

    events: tuple[tuple[str, str], ...]

    @cached_property
    def by_call(self) -> dict[str, Counter[str]]:
        """How often each event key is sent to each call."""
        sent: dict[str, Counter[str]] = {}
        for call_id, key in self.events:
            sent.setdefault(call_id, Counter())[key] += 1
        return sent


def distinct(calls: Sequence[str]) -> Mix:
    """One event for each call."""
    return Mix(tuple((call_id, _key()) for call_id in calls))


def repeated(calls: Sequence[str]) -> Mix:
    """One event for each call, and every tenth a second time soon after."""
    chance = random.Random(1)  # noqa: S311 -- it decides what is sent twice, not a secret
    events: list[tuple[float, str, str]] = []
    for place, call_id in enumerate(calls):
        key = _key()
        events.append((place, call_id, key))
        if chance.random() < REPEATED:
            events.append((place + chance.uniform(0, 200), call_id, key))
    return Mix(tuple((call_id, key) for _, call_id, key in sorted(events)))


def shared(calls: Sequence[str], count: int) -> Mix:
    """So many events, `AT_ONCE` for one call, then as many for the next one."""
    return Mix(tuple((calls[number // AT_ONCE % len(calls)], _key()) for number in range(count)))


def requests(mix: Mix, signer: Signer, at: datetime) -> list[Request]:
    """As the sandbox would send them."""
    made: list[Request] = []
    for call_id, key in mix.events:
        body = json.dumps(event(call_id, key))
        made.append((signer.sign(body.encode(), key, at), body))
    return made


def event(call_id: str, key: str) -> Mapping[str, Any]:
    """What the sandbox says when an order is completed."""
    return {
        "event_id": key,
        "type": "order.completed",
        "call_id": call_id,
        "order": {
            "id": f"ord_{key[4:]}",
            "status": "completed",
            "amount": 1999,
            "currency": "EUR",
            "created_at": "2026-07-01T12:00:00+00:00",
            "completed_at": "2026-07-01T12:00:01+00:00",
            "lines": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}],
        },
    }


def _key() -> str:
    return f"evt_{uuid.uuid4().hex}"
