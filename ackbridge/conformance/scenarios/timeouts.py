"""The provider refuses, stays silent, or fails."""

from __future__ import annotations

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
from ackbridge.sandbox.behaviour import Behaviour

from .responses import completed
from .scenario import (
    Scenario,
    answer,
    failure,
    failure_and_answer,
    is_asynchronous,
    silence,
)

EVER = 1_000_000
"""More often than anybody tries."""
_WORDS = "no such luck"


async def _refused(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(refuse=scene.case.refusal, reason=_WORDS))
    outcome = await without_answer(scene)
    if _WORDS not in (outcome.reason or ""):
        scene.blame(f"the provider's own words, {_WORDS!r}", outcome.reason or "none", "receipt")
    scene.expect(1, outcome.attempts, "attempts", "receipt.accept")
    scene.expect(0, len((await scene.records()).works), "works of the provider", "receipt.accept")


async def _never_a_receipt(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(receipt_failures=EVER))
    outcome = await without_answer(scene)
    if outcome.attempts > scene.case.operation.receipt.attempts:
        scene.blame("no more attempts than allowed", str(outcome.attempts), "receipt.attempts")


async def _silent(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(stuck=True))
    await without_answer(scene)
    records = await scene.records()
    response = scene.case.operation.response
    scene.expect(
        response.cycles,
        len(records.seen("receipt")),
        "rounds of sending and waiting",
        "response.cycles",
    )
    if response.status is not None and not records.seen("status"):
        scene.blame("a status request before giving up", "none", "response.status.path")
    if scene.case.acknowledges("failed"):
        told = records.seen("acknowledgement", acknowledged="failed", counts=True)
        rounds = len(records.works)
        scene.expect(rounds, len(told), "failed acknowledgements", "acknowledge.failed")


async def _status_knows(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(silent=True))
    await scene.until(Stage.AWAITING_RESPONSE)
    await scene.skip(scene.case.deadline)
    await completed(scene)


async def _fails(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(fail=EVER, reason=_WORDS))
    outcome = await without_answer(scene)
    rule = scene.case.operation.response.failure
    if rule is not None and rule.reason is not None and _WORDS not in (outcome.reason or ""):
        field = "response.failure.reason"
        scene.blame(f"the provider's own words, {_WORDS!r}", outcome.reason or "none", field)
    sent = len((await scene.records()).works)
    scene.expect(1, sent, "works of the provider", "response.failure.retryable")


async def _fails_once(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(fail=1, retryable=True), Behaviour())
    await completed(scene, cycles=2)


async def _parked_to_the_end(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(receipt_failures=EVER))
    await parked(scene)
    await without_answer(scene)


async def parked(scene: ScenarioRun) -> None:
    """The call is parked, with a notice that it takes longer."""
    status = await scene.to_the_end(stop_parked=True)
    scene.expect(Stage.PARKED, status.stage, "stage", "on_failure")
    if status.stage is Stage.PARKED and status.notice is None:
        scene.blame("a notice while it is parked", "none", "notices.delayed")


async def without_answer(scene: ScenarioRun) -> CallOutcome:
    """The call ends as failed, with a notice; where the file says so, it is parked before."""
    status = await scene.to_the_end(stop_parked=True)
    if scene.case.parks:
        scene.expect(Stage.PARKED, status.stage, "stage", "on_failure")
    outcome = await scene.outcome()
    scene.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "on_failure")
    return outcome


def _can_refuse(case: Case) -> bool:
    return case.refusal is not None


def _has_status(case: Case) -> bool:
    return case.mode == "callback" and case.operation.response.status is not None


def _has_failure(case: Case) -> bool:
    status = case.operation.response.status
    rules = (case.operation.response.failure, status and status.failure)
    return any(rule is not None for rule in rules)


def _fails_again(case: Case) -> bool:
    rule = case.operation.response.failure
    is_constant = rule is None or rule.retryable.text in ("`false`", "`true`")
    return case.operation.response.cycles > 1 and _has_failure(case) and not is_constant


def _parks(case: Case) -> bool:
    return case.parks


def _answer_by_status(_case: Case) -> tuple[str, ...]:
    return ("receipt", "status.completed")


SILENCES = (
    Scenario(
        "refused",
        "the provider refuses with a 4xx",
        _refused,
        applies=_can_refuse,
    ),
    Scenario("never-a-receipt", "every attempt meets a 5xx", _never_a_receipt),
    Scenario(
        "silent",
        "a receipt, and nothing more",
        _silent,
        applies=is_asynchronous,
        needs=silence,
    ),
    Scenario(
        "silent-but-status-knows",
        "the work is done, and no callback tells of it",
        _status_knows,
        applies=_has_status,
        needs=_answer_by_status,
    ),
    Scenario(
        "provider-failure",
        "the provider reports a final failure",
        _fails,
        applies=_has_failure,
        needs=failure,
    ),
    Scenario(
        "provider-failure-retryable",
        "the provider fails once, and another try may help",
        _fails_once,
        applies=_fails_again,
        needs=failure_and_answer,
    ),
    Scenario(
        "parked-to-the-end",
        "a parked call that nobody takes up",
        _parked_to_the_end,
        applies=_parks,
    ),
)
"""Most of these end without a response, and with a notice."""

__all__ = ["EVER", "SILENCES", "answer", "parked", "without_answer"]
