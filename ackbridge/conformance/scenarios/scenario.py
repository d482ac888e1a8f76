"""What a scenario is, and the expectations that several scenarios share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ackbridge.catalog.matching import classify, receipt_response, result_data
from ackbridge.conformance.cases import Case
from ackbridge.conformance.file_based_provider import Said
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import CallOutcome, Effect, OutcomeCode, OutcomeStatus, Stage
from ackbridge.contracts.messages import MessageSource, ProviderMessage

Play = Callable[[ScenarioRun], Awaitable[None]]

ALWAYS = 1_000_000
"""More often than anything is attempted."""


@dataclass(frozen=True)
class Scenario:
    """Something that a provider, a caller or an operator can do."""

    name: str  # as in `--only`
    meaning: str  # one line for the report
    play: Play  # runs it, and adds findings; the invariants are checked too
    # Whether it can happen to an operation at all.
    applies: Callable[[Case], bool] = lambda _case: True
    # The messages that the provider has to send; without one of them it fails.
    needs: Callable[[Case], tuple[str, ...]] = lambda _case: ()
    # Why an operation cannot be checked, which skips it; None if it can.
    unless: Callable[[Case], str | None] = lambda _case: None

    def missing(self, case: Case) -> str | None:
        """The message that it cannot be played without; None if all are there."""
        return case.missing(*self.needs(case))


# Messages that a scenario needs


def answer(case: Case) -> tuple[str, ...]:
    """To complete a call."""
    match case.mode:
        case "sync":
            return ("sync.completed",)
        case "poll":
            return ("receipt", "status.processing", "status.completed")
        case _:
            fetched = ("status.completed",) if case.operation.response.fetch else ()
            return ("receipt", "callback.completed", *fetched)


def failure(case: Case) -> tuple[str, ...]:
    """To fail for good."""
    return _failure(case, "failed")


def failure_and_answer(case: Case) -> tuple[str, ...]:
    """To fail once, and then complete."""
    return (*_failure(case, "failed_again"), *answer(case))


def silence(case: Case) -> tuple[str, ...]:
    """To accept a request, and send nothing more."""
    status = ("status.processing",) if case.operation.response.status is not None else ()
    return ("receipt", *status) if case.mode != "sync" else ()


def _failure(case: Case, kind: str) -> tuple[str, ...]:
    source = {"sync": "sync", "poll": "status", "callback": "callback"}[case.mode]
    if case.operation.response.fetch:
        source = "status"
    receipt = () if case.mode == "sync" else ("receipt",)
    return (*receipt, f"{source}.{kind}")


# Operations that a scenario applies to


def has_callbacks(case: Case) -> bool:
    return case.mode == "callback"


def is_asynchronous(case: Case) -> bool:
    return case.mode != "sync"


def parks_without_receipt(case: Case) -> bool:
    """Whether a call is parked that has got nothing but 5xx."""
    return case.parks(OutcomeCode.NO_RECEIPT, Effect.UNKNOWN)


def is_repeatable(case: Case) -> bool:
    return case.is_repeatable


def detects_retries(case: Case) -> str | None:
    """Why the provider cannot distinguish a retry from a new request; None if it can."""
    if case.operation.request.method in _IDEMPOTENT or case.identifies_cycle:
        return None
    return (
        "nothing in the request identifies a retry"
        f" (operations.{case.name}.request.idempotency_header): the provider may do the work twice"
    )


_IDEMPOTENT = ("GET", "PUT", "DELETE")
"""Methods whose requests may be repeated (RFC 9110)."""


# Ends of a call


async def completed(run: ScenarioRun, *, cycles: int = 1) -> CallOutcome:
    """Expect completion with the provider's response, acknowledged as success."""
    outcome = await run.outcome_without_skipping()
    run.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "response.success")
    if outcome.status is not OutcomeStatus.COMPLETED:
        run.fail("no error", outcome.reason or "no reason given", "response")
        return outcome
    records = await run.records()
    if outcome.response not in (expected := _sent_responses(run)):
        run.fail(f"response: {expected}", str(outcome.response), "response.data")
    run.expect(cycles, outcome.cycles, "cycles", "response.cycles")
    if run.case.acknowledges("success"):
        field = "acknowledge.path"
        run.expect(False, outcome.acknowledgement_owed, "an acknowledgement owed", field)
        accepted = records.events("acknowledgement", acknowledged="success", counts=True)
        run.expect(1, len(accepted), "success acknowledgements", "acknowledge.success")
    run.expect(cycles, len(records.works), "works of the provider", "request.idempotency_header")
    return outcome


async def parked(run: ScenarioRun) -> None:
    """Expect the call to be parked, with a notice."""
    status = await run.skip_to_end(stop_parked=True)
    run.expect(Stage.PARKED, status.stage, "stage", "on_failure")
    if status.stage is Stage.PARKED and status.notice is None:
        run.fail("a notice while it is parked", "none", "notices.delayed")


async def failed(run: ScenarioRun, code: OutcomeCode, effect: Effect) -> CallOutcome:
    """Expect failure, after being parked where the file says so."""
    status = await run.skip_to_end(stop_parked=True)
    if run.case.parks(code, effect):
        run.expect(Stage.PARKED, status.stage, "stage", "on_failure")
    elif effect is Effect.NONE:
        run.expect(False, status.stage is Stage.PARKED, "parked", "on_failure")
    outcome = await run.outcome()
    run.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "on_failure")
    run.expect(code, outcome.code, "code", "response")
    run.expect(effect, outcome.effect, "effect", "acknowledge")
    return outcome


def _sent_responses(run: ScenarioRun) -> list[object]:
    """The responses that the real rules read from the messages that were sent."""
    dialect, operation = run.harness.dialect, run.case.operation
    if operation.response.result is not None:
        return [result_data(operation, dialect.results.get(run.request.call_id, {}))]
    return [message.data for message in read_sent(run, dialect.successes)]


def read_sent(run: ScenarioRun, sent: Mapping[str, Sequence[Said]]) -> list[ProviderMessage]:
    """What the real rules make of the messages that were sent for this call."""
    operation, now = run.case.operation, datetime.now(UTC)
    found = [
        receipt_response(operation, one.document, "any", now)
        if one.source is MessageSource.SYNC and operation.response.mode != "sync"
        else classify(operation, one.document, "any", one.source, now)
        for one in sent.get(run.request.call_id, ())
    ]
    return [message for message in found if message is not None]
