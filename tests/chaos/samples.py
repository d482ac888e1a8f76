"""Records written by hand, of calls that went well; the tests make one thing wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .cases import Case, Operation
from .finding_kinds import Kind
from .reconciliation import reconcile
from .records import (
    Acknowledgement,
    Answer,
    CallerRecord,
    Event,
    EventRecords,
    LedgerRecord,
    ProviderRecord,
    Response,
    Run,
    RunState,
    Work,
)

CALL = "shop.order.1"
OUTCOME: Mapping[str, Any] = {
    "status": "completed",
    "response": {"id": "work_1"},
    "cycles": 1,
    "notice": None,
    "effect": "done",
}
WORK = Work("work_1", f"{CALL}:1", CALL, 1, "completed", ("success",))
EVENT = Event("evt_1", "completed", "work_1", CALL, 1, {200: 1})
RUN = Run("run", "run", RunState.COMPLETED, outcome=OUTCOME, heard=frozenset({"evt_1"}), recorded=1)
SEEN = ProviderRecord((WORK,), (EVENT,), {f"{CALL}:1": 1})
RESPONSE = Response(1, "evt_1", {"id": "work_1"}, "callback")
KEPT = LedgerRecord(
    stage="completed",
    outcome=OUTCOME,
    responses=(RESPONSE,),
    applied=("evt_1",),
    acknowledgements=(Acknowledgement(1, "success", is_owed=False),),
)
TOLD = CallerRecord(answers=(Answer("start", "completed", OUTCOME),))
GOOD = Case(CALL, Operation(acknowledges=True), TOLD, SEEN, KEPT, (RUN,))
LEDGERED = EventRecords(owners={"evt_1": (CALL,)})

FAILED: Mapping[str, Any] = {
    "status": "failed",
    "response": None,
    "cycles": 1,
    "reason": "no response",
    "code": "no_response",
    "effect": "none",
    "notice": {"kind": "failed", "title": "Not this time", "message": "The shop was silent."},
}
GIVEN_UP = replace(
    GOOD,
    caller=CallerRecord(answers=(Answer("start", "failed", FAILED),)),
    provider=replace(SEEN, works=(replace(WORK, verdicts=("failed",)),), events=()),
    ledger=LedgerRecord("failed", outcome=FAILED),
    runs=(replace(RUN, state=RunState.FAILED, failure="CallFailed", outcome=FAILED, recorded=0),),
)
PARKED = replace(
    GIVEN_UP,
    caller=CallerRecord(answers=(Answer("start", "parked"),)),
    ledger=LedgerRecord("parked"),
    runs=(replace(RUN, state=RunState.OPEN, outcome=None, recorded=0),),
)
OPEN = replace(PARKED, ledger=LedgerRecord("awaiting_response"))


def found(case: Case, ledgered: EventRecords = LEDGERED) -> list[Kind]:
    """What the reconciliation says about one call."""
    return [finding.kind for finding in reconcile([case], ledgered)]


def second(*verdicts: str, status: str = "completed") -> Case:
    """A call with a second cycle, whose first work was given up."""
    works = (
        replace(WORK, id="work_0", verdicts=("failed",)),
        replace(WORK, key=f"{CALL}:2", cycle=2, verdicts=verdicts, status=status),
    )
    outcome = {**OUTCOME, "cycles": 2}
    return Case(
        CALL,
        Operation(acknowledges=True),
        CallerRecord(),
        ProviderRecord(works, (EVENT,), {f"{CALL}:1": 2, f"{CALL}:2": 1}),
        replace(KEPT, outcome=outcome, responses=(replace(RESPONSE, cycle=2),)),
        (replace(RUN, outcome=outcome),),
    )
