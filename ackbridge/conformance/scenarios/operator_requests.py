"""Callers and operators: cancel, force, reprocess, start twice."""

from __future__ import annotations

import asyncio

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import Effect, OutcomeStatus, Stage
from ackbridge.errors import KeyReusedError
from ackbridge.sandbox.behaviour import Behaviour

from .scenario import (
    ALWAYS,
    Scenario,
    answer,
    completed,
    is_asynchronous,
    is_repeatable,
    parked,
    parks_without_receipt,
    silence,
)

_BY = "conformance"
_FORCED = {"forced": True}


async def _cancel_awaiting(run: ScenarioRun) -> None:
    call = await run.start(Behaviour(stuck=True))
    await run.wait_for_stage(Stage.AWAITING_RESPONSE)
    await call.cancel(by=_BY, reason="cancelled while awaiting")
    await _is_cancelled(run)
    if run.case.acknowledges("failed"):
        records = await run.records()
        accepted = records.events("acknowledgement", acknowledged="failed", counts=True)
        run.expect(1, len(accepted), "failed acknowledgements", "acknowledge.failed")
    effect = (await run.outcome()).effect
    run.expect(run.case.effect_when_silent, effect, "effect", "acknowledge.undoes")


async def _cancel_sending(run: ScenarioRun) -> None:
    call = await run.start(Behaviour(receipt_failures=ALWAYS))
    await run.wait_for_stage(Stage.SENDING)
    await call.cancel(by=_BY, reason="cancelled while sending")
    await _is_cancelled(run)


async def _is_cancelled(run: ScenarioRun) -> None:
    outcome = await run.outcome()
    run.expect(OutcomeStatus.CANCELLED, outcome.status, "outcome", "receipt")
    by = outcome.cancelled.by if outcome.cancelled else None
    run.expect(_BY, by, "cancelled by", "notices.cancelled")


async def _force_awaiting(run: ScenarioRun) -> None:
    call = await run.start(Behaviour(stuck=True))
    await run.wait_for_stage(Stage.AWAITING_RESPONSE)
    await call.force_ack(by=_BY, reason="forced while awaiting", response=_FORCED)
    await _is_forced(run)


async def _force_parked(run: ScenarioRun) -> None:
    call = await run.start(Behaviour(receipt_failures=ALWAYS))
    await parked(run)
    await call.force_ack(by=_BY, reason="forced while parked", response=_FORCED)
    await _is_forced(run)


async def _is_forced(run: ScenarioRun) -> None:
    outcome = await run.outcome_without_skipping()
    run.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "on_failure")
    run.expect(_FORCED, outcome.response, "response", "on_failure")
    by = outcome.forced.by if outcome.forced else None
    run.expect(_BY, by, "forced by", "on_failure")
    run.expect(Effect.DONE, outcome.effect, "effect", "on_failure")


async def _reprocess(run: ScenarioRun) -> None:
    """Sent again with the same key: the provider has not reported a failure."""
    attempts = run.case.operation.receipt.attempts
    call = await run.start(Behaviour(receipt_failures=attempts))
    await parked(run)
    await call.reprocess(by=_BY)
    await completed(run)


async def _same_key_again(run: ScenarioRun) -> None:
    calls = run.harness.calls
    await run.start(Behaviour())
    again = await asyncio.gather(*(calls.start(run.request) for _ in range(3)))
    outcome = await completed(run)
    after = await calls.start(run.request)
    for one in (*again, after):
        run.expect(outcome, await one.outcome(settled=True), "outcome", "request")
    requests = len((await run.records()).events("request"))
    run.expect(1, requests, "requests to the provider", "request")


async def _other_payload(run: ScenarioRun) -> None:
    await run.start(Behaviour())
    other = run.case.request(run.request.key, payload=1)
    for moment in ("while it runs", "after its end"):
        try:
            await run.harness.calls.start(other)
        except KeyReusedError:
            pass
        else:
            run.fail(f"another payload to be refused {moment}", "it was accepted", "request")
        await completed(run)


def _needs_two_payloads(case: Case) -> str | None:
    if len(case.payloads) > 1:
        return None
    return f"there is only one payload (operations.{case.name}.payload_schema)"


OPERATOR_REQUESTS = (
    Scenario(
        "cancel-awaiting",
        "cancelled while the response is awaited",
        _cancel_awaiting,
        applies=is_asynchronous,
        needs=silence,
    ),
    Scenario("cancel-sending", "cancelled while the request is being sent", _cancel_sending),
    Scenario(
        "force-ack-awaiting",
        "forced while the response is awaited",
        _force_awaiting,
        applies=is_asynchronous,
        needs=silence,
    ),
    Scenario(
        "force-ack-parked",
        "forced while it is parked",
        _force_parked,
        applies=parks_without_receipt,
    ),
    Scenario(
        "reprocess",
        "a parked call is reprocessed, and answered",
        _reprocess,
        applies=lambda case: is_repeatable(case) and parks_without_receipt(case),
        needs=answer,
    ),
    Scenario(
        "same-key",
        "the same call is made again, at the same time and later",
        _same_key_again,
        needs=answer,
    ),
    Scenario(
        "same-key-other-payload",
        "the same key is used for another payload",
        _other_payload,
        needs=answer,
        unless=_needs_two_payloads,
    ),
)
