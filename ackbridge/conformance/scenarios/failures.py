"""Calls that fail: the provider refuses, stays silent, or reports a failure."""

from __future__ import annotations

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
    silence,
)

_REASON = "no such luck"
"""Of the provider."""


async def _refused(run: ScenarioRun) -> None:
    await run.start(Behaviour(refuse=run.case.refusal, reason=_REASON))
    outcome = await failed(run, OutcomeCode.REFUSED, Effect.NONE)
    if _REASON not in (outcome.reason or ""):
        run.fail(f"the provider's reason, {_REASON!r}", outcome.reason or "none", "receipt")
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
    await run.start(Behaviour(fail=ALWAYS, reason=_REASON))
    outcome = await failed(run, OutcomeCode.PROVIDER_FAILED, Effect.NONE)
    rule = run.case.operation.response.failure
    if rule is not None and rule.reason is not None and _REASON not in (outcome.reason or ""):
        field = "response.failure.reason"
        run.fail(f"the provider's reason, {_REASON!r}", outcome.reason or "none", field)
    sent = len((await run.records()).works)
    run.expect(1, sent, "works of the provider", "response.failure.retryable")


async def _fails_and_recovers(run: ScenarioRun) -> None:
    await run.start(Behaviour(fail=1, retryable=True), Behaviour())
    await completed(run, cycles=2)


async def _parked_until_expired(run: ScenarioRun) -> None:
    await run.start(Behaviour(receipt_failures=ALWAYS))
    await parked(run)
    await failed(run, OutcomeCode.NO_RECEIPT, Effect.UNKNOWN)


def _has_failure(case: Case) -> bool:
    response = case.operation.response
    return response.failure is not None or (
        response.status is not None and response.status.failure is not None
    )


def _has_retryable_failure(case: Case) -> bool:
    rule = case.operation.response.failure
    is_constant = rule is None or rule.retryable.text in ("`false`", "`true`")
    return case.operation.response.cycles > 1 and _has_failure(case) and not is_constant


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
        applies=_has_failure,
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
