"""Compare the three records, and find what must never happen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import guarantee_checks as promises
from . import loss_checks as counted
from .cases import Case
from .finding_kinds import Check, Kind
from .records import EventRecords, Run, RunState

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


def reconcile(
    cases: Sequence[Case], ledgered: EventRecords, hosts: Iterable[Run] = ()
) -> list[Finding]:
    """Everything that must not be, call by call, and then host by host."""
    found = [
        Finding(kind, case.call_id, what)
        for case in cases
        for check in CHECKS
        for kind, what in check(case, ledgered)
    ]
    conducted: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for run in case.runs:
            if run.is_hosted and run.state is not RunState.FOLLOWED:
                conducted[run.id].append(case)
    for host in hosts:
        found += [
            Finding(kind, conducted[host.id][0].call_id, what)
            for kind, what in counted.recorded_in_host(host, conducted[host.id])
        ]
    return found
