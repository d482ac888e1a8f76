"""Calls that complete: the provider responds early, late, twice, or after errors."""

from __future__ import annotations

from datetime import datetime

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import Effect, OutcomeCode, OutcomeStatus
from ackbridge.sandbox.behaviour import Behaviour

from .scenario import (
    ALWAYS,
    Play,
    Scenario,
    answer,
    completed,
    detects_retries,
    failed,
    has_callbacks,
)

_RETRY_AFTER = 2
"""Seconds."""
_TOO_LATE_MS = 700
"""Milliseconds by which a receipt misses its timeout."""
_POLLED_AFTER_MS = 1500
"""Milliseconds: the second or third status request finds the response."""
_HOUR = 3600
"""Seconds."""
_HOURS_DOWN = 2


def _completes(**faults: bool | int) -> Play:
    async def play(run: ScenarioRun) -> None:
        await run.start(Behaviour.model_validate(faults))
        await completed(run)

    return play


def _sent_once(**faults: int) -> Play:
    """The status of the receipt is readable, and its body is not: nothing is sent again."""

    async def play(run: ScenarioRun) -> None:
        await run.start(Behaviour.model_validate(faults))
        outcome = await run.outcome()
        requests = len((await run.records()).events("request"))
        run.expect(1, requests, "requests", "receipt")
        if outcome.status is not OutcomeStatus.COMPLETED:
            run.expect(OutcomeCode.UNREADABLE, outcome.code, "code", "receipt.reference")

    return play


async def _slow_receipt(run: ScenarioRun) -> None:
    timeout = run.case.operation.receipt.timeout
    delay = int(timeout.total_seconds() * 1000) + _TOO_LATE_MS
    await run.start(Behaviour(receipt_delay_ms=delay))
    await completed(run)


async def _error_first(run: ScenarioRun) -> None:
    errors = min(2, run.case.operation.receipt.attempts - 1)
    await run.start(Behaviour(receipt_failures=errors))
    outcome = await completed(run)
    # In other modes a message may have arrived before the retry had its receipt.
    if run.case.mode == "sync":
        run.expect(errors + 1, outcome.attempts, "attempts", "receipt.attempts")


async def _throttled(run: ScenarioRun) -> None:
    await run.start(Behaviour(throttle=1, retry_after=_RETRY_AFTER))
    await completed(run)
    requests = (await run.records()).events("request")
    first, second = [datetime.fromisoformat(event["at"]) for event in requests][:2]
    if (second - first).total_seconds() < _RETRY_AFTER:
        run.fail(f"a backoff of {_RETRY_AFTER} s", f"{second - first}", "receipt")


async def _polled_again(run: ScenarioRun) -> None:
    await run.start(Behaviour(delay_ms=_POLLED_AFTER_MS))
    await completed(run)
    requests = len((await run.records()).events("status"))
    if requests < 2:
        run.fail("more than one status request", str(requests), "response.poll")


async def _final_receipt(run: ScenarioRun) -> None:
    await run.start(Behaviour(silent=True), is_final=True)
    await completed(run)


async def _only_malformed(run: ScenarioRun) -> None:
    """Where the provider can be asked, the work is found all the same."""
    await run.start(Behaviour(malformed_receipts=ALWAYS))
    if run.case.operation.response.status is not None:
        await completed(run)
        return
    await failed(run, OutcomeCode.UNREADABLE, Effect.UNKNOWN)


async def _acknowledgements_down(run: ScenarioRun) -> None:
    """The outcome is there at once; the acknowledgement follows when it is accepted."""
    await run.start(_throttled_acknowledgements(_HOURS_DOWN))
    call = await run.wait_for_status(lambda status: status.acknowledgements_owed)
    outcome = call.outcome.status if call.outcome else "none yet"
    run.expect(OutcomeStatus.COMPLETED, outcome, "outcome while it is owed", "acknowledge")
    await completed(run)


async def _acknowledgements_gone(run: ScenarioRun) -> None:
    await run.start(_throttled_acknowledgements(ALWAYS))
    outcome = await run.outcome_without_skipping()
    run.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "acknowledge")
    run.expect(True, outcome.acknowledgement_owed, "an acknowledgement owed", "acknowledge")


def _throttled_acknowledgements(times: int) -> Behaviour:
    return Behaviour(acknowledgement_failures=times, acknowledgement_status=429, retry_after=_HOUR)


def _retries(case: Case) -> bool:
    return case.operation.receipt.attempts > 1


def _repeats(case: Case) -> bool:
    return _retries(case) and case.is_repeatable


def _polls(case: Case) -> bool:
    return case.mode == "poll"


def _acknowledges_for_hours(case: Case) -> bool:
    acknowledge = case.operation.acknowledge
    is_long = acknowledge is not None and acknowledge.within.total_seconds() > _HOUR * _HOURS_DOWN
    return case.acknowledges("success") and is_long


def _retried(name: str, meaning: str, play: Play, *, has_effect: bool = False) -> Scenario:
    """A scenario with a retry; if the first attempt has an effect, retries must be detected."""
    if has_effect:
        return Scenario(name, meaning, play, _repeats, answer, detects_retries)
    return Scenario(name, meaning, play, _repeats, answer)


RESPONSES = (
    Scenario("answered", "the provider answers at once", _completes(), needs=answer),
    Scenario(
        "answered-early",
        "the callback comes before the receipt",
        _completes(early=True),
        has_callbacks,
        answer,
    ),
    Scenario(
        "answered-twice",
        "the same callback comes twice at the same instant",
        _completes(duplicates=1),
        has_callbacks,
        answer,
    ),
    _retried(
        "slow-receipt", "the first receipt misses its timeout", _slow_receipt, has_effect=True
    ),
    _retried(
        "lost-receipt",
        "the work is done, and its receipt lost",
        _completes(lost_receipts=1),
        has_effect=True,
    ),
    _retried(
        "connection-reset", "the connection is reset before anything is done", _completes(resets=1)
    ),
    _retried(
        "reset-after-work",
        "the work is done, and the connection reset",
        _completes(reset_receipts=1),
        has_effect=True,
    ),
    Scenario(
        "hang-mid-body",
        "the receipt stops in the middle of its body",
        _sent_once(hung_receipts=1),
        needs=answer,
    ),
    Scenario(
        "garbled-receipt",
        "the first receipt is not JSON",
        _sent_once(malformed_receipts=1),
        needs=answer,
    ),
    _retried("error-then-well", "5xx at first, then a receipt", _error_first),
    Scenario(
        "throttled", "429 with Retry-After, then a receipt", _throttled, _retries, needs=answer
    ),
)

POLLED_AND_SYNC = (
    Scenario(
        "final-receipt",
        "the receipt is the response already",
        _final_receipt,
        lambda case: case.operation.receipt.success is not None and case.mode != "sync",
        lambda _case: ("receipt.final",),
    ),
    Scenario(
        "answered-when-asked-again",
        "the first status request has no response yet",
        _polled_again,
        lambda case: case.mode == "poll",
        answer,
    ),
    Scenario(
        "status-in-trouble",
        "the first status request is answered 5xx",
        _completes(status_failures=1),
        lambda case: case.mode == "poll",
        answer,
    ),
    Scenario(
        "only-garbage",
        "no reply is ever JSON",
        _only_malformed,
        lambda case: case.mode == "sync",
        answer,
    ),
)

ACKNOWLEDGEMENTS = (
    Scenario(
        "acknowledgement-api-down",
        "no acknowledgement is accepted for hours",
        _acknowledgements_down,
        _acknowledges_for_hours,
        answer,
    ),
    Scenario(
        "acknowledgement-api-gone",
        "no acknowledgement is ever accepted",
        _acknowledgements_gone,
        lambda case: case.acknowledges("success"),
        answer,
    ),
)
