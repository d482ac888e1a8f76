"""Calls that fail: the provider refuses, stays silent, or reports a failure."""

from __future__ import annotations

from ackbridge.catalog.matching import refusal
from ackbridge.catalog.model import FailureRule
from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import Effect, OutcomeCode, Stage
from ackbridge.sandbox.behaviour import Behaviour

from .scenario import (
    ALWAYS,
    Scenario,
    completed,
    failed,
    failure,
    failure_and_answer,
    is_asynchronous,
    parked,
    parks_without_receipt,
    read_sent,
    silence,
)

MAX_COMPARED = 60
"""Characters of a provider's reason; outcomes quote longer ones in part."""


async def _refused(run: ScenarioRun) -> None:
    status = run.case.refusal or 0
    await run.start(Behaviour(refuse=status))
    outcome = await failed(run, OutcomeCode.REFUSED, Effect.NONE)
    said = refusal(run.case.operation, run.case.samples.error(status).document)
    _has_reason(run, said.reason, outcome.reason, "receipt.failure.reason")
    run.expect(1, outcome.attempts, "attempts", "receipt.accept")
    run.expect(0, len((await run.records()).works), "works of the provider", "receipt.accept")


async def _no_receipt(run: ScenarioRun) -> None:
    await run.start(Behaviour(receipt_failures=ALWAYS))
    outcome = await failed(run, OutcomeCode.NO_RECEIPT, Effect.UNKNOWN)
    allowed = run.case.operation.receipt.attempts if run.case.is_repeatable else 1
    if outcome.attempts > allowed:
        run.fail("no more attempts than allowed", str(outcome.attempts), "receipt.attempts")


async def _not_repeated(run: ScenarioRun) -> None:
    """It is parked or fails, and reprocessing only asks the provider."""
    call = await run.start(Behaviour(receipt_failures=1))
    if run.case.parks(OutcomeCode.NO_RECEIPT, Effect.UNKNOWN):
        await parked(run)
        await call.reprocess(by="conformance")
        await run.wait_for_status(lambda status: "not reprocessed" in (status.last_error or ""))
    outcome = await failed(run, OutcomeCode.NO_RECEIPT, Effect.UNKNOWN)
    run.expect(1, outcome.attempts, "attempts", "request.repeat")
    requests = len((await run.records()).events("request"))
    run.expect(1, requests, "requests to the provider", "request.repeat")


async def _silent(run: ScenarioRun) -> None:
    await run.start(Behaviour(stuck=True))
    await failed(run, OutcomeCode.NO_RESPONSE, run.case.effect_when_silent)
    records = await run.records()
    response = run.case.operation.response
    run.expect(run.case.rounds, len(records.events("receipt")), "cycles", "response.cycles")
    if response.status is not None and not records.events("status"):
        run.fail("a status request before giving up", "none", "response.status.path")
    if run.case.acknowledges("failed"):
        accepted = records.events("acknowledgement", acknowledged="failed", counts=True)
        expected = len(records.works)
        run.expect(expected, len(accepted), "failed acknowledgements", "acknowledge.failed")


async def _result_by_status(run: ScenarioRun) -> None:
    await run.start(Behaviour(silent=True))
    await run.wait_for_stage(Stage.AWAITING_RESPONSE)
    await run.skip(run.case.deadline)
    await completed(run)


async def _fails(run: ScenarioRun) -> None:
    await run.start(Behaviour(fail=ALWAYS))
    outcome = await failed(run, OutcomeCode.PROVIDER_FAILED, Effect.NONE)
    said = next(iter(read_sent(run, run.harness.dialect.failures)), None)
    _has_reason(run, said.reason if said else None, outcome.reason, "response.failure.reason")
    sent = len((await run.records()).works)
    run.expect(1, sent, "works of the provider", "response.failure.retryable")


def _has_reason(run: ScenarioRun, said: str | None, seen: str | None, field: str) -> None:
    """The outcome repeats the provider's reason, at least its beginning."""
    if said is not None and said[:MAX_COMPARED] not in (seen or ""):
        run.fail(f"the provider's reason, {said!r}", seen or "none", field)


async def _fails_and_recovers(run: ScenarioRun) -> None:
    await run.start(Behaviour(fail=1, retryable=True), Behaviour())
    await completed(run, cycles=2)


async def _parked_until_expired(run: ScenarioRun) -> None:
    await run.start(Behaviour(receipt_failures=ALWAYS))
    await parked(run)
    await failed(run, OutcomeCode.NO_RECEIPT, Effect.UNKNOWN)


def _failure_rule(case: Case) -> FailureRule | None:
    """The rule for the failures that the provider reports in the operation's mode."""
    response = case.operation.response
    is_asked = case.mode == "poll" or response.fetch
    own = response.status.failure if is_asked and response.status else None
    return own or response.failure


def _has_final_failure(case: Case) -> bool:
    rule = _failure_rule(case)
    return rule is not None and rule.retryable.text != "`true`"


def _has_retryable_failure(case: Case) -> bool:
    rule = _failure_rule(case)
    is_possible = rule is not None and rule.retryable.text != "`false`"
    return case.operation.response.cycles > 1 and is_possible


FAILURES = (
    Scenario(
        "refused",
        "the provider refuses with a 4xx",
        _refused,
        applies=lambda case: case.refusal is not None,
    ),
    Scenario("never-a-receipt", "every attempt is answered 5xx", _no_receipt),
    Scenario(
        "not-repeated",
        "an attempt that may have arrived is never repeated",
        _not_repeated,
        applies=lambda case: not case.is_repeatable,
    ),
    Scenario(
        "silent", "a receipt, and no response", _silent, applies=is_asynchronous, needs=silence
    ),
    Scenario(
        "silent-but-status-knows",
        "the work is done, and no callback is sent",
        _result_by_status,
        applies=lambda case: case.mode == "callback" and case.operation.response.status is not None,
        needs=lambda _case: ("receipt", "status.completed"),
    ),
    Scenario(
        "provider-failure",
        "the provider reports a final failure",
        _fails,
        applies=_has_final_failure,
        needs=failure,
    ),
    Scenario(
        "provider-failure-retryable",
        "the provider reports a retryable failure once",
        _fails_and_recovers,
        applies=_has_retryable_failure,
        needs=failure_and_answer,
    ),
    Scenario(
        "parked-to-the-end",
        "a parked call that is not reprocessed",
        _parked_until_expired,
        applies=parks_without_receipt,
    ),
)
