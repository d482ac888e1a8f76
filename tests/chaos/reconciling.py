"""Comparing the three records: what must never happen, and whether it did.

The definitions are those of `docs/chaos.md`; each is one function here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .records import ENDED, Case, Event, Ledgered, RunState, Work

FINAL = frozenset({"completed", "failed", "cancelled"})
"""The stages in which a call may end."""

REFUSALS = frozenset({"InvalidRequest", "KeyReused"})
"""Failures of calls that never were any: nothing was claimed, nothing was sent."""

FAILS_REPEATEDLY = 3
"""Attempts in a row that a workflow task may need: a crowded machine costs one now and then."""


class Kind(StrEnum):
    """What a finding is counted under; `broken` is for every other promise."""

    LOST = "lost"
    APPLIED_TWICE = "applied twice"
    UNACKNOWLEDGED = "unacknowledged"
    HUNG = "hung"
    BROKEN = "broken promises"


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    kind: Kind
    call_id: str
    what: str


Check = Callable[[Case, Ledgered], Iterator[tuple[Kind, str]]]


def reconcile(cases: Iterable[Case], ledgered: Ledgered) -> list[Finding]:
    """Everything that must not be, call by call."""
    return [
        Finding(kind, case.call_id, what)
        for case in cases
        for check in CHECKS
        for kind, what in check(case, ledgered)
    ]


# Lost


def lost_calls(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """A call that was started, and has no end and is not parked. An open one counts as hung."""
    if not case.told.is_started or case.is_open:
        return
    last, kept = case.last, case.kept
    if last is None:
        yield Kind.LOST, "its start was acknowledged, and the engine does not know it"
    elif last.state not in ENDED:
        yield Kind.LOST, f"its workflow was {last.state}"
    elif last.failure in REFUSALS:
        return
    elif kept.outcome is None or not (kept.stage in FINAL or kept.owed):
        yield Kind.LOST, f"it has ended, and the ledger has it {kept.stage}"
    elif last.outcome is None and last.state is not RunState.CANCELLED:
        yield Kind.LOST, f"it has ended without an outcome: {last.failure}"


def lost_messages(case: Case, ledgered: Ledgered) -> Iterator[tuple[Kind, str]]:
    """A message we answered with 2xx that went nowhere.

    A response has to be recorded, logged as suppressed, or in the inbox; one that an open call
    has heard will be. Failures and extensions leave their trace in the history.
    """
    for event in case.seen.events:
        if event.is_true and event.is_taken and not _is_somewhere(event, case, ledgered):
            yield Kind.LOST, f"{event.id} ({event.news}) was taken with 2xx and is nowhere"


def _is_somewhere(event: Event, case: Case, ledgered: Ledgered) -> bool:
    if event.id in ledgered.owners or event.id in ledgered.suppressed:
        return True
    # An entry that was delivered is with its call, and that has to show it.
    if ledgered.inbox.get(event.id, "delivered") != "delivered":
        return True
    return event.id in case.heard and (event.news != "completed" or case.is_open)


# Applied twice


def applied_twice(case: Case, ledgered: Ledgered) -> Iterator[tuple[Kind, str]]:
    """More than one response of a call, or one event with more than one call."""
    if len(case.kept.responses) > 1:
        yield Kind.APPLIED_TWICE, f"{len(case.kept.responses)} responses are recorded"
    accepted = sum(run.recorded for run in case.runs)
    if accepted > 1:
        yield Kind.APPLIED_TWICE, f"its history has {accepted} accepted responses"
    for key in case.kept.applied:
        owners = ledgered.owners.get(key, ())
        if len(owners) > 1:
            yield Kind.APPLIED_TWICE, f"{key} was applied to {', '.join(owners)}"
    works = {work.id for work in case.seen.works}
    for response in case.kept.responses:
        its_id = response.data.get("id") if isinstance(response.data, dict) else None
        if response.source != "operator" and its_id not in works:
            yield Kind.APPLIED_TWICE, f"its response is of {its_id}, which is another call's work"


def done_twice(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """More than one effect of one key, or more than one of a call that nobody takes back."""
    for key, count in Counter(work.key for work in case.seen.works).items():
        if count > 1:
            yield Kind.APPLIED_TWICE, f"{count} effects under {key}"
    succeeded = [work for work in case.seen.works if work.verdicts[-1:] == ("success",)]
    if len(succeeded) > 1:
        ids = ", ".join(work.id for work in succeeded)
        yield Kind.APPLIED_TWICE, f"several works are acknowledged as success: {ids}"
    standing = [work for work in case.seen.works if _stands(work, case)]
    if len(standing) > 1:
        ids = ", ".join(work.id for work in standing)
        yield Kind.APPLIED_TWICE, f"several works stand, none of them given up: {ids}"


def _stands(work: Work, case: Case) -> bool:
    """Whether the provider has to take a work for wanted."""
    if work.status == "failed" or work.id in case.seen.told_failed:
        return False
    return work.verdicts[-1:] != ("failed",) and not _is_owed(work, case)


# Unacknowledged


def unacknowledged(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """A work that was neither acknowledged nor is owed, or one that was without its response."""
    if not case.operation.acknowledges:
        return
    for work in case.seen.works:
        if not work.verdicts and not _is_owed(work, case):
            yield Kind.UNACKNOWLEDGED, f"{work.id} (cycle {work.cycle}) was told nothing"
        if "success" in work.verdicts:
            yield from _success_without_response(work, case)


def _success_without_response(work: Work, case: Case) -> Iterator[tuple[Kind, str]]:
    if not case.kept.responses:
        yield Kind.UNACKNOWLEDGED, f"{work.id} was acknowledged as success, nothing is recorded"
        return
    response = case.kept.responses[0]
    if response.source != "operator" and response.data.get("id") != work.id:
        of = response.data.get("id")
        yield Kind.UNACKNOWLEDGED, f"{work.id} was acknowledged as success, the response is of {of}"


def _is_owed(work: Work, case: Case) -> bool:
    return any(owed.cycle == work.cycle for owed in case.kept.owed)


# Hung


def hung(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """A workflow that stays open without being parked or owing, or whose tasks keep failing."""
    if case.is_open and case.kept.stage != "parked" and not case.kept.owed:
        yield Kind.HUNG, f"its workflow is open, and the ledger has it {case.kept.stage}"
    for run in case.runs:
        for failure in run.task_failures:
            if failure.attempts >= FAILS_REPEATEDLY or run.state is RunState.OPEN:
                told = f"{failure.cause}, {failure.attempts} attempts: {failure.message}"
                yield Kind.HUNG, f"its workflow task fails: {told}"


# Everything else that is promised


def replays(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """Every history replays: a call whose history does not hangs when its worker dies."""
    for run in case.runs:
        if run.unreplayable is not None:
            yield Kind.BROKEN, f"its history does not replay: {run.unreplayable}"


def keys_of_cycles(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """One key for each cycle, and a new one only after a definitive end of the one before."""
    cycles = [_cycle(key, case.call_id) for key in case.seen.requests]
    known = sorted(cycle for cycle in cycles if cycle is not None)
    if len(known) < len(cycles):
        yield Kind.BROKEN, f"it was sent under strange keys: {', '.join(case.seen.requests)}"
    if known != list(range(1, len(known) + 1)):
        yield Kind.BROKEN, f"its keys are those of cycles {known}"
    counted = (case.kept.outcome or {}).get("cycles")
    if counted is not None and len(known) > counted:
        yield Kind.BROKEN, f"{len(known)} keys were used, and {counted} cycles are counted"
    for work in case.seen.works:
        if work.cycle + 1 in known and not _is_definitive(work, case):
            yield Kind.BROKEN, f"a new key after {work.id}, which was neither failed nor given up"


def _cycle(key: str, call_id: str) -> int | None:
    """Which cycle of a call a key is of; None when it is of none."""
    whose, _, number = key.rpartition(":")
    return int(number) if whose == call_id and number.isdecimal() else None


def _is_definitive(work: Work, case: Case) -> bool:
    said = work.status == "failed" or work.id in case.seen.told_failed
    given_up = any(
        one.cycle == work.cycle and one.kind == "failed" for one in case.kept.acknowledgements
    )
    return said or given_up or "failed" in work.verdicts


def notices(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """Whoever is left without an answer has something to show a user, and a reason.

    An operator's word without a response is an answer: the outcome says whose.
    """
    places = [("history", run.outcome) for run in case.runs] + [("ledger", case.kept.outcome)]
    for where, outcome in places:
        if not outcome:
            continue
        notice = outcome.get("notice") or {}
        if outcome["status"] == "completed":
            if outcome.get("response") is None and not outcome.get("forced"):
                yield Kind.BROKEN, f"the outcome in the {where} has neither response nor notice"
        elif not (notice.get("title") and notice.get("message") and outcome.get("reason")):
            status = outcome["status"]
            yield Kind.BROKEN, f"the outcome in the {where} ({status}) lacks a notice or a reason"


COMPARED = ("status", "response", "cycles", "late", "forced", "cancelled", "reason", "notice")
"""What an outcome says in the history and in the ledger alike."""


def agreement(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """History, ledger and callers tell the same end."""
    kept = case.kept.outcome
    for run in case.runs:
        if kept and run.outcome:
            for field in COMPARED:
                if run.outcome.get(field) != kept.get(field):
                    theirs = f"{run.outcome.get(field)!r} and {kept.get(field)!r}"
                    yield Kind.BROKEN, f"history and ledger differ in {field}: {theirs}"
    for answer in case.told.answers:
        if answer.outcome is None:
            continue
        for field in ("status", "response"):
            if answer.outcome.get(field) != (kept or {}).get(field):
                theirs = f"{answer.outcome.get(field)!r}, not {(kept or {}).get(field)!r}"
                yield Kind.BROKEN, f"a caller ({answer.how}) was told of the {field}: {theirs}"


def answers(case: Case, _: Ledgered) -> Iterator[tuple[Kind, str]]:
    """Everybody who waits is answered, and an invalid request goes nowhere."""
    for trouble in case.told.troubles:
        yield Kind.BROKEN, f"a caller met {trouble}"
    if case.told.gave_up:
        yield Kind.BROKEN, "a caller waited in vain"
    if case.told.is_refusable:
        if case.seen.requests:
            yield Kind.BROKEN, "it is invalid, and was sent"
        if case.told.is_started and not case.told.refusal:
            yield Kind.BROKEN, "it is invalid, and nobody was told so"
    elif case.told.refusal:
        yield Kind.BROKEN, f"a valid request was refused: {case.told.refusal}"


def forgeries(case: Case, ledgered: Ledgered) -> Iterator[tuple[Kind, str]]:
    """What the provider did not sign, or what cannot be understood, has no effect."""
    for event in case.seen.events:
        if event.is_true:
            continue
        if event.is_taken:
            yield Kind.BROKEN, f"{event.id} ({event.news}) was taken"
        if event.id in ledgered.owners or event.id in ledgered.inbox or event.id in case.heard:
            yield Kind.BROKEN, f"{event.id} ({event.news}) was let in"


CHECKS: Sequence[Check] = (
    lost_calls,
    lost_messages,
    applied_twice,
    done_twice,
    unacknowledged,
    hung,
    replays,
    keys_of_cycles,
    notices,
    agreement,
    answers,
    forgeries,
)
