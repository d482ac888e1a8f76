"""Every other promise: records written by hand, with one thing wrong in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from .cases import Case, Operation
from .kinds import Kind
from .records import Acknowledgement, Answer, Kept, Run, RunState, Told
from .samples import (
    CALL,
    EVENT,
    FAILED,
    GIVEN_UP,
    GOOD,
    KEPT,
    OUTCOME,
    RUN,
    SEEN,
    TOLD,
    found,
    second,
)

BROKEN: Mapping[str, Case] = {
    "history that does not replay": replace(GOOD, runs=(replace(RUN, unreplayable="no command"),)),
    "strange key": replace(GOOD, seen=replace(SEEN, requests={"somebody:1": 1, f"{CALL}:1": 1})),
    "gap in the keys": replace(GOOD, seen=replace(SEEN, requests={f"{CALL}:2": 1})),
    "more keys than cycles": replace(
        GIVEN_UP, seen=replace(GIVEN_UP.seen, requests={f"{CALL}:1": 1, f"{CALL}:2": 1})
    ),
    "no notice": replace(
        GIVEN_UP,
        told=Told(),
        kept=Kept("failed", outcome={**FAILED, "notice": None}),
        runs=(replace(GIVEN_UP.runs[0], outcome={**FAILED, "notice": None}),),
    ),
    "history and ledger differ": replace(
        GOOD, runs=(replace(RUN, outcome={**OUTCOME, "late": 1}),)
    ),
    "caller told otherwise": replace(GOOD, told=Told(answers=(Answer("x", "failed", FAILED),))),
    "caller left alone": replace(GOOD, told=replace(TOLD, gave_up=True)),
    "caller in trouble": replace(GOOD, told=replace(TOLD, troubles=("CallError: what?",))),
    "valid request refused": replace(GOOD, told=replace(TOLD, refusal="amount: is missing")),
    "forgery taken": replace(
        GOOD, seen=replace(SEEN, events=(EVENT, replace(EVENT, id="evt_2", news="forged_stale")))
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_other_promises_are_held_too(what: str) -> None:
    """Each of them is reported when it is broken."""
    assert Kind.BROKEN in found(BROKEN[what])


def test_a_new_key_needs_a_definitive_end_of_the_one_before() -> None:
    """An ambiguous end is sent again under the same key."""
    case = second("success")
    first, last = case.seen.works
    works = (replace(first, verdicts=()), last)
    owed = (*KEPT.acknowledgements, Acknowledgement(1, "failed", is_owed=True))
    case = replace(case, seen=replace(case.seen, works=works))
    assert Kind.BROKEN in found(case)
    assert found(replace(case, kept=replace(case.kept, acknowledgements=owed))) == []


def test_an_invalid_request_goes_nowhere() -> None:
    """It is refused, and neither sent nor claimed."""
    told = Told(is_refusable=True, refusal="unheard_of: is not allowed")
    refused = Run("run", "run", RunState.FAILED, failure="InvalidRequest")
    case = Case(CALL, Operation(acknowledges=True), told, runs=(refused,))
    assert found(case) == []
    assert found(replace(case, seen=SEEN))
