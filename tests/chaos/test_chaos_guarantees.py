"""Every other promise: records written by hand, with one thing wrong in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from .cases import Case, Operation
from .finding_kinds import Kind
from .records import Acknowledgement, Answer, CallerRecord, LedgerRecord, Run, RunState
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


def given_up_as(outcome: Mapping[str, Any]) -> Case:
    """A call that has failed with this outcome."""
    return replace(
        GIVEN_UP,
        caller=CallerRecord(),
        ledger=LedgerRecord("failed", outcome=outcome),
        runs=(replace(GIVEN_UP.runs[0], outcome=outcome),),
    )


BROKEN: Mapping[str, Case] = {
    "history that does not replay": replace(GOOD, runs=(replace(RUN, unreplayable="no command"),)),
    "strange key": replace(
        GOOD, provider=replace(SEEN, requests={"somebody:1": 1, f"{CALL}:1": 1})
    ),
    "gap in the keys": replace(GOOD, provider=replace(SEEN, requests={f"{CALL}:2": 1})),
    "more keys than cycles": replace(
        GIVEN_UP, provider=replace(GIVEN_UP.provider, requests={f"{CALL}:1": 1, f"{CALL}:2": 1})
    ),
    "no notice": given_up_as({**FAILED, "notice": None}),
    "notice that claims what is not known": given_up_as({**FAILED, "effect": "unknown"}),
    "notice without a code": given_up_as({**FAILED, "code": None}),
    "history and ledger differ": replace(
        GOOD, runs=(replace(RUN, outcome={**OUTCOME, "late": 1}),)
    ),
    "caller with another outcome": replace(
        GOOD, caller=CallerRecord(answers=(Answer("x", "failed", FAILED),))
    ),
    "caller without an answer": replace(GOOD, caller=replace(TOLD, gave_up=True)),
    "caller with an error": replace(GOOD, caller=replace(TOLD, errors=("CallError: what?",))),
    "valid request refused": replace(GOOD, caller=replace(TOLD, refusal="amount: is missing")),
    "forgery taken": replace(
        GOOD,
        provider=replace(SEEN, events=(EVENT, replace(EVENT, id="evt_2", news="forged_stale"))),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_other_promises_are_held_too(what: str) -> None:
    """Each of them is reported when it is broken."""
    assert Kind.BROKEN in found(BROKEN[what])


def test_a_new_key_needs_a_definitive_end_of_the_one_before() -> None:
    """An ambiguous end is sent again under the same key, also while a calling off is owed."""
    case = second("success")
    first, last = case.provider.works
    works = (replace(first, verdicts=()), last)
    owed = (*KEPT.acknowledgements, Acknowledgement(1, "failed", is_owed=True))
    case = replace(case, provider=replace(case.provider, works=works))
    assert Kind.BROKEN in found(case)
    owing = replace(case.ledger, acknowledgements=owed)
    assert found(replace(case, ledger=owing)) == [Kind.BROKEN]


def test_a_request_that_may_not_be_repeated_reaches_the_provider_once() -> None:
    """Its keys are not looked at; a further work needs a definitive end of the one before."""
    case = replace(second("success"), operation=Operation(acknowledges=True, is_repeatable=False))
    assert found(case) == []
    first, last = case.provider.works
    works = (replace(first, verdicts=("success",)), last)
    repeated = replace(case, provider=replace(case.provider, works=works))
    assert Kind.BROKEN in found(repeated)


def test_an_invalid_request_goes_nowhere() -> None:
    """It is refused, and neither sent nor claimed."""
    told = CallerRecord(is_refusable=True, refusal="unheard_of: is not allowed")
    refused = Run("run", "run", RunState.FAILED, failure="InvalidRequest")
    case = Case(CALL, Operation(acknowledges=True), told, runs=(refused,))
    assert found(case) == []
    assert found(replace(case, provider=SEEN))
