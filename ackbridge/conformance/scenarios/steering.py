"""Callers and operators: cancel, force, take up again, start twice."""

from __future__ import annotations

import asyncio

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import OutcomeStatus, Stage
from ackbridge.errors import KeyReusedError
from ackbridge.sandbox.behaviour import Behaviour

from .responses import completed
from .scenario import Scenario, answer, is_asynchronous, silence
from .timeouts import EVER, parked

_WHO = "conformance"
_FORCED = {"forced": True}


async def _cancel_awaiting(scene: ScenarioRun) -> None:
    call = await scene.start(Behaviour(stuck=True))
    await scene.until(Stage.AWAITING_RESPONSE)
    await call.cancel(by=_WHO, reason="cancelled while awaiting")
    await _is_cancelled(scene)
    if scene.case.acknowledges("failed"):
        told = (await scene.records()).seen("acknowledgement", acknowledged="failed", counts=True)
        scene.expect(1, len(told), "failed acknowledgements", "acknowledge.failed")


async def _cancel_sending(scene: ScenarioRun) -> None:
    call = await scene.start(Behaviour(receipt_failures=EVER))
    await scene.until(Stage.SENDING)
    await call.cancel(by=_WHO, reason="cancelled while sending")
    await _is_cancelled(scene)


async def _is_cancelled(scene: ScenarioRun) -> None:
    outcome = await scene.outcome()
    scene.expect(OutcomeStatus.CANCELLED, outcome.status, "outcome", "receipt")
    by = outcome.cancelled.by if outcome.cancelled else None
    scene.expect(_WHO, by, "cancelled by", "notices.cancelled")


async def _force_awaiting(scene: ScenarioRun) -> None:
    call = await scene.start(Behaviour(stuck=True))
    await scene.until(Stage.AWAITING_RESPONSE)
    await call.force_ack(by=_WHO, reason="forced while awaiting", response=_FORCED)
    await _is_forced(scene)


async def _force_parked(scene: ScenarioRun) -> None:
    call = await scene.start(Behaviour(receipt_failures=EVER))
    await parked(scene)
    await call.force_ack(by=_WHO, reason="forced while parked", response=_FORCED)
    await _is_forced(scene)


async def _is_forced(scene: ScenarioRun) -> None:
    outcome = await scene.answered()
    scene.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "on_failure")
    scene.expect(_FORCED, outcome.response, "response", "on_failure")
    by = outcome.forced.by if outcome.forced else None
    scene.expect(_WHO, by, "forced by", "on_failure")


async def _reprocess(scene: ScenarioRun) -> None:
    """Sent again under the same key: nobody said that the first one failed."""
    attempts = scene.case.operation.receipt.attempts
    call = await scene.start(Behaviour(receipt_failures=attempts))
    await parked(scene)
    await call.reprocess(by=_WHO)
    await completed(scene)


async def _same_key_again(scene: ScenarioRun) -> None:
    calls = scene.theatre.calls
    await scene.start(Behaviour())
    again = await asyncio.gather(*(calls.start(scene.request) for _ in range(3)))
    outcome = await completed(scene)
    after = await calls.start(scene.request)
    for one in (*again, after):
        scene.expect(outcome, await one.outcome(settled=True), "outcome", "request")
    asked = len((await scene.records()).seen("request"))
    scene.expect(1, asked, "requests to the provider", "request")


async def _other_payload(scene: ScenarioRun) -> None:
    await scene.start(Behaviour())
    other = scene.case.request(scene.request.key, payload=1)
    for moment in ("while it runs", "after its end"):
        try:
            await scene.theatre.calls.start(other)
        except KeyReusedError:
            pass
        else:
            scene.blame(f"another payload to be refused {moment}", "it was taken", "request")
        await completed(scene)


def _parks(case: Case) -> bool:
    return case.parks


def _needs_two_payloads(case: Case) -> str | None:
    if len(case.payloads) > 1:
        return None
    return f"only one payload is known (operations.{case.name}.payload_schema)"


STEERING = (
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
    Scenario("force-ack-parked", "forced while it is parked", _force_parked, applies=_parks),
    Scenario(
        "reprocess",
        "a parked call is taken up again, and answered",
        _reprocess,
        applies=_parks,
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
"""What our own side does."""
