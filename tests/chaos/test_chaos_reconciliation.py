"""What is counted: records written by hand, with one thing wrong in each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .cases import Case, Operation
from .finding_kinds import Kind
from .records import (
    Acknowledgement,
    CallerRecord,
    EventRecords,
    LedgerRecord,
    ProviderRecord,
    RunState,
    TaskFailure,
    Work,
)
from .samples import (
    CALL,
    EVENT,
    FAILED,
    GIVEN_UP,
    GOOD,
    KEPT,
    OPEN,
    PARKED,
    RESPONSE,
    RUN,
    SEEN,
    WORK,
    found,
    second,
)


@pytest.mark.parametrize("case", [GOOD, GIVEN_UP, PARKED], ids=["completed", "failed", "parked"])
def test_what_is_as_it_should_be_is_no_finding(case: Case) -> None:
    """A call that ended well, one that ended with a notice, and one that is parked."""
    assert found(case) == []


def test_a_call_is_lost_that_the_engine_does_not_know() -> None:
    """Its start was acknowledged."""
    assert found(
        replace(
            GOOD, provider=ProviderRecord(), ledger=LedgerRecord(), runs=(), caller=CallerRecord()
        )
    ) == [Kind.LOST]


@pytest.mark.parametrize("state", [RunState.TERMINATED, RunState.TIMED_OUT, RunState.CONTINUED])
def test_a_call_is_lost_that_ended_in_no_known_state(state: RunState) -> None:
    """Nobody may end a call but the call itself."""
    assert found(replace(PARKED, runs=(replace(RUN, state=state, outcome=None),))) == [Kind.LOST]


def test_a_call_is_lost_that_has_ended_for_the_engine_alone() -> None:
    """The ledger must have the outcome, and the last stage."""
    assert found(replace(GIVEN_UP, ledger=LedgerRecord("parked", outcome=FAILED))) == [Kind.LOST]


def test_a_response_is_lost_that_was_taken_and_is_nowhere() -> None:
    """We said 2xx to it, so nobody will send it again."""
    case = replace(GIVEN_UP, provider=replace(GIVEN_UP.provider, events=(EVENT,)))
    assert found(case, EventRecords()) == [Kind.LOST]


@pytest.mark.parametrize(
    "ledgered",
    [
        EventRecords(suppressed=frozenset({"evt_1"})),
        EventRecords(inbox={"evt_1": "held"}),
        EventRecords(inbox={"evt_1": "pending"}),
    ],
    ids=["logged", "held", "waiting"],
)
def test_a_response_is_not_lost_that_is_accounted_for(ledgered: EventRecords) -> None:
    """Logged with a reason, or in the inbox."""
    case = replace(GIVEN_UP, provider=replace(GIVEN_UP.provider, events=(EVENT,)))
    assert found(case, ledgered) == []


def test_a_response_is_lost_that_was_delivered_to_nobody() -> None:
    """An entry of the inbox that is closed as delivered has to be with its call."""
    case = replace(GIVEN_UP, provider=replace(GIVEN_UP.provider, events=(EVENT,)))
    assert found(case, EventRecords(inbox={"evt_1": "delivered"})) == [Kind.LOST]


def test_two_responses_of_one_call_are_one_too_many() -> None:
    """Whatever the second one says."""
    case = replace(GOOD, ledger=replace(KEPT, responses=(RESPONSE, RESPONSE)))
    assert found(case) == [Kind.APPLIED_TWICE]


def test_one_event_of_two_calls_is_applied_twice() -> None:
    """An event is of one call."""
    assert found(GOOD, EventRecords(owners={"evt_1": (CALL, "shop.order.2")})) == [
        Kind.APPLIED_TWICE
    ]


def test_the_response_of_another_call_is_applied_to_the_wrong_one() -> None:
    """The provider knows which work was whose."""
    stranger = replace(RESPONSE, data={"id": "work_7"})
    assert Kind.APPLIED_TWICE in found(replace(GOOD, ledger=replace(KEPT, responses=(stranger,))))


def test_two_effects_of_one_key_are_one_too_many() -> None:
    """What idempotency keys are for."""
    other = replace(WORK, id="work_2", verdicts=("failed",))
    case = replace(GOOD, provider=replace(SEEN, works=(WORK, other)))
    assert found(case) == [Kind.APPLIED_TWICE]


def test_a_second_cycle_is_no_second_effect() -> None:
    """The first one was given up."""
    assert found(second("success")) == []


def test_two_works_acknowledged_as_success_are_one_too_many() -> None:
    """The provider would bill both."""
    case = second("success")
    first, last = case.provider.works
    works = (replace(first, verdicts=("failed", "success")), last)
    kinds = found(replace(case, provider=replace(case.provider, works=works)))
    assert kinds.count(Kind.APPLIED_TWICE) == 2


def test_two_works_that_nobody_has_given_up_are_one_too_many() -> None:
    """Neither acknowledged as failed nor owed, and not failed by the provider."""
    case = second("success")
    first, last = case.provider.works
    works = (replace(first, verdicts=()), last)
    case = replace(case, provider=replace(case.provider, works=works), operation=Operation(False))
    assert Kind.APPLIED_TWICE in found(case)


def test_a_work_that_was_told_nothing_is_unacknowledged() -> None:
    """Neither success nor failed, and nothing owed."""
    case = replace(GOOD, provider=replace(SEEN, works=(replace(WORK, verdicts=()),)))
    assert found(case) == [Kind.UNACKNOWLEDGED]


def test_what_is_owed_is_not_unacknowledged() -> None:
    """It is on the books."""
    owed = (Acknowledgement(1, "success", is_owed=True, reason="503"),)
    case = replace(
        GOOD,
        provider=replace(SEEN, works=(replace(WORK, verdicts=()),)),
        ledger=replace(KEPT, stage="acknowledging", acknowledgements=owed),
    )
    assert found(case) == []


def test_what_is_parked_without_a_receipt_is_not_given_up() -> None:
    """The same key is sent again; with a receipt it would have been given up before parking."""
    untold = replace(PARKED, provider=replace(PARKED.provider, works=(replace(WORK, verdicts=()),)))
    assert found(untold) == []
    run = replace(untold.runs[0], receipts=frozenset({"work_1"}))
    assert found(replace(untold, runs=(run,))) == [Kind.UNACKNOWLEDGED]


def test_success_without_a_response_counts_as_unacknowledged() -> None:
    """We said that we have it."""
    case = replace(
        GIVEN_UP, provider=replace(GIVEN_UP.provider, works=(replace(WORK, verdicts=("success",)),))
    )
    assert found(case) == [Kind.UNACKNOWLEDGED, Kind.UNTRUE]


def test_success_for_the_wrong_work_counts_as_unacknowledged() -> None:
    """The response is of another cycle than the one that was acknowledged."""
    case = second("success")
    first = replace(RESPONSE, cycle=2, data={"id": "work_0"})
    assert found(replace(case, ledger=replace(case.ledger, responses=(first,)))) == [
        Kind.UNACKNOWLEDGED
    ]


def effect_of(effect: str, *works: Work, **more: object) -> Case:
    """A call whose outcome says this effect, and what the provider did."""
    base = GIVEN_UP if effect == "none" else GOOD
    outcome = {**(base.ledger.outcome or {}), "effect": effect, **more}
    return replace(
        base,
        provider=replace(base.provider, works=works),
        ledger=replace(base.ledger, outcome=outcome),
        runs=(replace(base.runs[0], outcome=outcome),),
    )


@pytest.mark.parametrize(
    "case",
    [
        effect_of("none", WORK),
        effect_of("none", replace(WORK, verdicts=("failed", "success"))),
        effect_of("none", replace(WORK, status="processing", verdicts=())),
        effect_of("done"),
        effect_of("done", replace(WORK, status="failed")),
        effect_of("done", replace(WORK, verdicts=("failed",))),
        effect_of("done", WORK, replace(WORK, id="work_2", key=f"{CALL}:2", cycle=2)),
        effect_of("unknown", WORK),
    ],
    ids=[
        *("none but done", "none but confirmed", "none but in progress", "done but none"),
        *("done but failed", "done but called off", "done twice", "completed but unknown"),
    ],
)
def test_an_effect_that_the_provider_does_not_have_is_untrue(case: Case) -> None:
    """Compared with the provider's own record."""
    assert Kind.UNTRUE in found(case)


@pytest.mark.parametrize(
    "case",
    [
        effect_of("none"),
        effect_of("none", replace(WORK, status="failed", verdicts=())),
        effect_of("none", replace(WORK, verdicts=("failed",))),
        effect_of("done", WORK),
        effect_of("done", replace(WORK, verdicts=("failed",), behaviour={"late": True})),
        effect_of("done", forced={"by": "ops", "reason": "their console"}),
    ],
    ids=["nothing sent", "failed", "called off", "done", "done in spite of that", "forced"],
)
def test_an_effect_that_the_provider_has_is_true(case: Case) -> None:
    """What was called off counts as none; an operator may know better."""
    assert Kind.UNTRUE not in found(case)


def test_a_workflow_that_is_open_for_no_reason_hangs() -> None:
    """It is neither parked nor owing."""
    assert found(OPEN) == [Kind.HUNG]


def test_a_workflow_whose_task_fails_again_and_again_hangs() -> None:
    """Even if the call is parked meanwhile; once is a crowded machine."""

    def failing(attempts: int) -> Case:
        failure = TaskFailure("NON_DETERMINISTIC_ERROR", "no command", attempts)
        return replace(GOOD, runs=(replace(RUN, task_failures=(failure,)),))

    assert found(failing(1)) == []
    assert found(failing(3)) == [Kind.HUNG]
