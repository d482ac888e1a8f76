"""Compare the three records, and find what must never happen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import guarantee_checks as promises
from . import loss_checks as counted
from .cases import Case
from .finding_kinds import Check, Kind
from .records import EventRecords

CHECKS: Sequence[Check] = (
    counted.lost_calls,
    counted.lost_messages,
    counted.applied_twice,
    counted.done_twice,
    counted.unacknowledged,
    counted.untrue,
    counted.hung,
    promises.replays,
    promises.repetitions,
    promises.keys_of_cycles,
    promises.notices,
    promises.agreement,
    promises.answers,
    promises.forgeries,
)


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    kind: Kind
    call_id: str
    what: str


def reconcile(cases: Iterable[Case], ledgered: EventRecords) -> list[Finding]:
    """Everything that must not be, call by call."""
    return [
        Finding(kind, case.call_id, what)
        for case in cases
        for check in CHECKS
        for kind, what in check(case, ledgered)
    ]
