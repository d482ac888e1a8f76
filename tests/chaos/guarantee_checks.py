"""Checks of all other guarantees, one function each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ackbridge.contracts.calls import Effect, OutcomeCode
from ackbridge.contracts.notices import notice_kind

from .cases import Case
from .finding_kinds import Kind
from .records import EventRecords, Run, Work


def replays(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """Every history replays: a call whose history does not hangs when its worker dies."""
    for run in case.runs:
        if run.unreplayable is not None:
            yield Kind.BROKEN, f"its history does not replay: {run.unreplayable}"


def repetitions(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """A request that may not be repeated reaches the provider once, while its work may succeed."""
    if not case.operation.is_repeatable:
        for work in case.provider.works[:-1]:
            if not _is_definitive(work, case):
                yield Kind.BROKEN, f"it was repeated after {work.id}, which may still be done"


def keys_of_cycles(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """One key for each cycle, and a new one only after a definitive end of the one before."""
    if not case.operation.is_repeatable:
        return
    cycles = [_cycle(key, case.call_id) for key in case.provider.requests]
    known = sorted(cycle for cycle in cycles if cycle is not None)
    if len(known) < len(cycles):
        yield Kind.BROKEN, f"it was sent under strange keys: {', '.join(case.provider.requests)}"
    if known != list(range(1, len(known) + 1)):
        yield Kind.BROKEN, f"its keys are those of cycles {known}"
    counted = (case.ledger.outcome or {}).get("cycles")
    if counted is not None and len(known) > counted:
        yield Kind.BROKEN, f"{len(known)} keys were used, and {counted} cycles are counted"
    for work in case.provider.works:
        if work.cycle + 1 in known and not _is_definitive(work, case):
            yield Kind.BROKEN, f"a new key after {work.id}, which neither failed nor was called off"


def _cycle(key: str, call_id: str) -> int | None:
    """Which cycle of a call a key is of; None when it is of none."""
    whose, _, number = key.rpartition(":")
    return int(number) if whose == call_id and number.isdecimal() else None


def _is_definitive(work: Work, case: Case) -> bool:
    """Whether the provider has failed it, or accepted its failed acknowledgement."""
    said = work.status == "failed" or work.id in case.provider.told_failed
    return said or "failed" in work.verdicts


def notices(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """Every outcome without a response has a notice to show a user, and a reason.

    A response that an operator forced may be empty: the outcome names the operator.
    """
    places = [("history", run.outcome) for run in case.runs] + [("ledger", case.ledger.outcome)]
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
        elif notice["kind"] != (kind := _notice_kind(outcome)):
            yield Kind.BROKEN, f"the notice in the {where} is {notice['kind']}, not {kind}"


def _notice_kind(outcome: Mapping[str, Any]) -> str:
    effect = Effect(outcome.get("effect", Effect.UNKNOWN))
    code = outcome.get("code")
    return notice_kind(OutcomeCode(code), effect) if code else "none, since it lacks a code"


COMPARED = (
    *("status", "response", "cycles", "late", "forced", "cancelled", "reason", "notice"),
    *("acknowledgement_owed", "effect", "code", "provider_code", "disputed", "settled"),
)
"""What an outcome says in the history and in the ledger alike."""


REPEATED = ("status", "response", "cycles")
"""What does not change after the outcome. A host that is asked again returns it as it is then."""


def _compared(case: Case, run: Run) -> Sequence[str]:
    if run in case.chain or not any(one.is_hosted for one in case.runs):
        return COMPARED
    return () if (run.outcome or {}).get("effect") == "unknown" else REPEATED


def agreement(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """History, ledger and callers have the same outcome."""
    kept = case.ledger.outcome
    for run in case.runs:
        if kept and run.outcome:
            for field in _compared(case, run):
                if run.outcome.get(field) != kept.get(field):
                    theirs = f"{run.outcome.get(field)!r} and {kept.get(field)!r}"
                    yield Kind.BROKEN, f"history and ledger differ in {field}: {theirs}"
    for answer in case.caller.answers:
        if answer.outcome is None:
            continue
        if answer.outcome.get("effect") == "unknown":
            # It may have been replaced since then.
            continue
        for field in ("status", "response"):
            if answer.outcome.get(field) != (kept or {}).get(field):
                theirs = f"{answer.outcome.get(field)!r}, not {(kept or {}).get(field)!r}"
                yield Kind.BROKEN, f"a caller ({answer.how}) was told of the {field}: {theirs}"


def answers(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """Every waiting caller is answered, and an invalid request is never sent."""
    for error in case.caller.errors:
        yield Kind.BROKEN, f"a caller got {error}"
    if case.caller.gave_up:
        yield Kind.BROKEN, "a caller got no answer"
    if case.caller.is_refusable:
        if case.provider.requests:
            yield Kind.BROKEN, "it is invalid, and was sent"
        if case.caller.is_started and not case.caller.refusal:
            yield Kind.BROKEN, "it is invalid, and its caller got no error"
    elif case.caller.refusal:
        yield Kind.BROKEN, f"a valid request was refused: {case.caller.refusal}"


def forgeries(case: Case, ledgered: EventRecords) -> Iterator[tuple[Kind, str]]:
    """Callbacks that are forged or malformed have no effect."""
    for event in case.provider.events:
        if event.is_true:
            continue
        if event.is_taken:
            yield Kind.BROKEN, f"{event.id} ({event.news}) was taken"
        if event.id in ledgered.owners or event.id in ledgered.inbox or event.id in case.heard:
            yield Kind.BROKEN, f"{event.id} ({event.news}) was let in"
