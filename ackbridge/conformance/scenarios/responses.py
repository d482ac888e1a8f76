"""The provider answers: early, late in the receipt, twice, after trouble."""

from __future__ import annotations

from datetime import UTC, datetime

from ackbridge.catalog.matching import classify
from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus
from ackbridge.sandbox.behaviour import Behaviour

from .scenario import Scenario, answer, has_callbacks, repeats_are_known

_RETRY_AFTER = 2
"""Seconds."""
_TOO_SLOW_MS = 700
"""Milliseconds by which an answer misses its timeout."""


async def _answered(scene: ScenarioRun) -> None:
    await scene.start(Behaviour())
    await completed(scene)


async def _early(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(early=True))
    await completed(scene)


async def _twice(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(duplicates=1))
    await completed(scene)


async def _slow_receipt(scene: ScenarioRun) -> None:
    timeout = scene.case.operation.receipt.timeout
    late = int(timeout.total_seconds() * 1000) + _TOO_SLOW_MS
    await scene.start(Behaviour(receipt_delay_ms=late))
    await completed(scene)


async def _lost_receipt(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(lost_receipts=1))
    await completed(scene)


async def _reset(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(resets=1))
    await completed(scene)


async def _reset_after_work(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(reset_receipts=1))
    await completed(scene)


async def _hung(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(hung_receipts=1))
    await completed(scene)


async def _garbled(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(malformed_receipts=1))
    await completed(scene)


async def _error_first(scene: ScenarioRun) -> None:
    times = min(2, scene.case.operation.receipt.attempts - 1)
    await scene.start(Behaviour(receipt_failures=times))
    outcome = await completed(scene)
    # A message may have come before the retry had its receipt.
    if scene.case.mode == "sync":
        scene.expect(times + 1, outcome.attempts, "attempts", "receipt.attempts")


async def _throttled(scene: ScenarioRun) -> None:
    await scene.start(Behaviour(throttle=1, retry_after=_RETRY_AFTER))
    await completed(scene)
    first, second = [
        datetime.fromisoformat(entry["at"]) for entry in (await scene.records()).seen("request")
    ][:2]
    if (second - first).total_seconds() < _RETRY_AFTER:
        scene.blame(f"a pause of {_RETRY_AFTER} s", f"{second - first}", "receipt")


async def completed(scene: ScenarioRun, *, cycles: int = 1) -> CallOutcome:
    """The call is completed with what the provider said, and the provider is told so."""
    outcome = await scene.answered()
    scene.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "response.success")
    if outcome.status is not OutcomeStatus.COMPLETED:
        scene.blame("no trouble", outcome.reason or "no reason given", "response")
        return outcome
    records = await scene.records()
    scene.expect(_said(scene), outcome.response, "response", "response.data")
    scene.expect(cycles, outcome.cycles, "cycles", "response.cycles")
    if scene.case.acknowledges("success"):
        field = "acknowledge.path"
        scene.expect(False, outcome.acknowledgement_owed, "an acknowledgement owed", field)
        told = records.seen("acknowledgement", acknowledged="success", counts=True)
        scene.expect(1, len(told), "success acknowledgements", "acknowledge.success")
    scene.expect(cycles, len(records.works), "works of the provider", "request.idempotency_header")
    return outcome


def _said(scene: ScenarioRun) -> object:
    """The response, by the real rules over what was really said."""
    told = scene.theatre.mimic.told.get(scene.request.call_id)
    if told is None:
        return None
    source, document = told
    message = classify(scene.case.operation, document, "any", source, datetime.now(UTC))
    return message.data if message else None


def _retries(case: Case) -> bool:
    return case.operation.receipt.attempts > 1


ANSWERS = (
    Scenario("answered", "the provider answers at once", _answered, needs=answer),
    Scenario(
        "answered-early",
        "the callback comes before the receipt",
        _early,
        applies=has_callbacks,
        needs=answer,
    ),
    Scenario(
        "answered-twice",
        "the same callback comes twice at the same instant",
        _twice,
        applies=has_callbacks,
        needs=answer,
    ),
    Scenario(
        "slow-receipt",
        "the first receipt comes after its timeout",
        _slow_receipt,
        applies=_retries,
        needs=answer,
        unless=repeats_are_known,
    ),
    Scenario(
        "lost-receipt",
        "the work is done, and its receipt lost",
        _lost_receipt,
        applies=_retries,
        needs=answer,
        unless=repeats_are_known,
    ),
    Scenario(
        "connection-reset",
        "the connection is reset before anything is done",
        _reset,
        applies=_retries,
        needs=answer,
    ),
    Scenario(
        "reset-after-work",
        "the work is done, and the connection reset",
        _reset_after_work,
        applies=_retries,
        needs=answer,
        unless=repeats_are_known,
    ),
    Scenario(
        "hang-mid-body",
        "the receipt stops half way",
        _hung,
        applies=_retries,
        needs=answer,
        unless=repeats_are_known,
    ),
    Scenario(
        "garbled-receipt",
        "the first answer is no JSON",
        _garbled,
        applies=_retries,
        needs=answer,
        unless=repeats_are_known,
    ),
    Scenario(
        "error-then-well",
        "5xx at first, then well",
        _error_first,
        applies=_retries,
        needs=answer,
    ),
    Scenario(
        "throttled",
        "429 with Retry-After, then well",
        _throttled,
        applies=_retries,
        needs=answer,
    ),
)
"""Every one ends with the response."""
