"""Lost, applied twice, unacknowledged, untrue, hung: as `docs/chaos.md` defines them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .cases import Case
from .finding_kinds import Kind
from .records import ENDED, Event, EventRecords, Run, RunState, Work

FINAL = frozenset({"completed", "failed", "cancelled"})
"""The stages in which a call may end."""

REFUSALS = frozenset({"InvalidRequest", "KeyReused"})
"""Failures of calls that never were any: nothing was claimed, nothing was sent."""

FAILS_REPEATEDLY = 3
"""Attempts in a row that a workflow task may need: a busy machine costs one now and then."""


# Lost


def lost_calls(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """A call that was started, and has no end and is not parked. An open one counts as hung."""
    if not case.caller.is_started or case.is_open:
        return
    last, kept = case.last, case.ledger
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


def lost_messages(case: Case, ledgered: EventRecords) -> Iterator[tuple[Kind, str]]:
    """A message that the gateway accepted with 2xx and that was lost.

    A response has to be recorded, logged as suppressed, or in the inbox; one that an open call
    has received will be. Failures and extensions leave their trace in the history.
    """
    for event in case.provider.events:
        if event.is_true and event.is_taken and not _is_somewhere(event, case, ledgered):
            yield Kind.LOST, f"{event.id} ({event.news}) was taken with 2xx and is nowhere"


def _is_somewhere(event: Event, case: Case, ledgered: EventRecords) -> bool:
    if event.id in ledgered.owners or event.id in ledgered.suppressed:
        return True
    # An entry that was delivered is with its call, and that has to show it.
    if ledgered.inbox.get(event.id, "delivered") != "delivered":
        return True
    return event.id in case.heard and (event.news != "completed" or case.is_open)


# Applied twice


def applied_twice(case: Case, ledgered: EventRecords) -> Iterator[tuple[Kind, str]]:
    """More than one response of a call, or one event with more than one call."""
    if len(case.ledger.responses) > 1:
        yield Kind.APPLIED_TWICE, f"{len(case.ledger.responses)} responses are recorded"
    accepted = sum(run.recorded for run in case.runs)
    if accepted > 1:
        yield Kind.APPLIED_TWICE, f"its history has {accepted} accepted responses"
    for key in case.ledger.applied:
        owners = ledgered.owners.get(key, ())
        if len(owners) > 1:
            yield Kind.APPLIED_TWICE, f"{key} was applied to {', '.join(owners)}"
    works = {work.id for work in case.provider.works}
    for response in case.ledger.responses:
        its_id = response.data.get("id") if isinstance(response.data, dict) else None
        if response.source != "operator" and its_id not in works:
            yield Kind.APPLIED_TWICE, f"its response is of {its_id}, which is another call's work"


def recorded_in_host(host: Run, cases: Sequence[Case]) -> Iterator[tuple[Kind, str]]:
    """More accepted responses in the history of a host than calls of it have one.

    Args:
        cases: the calls that it has conducted.
    """
    moved = [run for case in cases for run in case.runs if run.moved_from == host.id]
    accepted = host.recorded + sum(run.recorded for run in moved)
    if accepted > (expected := sum(bool(case.ledger.responses) for case in cases)):
        told = f"{accepted} accepted responses of {expected} calls"
        yield Kind.APPLIED_TWICE, f"its host has {told} in its history"


def done_twice(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """More than one effect per key, or more than one effect of a call that is not undone."""
    for key, count in Counter(work.key for work in case.provider.works).items():
        if count > 1:
            yield Kind.APPLIED_TWICE, f"{count} effects under {key}"
    succeeded = [work for work in case.provider.works if work.verdicts[-1:] == ("success",)]
    if len(succeeded) > 1:
        ids = ", ".join(work.id for work in succeeded)
        yield Kind.APPLIED_TWICE, f"several works are acknowledged as success: {ids}"
    standing = [work for work in case.provider.works if _stands(work, case)]
    if len(standing) > 1:
        ids = ", ".join(work.id for work in standing)
        yield Kind.APPLIED_TWICE, f"several works stand, none of them given up: {ids}"


def _stands(work: Work, case: Case) -> bool:
    """Whether the provider must believe that a work is wanted."""
    if work.status == "failed" or work.id in case.provider.told_failed:
        return False
    return work.verdicts[-1:] != ("failed",) and not _is_owed(work, case)


# Unacknowledged


def unacknowledged(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """A work that was neither acknowledged nor is owed, or one that was without its response.

    What a parked call has sent without a receipt is still open, and is counted by itself.
    """
    if not case.operation.acknowledges:
        return
    for work in case.provider.works:
        if not work.verdicts and not _is_owed(work, case) and work not in case.in_doubt:
            yield Kind.UNACKNOWLEDGED, f"{work.id} (cycle {work.cycle}) was told nothing"
        if "success" in work.verdicts:
            yield from _success_without_response(work, case)


def _success_without_response(work: Work, case: Case) -> Iterator[tuple[Kind, str]]:
    if not case.ledger.responses:
        yield Kind.UNACKNOWLEDGED, f"{work.id} was acknowledged as success, nothing is recorded"
        return
    response = case.ledger.responses[0]
    if response.source != "operator" and response.data.get("id") != work.id:
        of = response.data.get("id")
        yield Kind.UNACKNOWLEDGED, f"{work.id} was acknowledged as success, the response is of {of}"


def _is_owed(work: Work, case: Case) -> bool:
    return any(owed.cycle == work.cycle for owed in case.ledger.owed)


# Untrue


def untrue(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """An outcome whose effect is not what the provider has done.

    `none`: each of its works failed or was called off by a failed acknowledgement that it accepted.
    `done`: exactly one of them is completed and was not called off, unless an operator says so.
    """
    outcome = case.ledger.outcome or {}
    works = case.provider.works
    effect = outcome.get("effect", "unknown")
    if outcome.get("status") == "completed" and effect != "done":
        yield Kind.UNTRUE, f"it is completed, and its effect is {effect}"
    if outcome.get("forced") or outcome.get("settled"):
        return
    if effect == "none":
        for work in works:
            if not (_has_failed(work, case) or _is_called_off(work)):
                yield Kind.UNTRUE, f"its effect is none, and {work.id} is {work.status}"
    if effect == "done":
        done = [work for work in works if _may_be_done(work, case)]
        certain = [work for work in done if not _is_called_off(work) and not _is_owed(work, case)]
        if not done or len(certain) > 1:
            ids = ", ".join(work.id for work in certain or done) or "none"
            yield Kind.UNTRUE, f"its effect is done, and the works that are done: {ids}"


def _has_failed(work: Work, case: Case) -> bool:
    return work.status == "failed" or work.id in case.provider.told_failed


def _is_called_off(work: Work) -> bool:
    return work.verdicts[-1:] == ("failed",)


def _may_be_done(work: Work, case: Case) -> bool:
    """Also work that was called off and is done all the same, or that was reported as both."""
    contradicts = bool(work.behaviour.get("late") or work.behaviour.get("contradictory"))
    is_undone = _has_failed(work, case) or _is_called_off(work)
    return work.status == "completed" and (contradicts or not is_undone)


# Hung


def hung(case: Case, _: EventRecords) -> Iterator[tuple[Kind, str]]:
    """A workflow that stays open without being parked or owing, or whose tasks keep failing."""
    if case.is_open and not case.is_parked and not case.ledger.owed:
        yield Kind.HUNG, f"its workflow is open, and the ledger has it {case.ledger.stage}"
    for run in case.runs:
        for failure in run.task_failures:
            if failure.attempts >= FAILS_REPEATEDLY or run.state is RunState.OPEN:
                told = f"{failure.cause}, {failure.attempts} attempts: {failure.message}"
                yield Kind.HUNG, f"its workflow task fails: {told}"
