"""Callbacks that extend the deadline, come late, contradict each other, or are forged."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ackbridge.conformance.cases import Case
from ackbridge.conformance.records import Records
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import CallStatus, Effect, OutcomeStatus, Stage
from ackbridge.contracts.plan import LatePolicy
from ackbridge.sandbox.behaviour import Behaviour

from .scenario import Scenario, answer, completed, has_callbacks, silence

_UNTIL_SKIPPED_MS = 10**9
"""Milliseconds: the scenario decides when the provider continues."""
_MARGIN = timedelta(seconds=10)


async def _extended(run: ScenarioRun) -> None:
    """The first deadline passes, and the call still waits."""
    longer = _ms(_extension(run.case))
    await run.start(Behaviour(extend_ms=longer, extend_wait_ms=_UNTIL_SKIPPED_MS))
    await run.wait_for_status(_is_extended)
    await run.skip(run.case.deadline)
    status = await run.call.status()
    run.expect(Stage.AWAITING_RESPONSE, status.stage, "stage", "response.extension")
    await run.skip_provider_delay()
    await completed(run)


async def _extended_too_far(run: ScenarioRun) -> None:
    ceiling = run.case.operation.response.deadline.ceiling
    extension = _ms(ceiling + timedelta(days=1))
    await run.start(Behaviour(extend_ms=extension, extend_wait_ms=_UNTIL_SKIPPED_MS))
    status = await run.wait_for_status(_is_extended)
    (sent, *_) = (await run.records()).events("request")
    latest = datetime.fromisoformat(sent["at"]) + ceiling
    # No time was skipped yet, so the clocks of call and provider agree.
    if status.deadline is None or abs(status.deadline - latest) > _MARGIN:
        field = "response.deadline.ceiling"
        run.fail(f"the deadline at {latest}", f"{status.deadline}", field)
    outcome = await run.outcome()
    run.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.deadline.ceiling")


def _is_extended(status: CallStatus) -> bool:
    return "extended" in (status.deadline_reason or "")


async def _late(run: ScenarioRun) -> None:
    """The response of the last cycle arrives after its failed acknowledgement."""
    last = Behaviour(delay_ms=_UNTIL_SKIPPED_MS)
    silent = [Behaviour(stuck=True)] * (run.case.rounds - 1) if run.case.calls_off else []
    if run.case.acknowledges("failed"):
        last = Behaviour(late=True, late_ms=_UNTIL_SKIPPED_MS)
    await run.start(*silent, last)
    status = await run.skip_to_end(stop_parked=True)
    await run.skip_provider_delay()
    await _wait_for_callback(run)
    if status.stage is Stage.PARKED:
        await _late_while_open(run)
    else:
        await _late_after_the_end(run)


async def _wait_for_callback(run: ScenarioRun) -> None:
    async def replied() -> bool:
        return bool((await run.records()).events("callback_reply"))

    await run.wait_for(replied)


async def _late_while_open(run: ScenarioRun) -> None:
    """A success of work that was called off counts only if the provider confirms it."""
    response = run.case.operation.response
    policy, is_confirmed = response.late, response.status is not None or not run.case.calls_off
    if policy is LatePolicy.ACCEPT and is_confirmed:
        outcome = await run.outcome_without_skipping()
        run.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "response.late")
        run.expect(True, outcome.late, "late", "response.late")
        return
    outcome = await run.outcome()
    run.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.late")
    rows = _rows(run, await run.records())
    is_ignored = policy is LatePolicy.IGNORE and is_confirmed
    wanted = {"suppressed"} if is_ignored else {"suppressed", "held"}
    effect = Effect.DONE if is_confirmed else Effect.UNKNOWN
    run.expect(effect, outcome.effect, "effect", "acknowledge.undoes")
    found = {row.what for row in rows}
    run.expect(sorted(wanted), sorted(found), "rows in the ledger", "response.late")


async def _late_after_the_end(run: ScenarioRun) -> None:
    """Nothing is dropped, whatever the policy is."""
    outcome = await run.outcome()
    run.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.late")

    async def is_kept() -> bool:
        return bool(_rows(run, await run.records()))

    if not await run.wait_for(is_kept):
        run.fail("the late response in the ledger", "nothing", "response.late")


def _rows(run: ScenarioRun, records: Records) -> list[Any]:
    replies = records.events("callback_reply")
    keys = {run.harness.dialect.event_key(event["event_id"]) for event in replies}
    return [row for key in sorted(keys) for row in records.rows_of(key)]


async def _contradictory(run: ScenarioRun) -> None:
    """The first message counts, and the second is logged."""
    await run.start(Behaviour(contradictory="completed"))
    outcome = await completed(run)
    if outcome.status is OutcomeStatus.COMPLETED:

        async def is_logged() -> bool:
            return bool(_rows(run, await run.records()))

        if not await run.wait_for(is_logged):
            run.fail("the second message in the ledger's log", "nothing", "response.failure")


async def _contradictory_failure(run: ScenarioRun) -> None:
    """There is one end, whichever it is."""
    await run.start(Behaviour(contradictory="failed"))
    await run.outcome()


_EMPTY: dict[str, Any] = {"body": {}, "headers": {}, "query": {}}
"""The document of a callback that says nothing."""


async def _forged(run: ScenarioRun) -> None:
    callbacks = run.case.integration.callbacks
    await run.start(Behaviour(forged=True, malformed=True))
    await completed(run)
    if callbacks is None:
        return
    replies = callbacks.replies
    has_key = run.case.has_key_for_empty_callback()
    empty = replies.unmatched if has_key else replies.unreadable
    if callbacks.ignore is not None and callbacks.ignore.holds(_EMPTY):
        empty = replies.accepted
    expected = {
        "forged_signature": (replies.forged, "callbacks.verify"),
        "forged_stale": (replies.forged, "callbacks.verify.tolerance"),
        "malformed_not_json": (replies.unreadable, "callbacks.replies.unreadable"),
        "malformed_nothing": (empty, "callbacks.event_key"),
    }
    for event in (await run.records()).events("callback_reply"):
        if event["news"] in expected:
            code, field = expected[event["news"]]
            run.expect(code, event.get("status"), f"reply to {event['news']}", field)


def _extension(case: Case) -> timedelta:
    """An extension beyond the deadline and within the ceiling."""
    room = case.operation.response.deadline.ceiling - case.deadline
    return case.deadline + room / 2


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


def _has_extension(case: Case) -> bool:
    response = case.operation.response
    return has_callbacks(case) and response.extension is not None and not response.fetch


def _has_any_extension(case: Case) -> bool:
    """Whether the provider says how much time it needs."""
    rule = case.operation.response.extension
    spans = (rule.until, rule.by) if rule is not None else ()
    return _has_extension(case) and any(one is not None and one.search({}) is None for one in spans)


def _has_extension_below_ceiling(case: Case) -> bool:
    room = case.operation.response.deadline.ceiling - case.deadline
    return _has_extension(case) and room > 3 * _MARGIN


def _can_contradict(case: Case) -> bool:
    response = case.operation.response
    return has_callbacks(case) and response.failure is not None and not response.fetch


def _contradicts(case: Case) -> tuple[str, ...]:
    return (*answer(case), "callback.failed")


MESSAGES = (
    Scenario(
        "extension",
        "the provider asks for more time, and then answers",
        _extended,
        applies=_has_extension_below_ceiling,
        needs=lambda case: (*answer(case), "callback.extended"),
    ),
    Scenario(
        "extension-beyond-ceiling",
        "the provider asks for more time than the ceiling allows",
        _extended_too_far,
        applies=_has_any_extension,
        needs=lambda case: (*silence(case), "callback.extended"),
    ),
    Scenario(
        "late-response",
        "the response comes after the call has given up on it",
        _late,
        applies=has_callbacks,
        needs=lambda case: (*answer(case), *silence(case)),
    ),
    Scenario(
        "contradictory",
        "a completion, and then a failure",
        _contradictory,
        applies=_can_contradict,
        needs=_contradicts,
    ),
    Scenario(
        "contradictory-failure-first",
        "a failure, and then a completion",
        _contradictory_failure,
        applies=_can_contradict,
        needs=_contradicts,
    ),
    Scenario(
        "forged-and-malformed",
        "forged and malformed callbacks before the true one",
        _forged,
        applies=has_callbacks,
        needs=answer,
    ),
)
