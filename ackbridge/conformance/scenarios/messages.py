"""The provider asks for time, comes late, contradicts itself; or somebody else speaks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ackbridge.conformance.cases import Case
from ackbridge.conformance.records import Records
from ackbridge.conformance.scenario_run import ScenarioRun
from ackbridge.contracts.calls import CallStatus, OutcomeStatus, Stage
from ackbridge.contracts.plan import LatePolicy
from ackbridge.sandbox.behaviour import Behaviour

from .responses import completed
from .scenario import Scenario, answer, has_callbacks, silence

_UNTIL_HURRIED_MS = 10**9
"""Milliseconds: the scene decides when the provider goes on."""
_MARGIN = timedelta(seconds=10)


async def _extended(scene: ScenarioRun) -> None:
    """The first deadline passes, and the call waits on."""
    longer = _ms(_extension(scene.case))
    await scene.start(Behaviour(extend_ms=longer, extend_wait_ms=_UNTIL_HURRIED_MS))
    await scene.observe(_is_extended)
    await scene.skip(scene.case.deadline)
    status = await scene.call.status()
    scene.expect(Stage.AWAITING_RESPONSE, status.stage, "stage", "response.extension")
    await scene.hurry()
    await completed(scene)


async def _extended_too_far(scene: ScenarioRun) -> None:
    ceiling = scene.case.operation.response.deadline.ceiling
    far = _ms(ceiling + timedelta(days=1))
    await scene.start(Behaviour(extend_ms=far, extend_wait_ms=_UNTIL_HURRIED_MS))
    status = await scene.observe(_is_extended)
    (sent, *_) = (await scene.records()).seen("request")
    at_most = datetime.fromisoformat(sent["at"]) + ceiling
    # Nothing has been skipped so far: the call's clock is the provider's.
    if status.deadline is None or abs(status.deadline - at_most) > _MARGIN:
        field = "response.deadline.ceiling"
        scene.blame(f"the deadline at {at_most}", f"{status.deadline}", field)
    outcome = await scene.outcome()
    scene.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.deadline.ceiling")


def _is_extended(status: CallStatus) -> bool:
    return "extended" in (status.deadline_reason or "")


async def _late(scene: ScenarioRun) -> None:
    """The last cycle's response comes after we have given up on it."""
    cycles = scene.case.operation.response.cycles
    silent = [Behaviour(stuck=True)] * (cycles - 1)
    await scene.start(*silent, Behaviour(delay_ms=_UNTIL_HURRIED_MS))
    status = await scene.to_the_end(stop_parked=True)
    await scene.hurry()
    await _has_come(scene)
    if status.stage is Stage.PARKED:
        await _late_while_open(scene)
    else:
        await _late_after_the_end(scene)


async def _has_come(scene: ScenarioRun) -> None:
    async def replied() -> bool:
        return bool((await scene.records()).seen("callback_reply"))

    await scene.wait_for(replied)


async def _late_while_open(scene: ScenarioRun) -> None:
    policy = scene.case.operation.response.late
    if policy is LatePolicy.ACCEPT:
        outcome = await scene.answered()
        scene.expect(OutcomeStatus.COMPLETED, outcome.status, "outcome", "response.late")
        scene.expect(True, outcome.late, "late", "response.late")
        return
    outcome = await scene.outcome()
    scene.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.late")
    rows = _rows(scene, await scene.records())
    wanted = {"suppressed"} if policy is LatePolicy.IGNORE else {"suppressed", "held"}
    found = {row.what for row in rows}
    scene.expect(sorted(wanted), sorted(found), "what the ledger has of it", "response.late")


async def _late_after_the_end(scene: ScenarioRun) -> None:
    """Whatever the policy is: nothing is dropped."""
    outcome = await scene.outcome()
    scene.expect(OutcomeStatus.FAILED, outcome.status, "outcome", "response.late")

    async def is_kept() -> bool:
        return bool(_rows(scene, await scene.records()))

    if not await scene.wait_for(is_kept):
        scene.blame("the late response in the ledger", "nothing of it", "response.late")


def _rows(scene: ScenarioRun, records: Records) -> list[Any]:
    replies = records.seen("callback_reply")
    marks = {scene.theatre.mimic.event_key_mark(entry["event_id"]) for entry in replies}
    return [row for mark in sorted(marks) for row in records.about(mark)]


async def _contradictory(scene: ScenarioRun) -> None:
    """The first word counts, and the second is logged."""
    await scene.start(Behaviour(contradictory="completed"))
    outcome = await completed(scene)
    if outcome.status is OutcomeStatus.COMPLETED:

        async def is_logged() -> bool:
            return bool(_rows(scene, await scene.records()))

        if not await scene.wait_for(is_logged):
            scene.blame("the second message in the ledger's log", "nothing", "response.failure")


async def _contradictory_failure(scene: ScenarioRun) -> None:
    """A failure, and then a completion: one end, whichever it is."""
    await scene.start(Behaviour(contradictory="failed"))
    await scene.outcome()


async def _forged(scene: ScenarioRun) -> None:
    callbacks = scene.case.integration.callbacks
    await scene.start(Behaviour(forged=True, malformed=True))
    await completed(scene)
    if callbacks is None:
        return
    replies = callbacks.replies
    nothing = replies.unmatched if scene.case.knows_empty_callback() else replies.unreadable
    expected = {
        "forged_signature": (replies.forged, "callbacks.verify"),
        "forged_stale": (replies.forged, "callbacks.verify.tolerance"),
        "malformed_not_json": (replies.unreadable, "callbacks.replies.unreadable"),
        "malformed_nothing": (nothing, "callbacks.event_key"),
    }
    for entry in (await scene.records()).seen("callback_reply"):
        if entry["news"] in expected:
            code, field = expected[entry["news"]]
            scene.expect(code, entry.get("status"), f"reply to {entry['news']}", field)


def _extension(case: Case) -> timedelta:
    """How much longer the provider asks for: beyond the deadline, and within the ceiling."""
    room = case.operation.response.deadline.ceiling - case.deadline
    return case.deadline + room / 2


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


def _asks_for_time(case: Case) -> bool:
    return has_callbacks(case) and case.operation.response.extension is not None


def _has_room(case: Case) -> bool:
    room = case.operation.response.deadline.ceiling - case.deadline
    return _asks_for_time(case) and room > 3 * _MARGIN


def _can_contradict(case: Case) -> bool:
    return has_callbacks(case) and case.operation.response.failure is not None


def _extends(_case: Case) -> tuple[str, ...]:
    return ("callback.extended",)


def _contradicts(case: Case) -> tuple[str, ...]:
    return (*answer(case), "callback.failed")


MESSAGES = (
    Scenario(
        "extension",
        "the provider asks for more time, and then answers",
        _extended,
        applies=_has_room,
        needs=lambda case: (*answer(case), *_extends(case)),
    ),
    Scenario(
        "extension-beyond-ceiling",
        "the provider asks for more time than it can have",
        _extended_too_far,
        applies=_asks_for_time,
        needs=lambda case: (*silence(case), *_extends(case)),
    ),
    Scenario(
        "late-response",
        "the response comes after we have given up on it",
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
        "callbacks that are not the provider's, or make no sense, before the true one",
        _forged,
        applies=has_callbacks,
        needs=answer,
    ),
)
"""What arrives at the gateway."""
