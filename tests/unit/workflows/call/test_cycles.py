"""Several cycles of one call: which of them a message is about, and what the others are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ackbridge.contracts.calls import Effect, OutcomeStatus, Stage
from ackbridge.contracts.plan import LatePolicy, OnFailure, PollPlan, ResponseMode
from tests.model.stage import (
    EXTENSION,
    FAILURE,
    ONLY_SUCCESS,
    QUEUED,
    RESPONSE,
    facts_of,
    staged,
)
from tests.model.workers import Luck
from tests.model.world import START

POLLED = {
    "mode": ResponseMode.POLL,
    "poll": PollPlan(every=timedelta(seconds=3), timeout=timedelta(seconds=5)),
}


def test_success_of_work_that_was_called_off_is_held() -> None:
    """It contradicts the failed acknowledgement that the provider has accepted."""
    with staged(facts_of()) as scene:
        scene.go(6)
        scene.say(RESPONSE, about=1)
        scene.end()
        assert scene.outcome.status is OutcomeStatus.FAILED
        assert scene.outcome.effect is Effect.UNKNOWN
        assert [one.event_key for one in scene.world.ledger.held] == ["e1"]


def test_success_of_work_that_was_called_off_counts_when_confirmed() -> None:
    """The provider is asked: it stands by its success."""
    with staged(facts_of(ask_status=True)) as scene:
        scene.go(7)
        scene.world.answering = "response"
        scene.say(RESPONSE, about=1)
        scene.end()
        assert (scene.outcome.late, scene.outcome.reference) == (True, "r-1")
        assert scene.accepted == [(1, "failed"), (1, "success"), (2, "failed")]


@pytest.mark.parametrize("late", [LatePolicy.IGNORE, LatePolicy.HOLD])
def test_late_answer_that_is_not_welcome_leaves_the_next_cycle_alone(late: LatePolicy) -> None:
    """It is logged and held, and the second cycle's answer counts."""
    with staged(facts_of(late=late)) as scene:
        scene.go(6)
        scene.say(RESPONSE, about=1)
        scene.say(RESPONSE, about=2)
        scene.end()
        assert (scene.outcome.late, scene.outcome.reference) == (False, "r-2")
        held = [one.event_key for one in scene.world.ledger.held]
        assert held == ["e1"]
        assert scene.world.ledger.logged["e1"] == 1
        assert scene.accepted == [(1, "failed"), (2, "success")]


def test_unnamed_answer_counts_for_the_last_cycle() -> None:
    """A provider that names no work means the one it was asked for last."""
    with staged(facts_of()) as scene:
        scene.go(6)
        scene.say(RESPONSE)
        scene.end()
        assert scene.accepted == [(1, "failed"), (2, "success")]
        assert not scene.outcome.late


def test_silence_without_failed_acknowledgements_keeps_the_key() -> None:
    """The provider was never told that it has failed: only the same key is safe."""
    with staged(facts_of(acknowledge=ONLY_SUCCESS, cycles=3)) as scene:
        scene.end()
        assert scene.sent == [1, 1, 1]
        assert scene.accepted == []


def test_failure_takes_a_new_key_even_without_acknowledgements() -> None:
    """A provider's own word is definitive."""
    with staged(facts_of(acknowledge=None)) as scene:
        scene.go(2)
        scene.say(FAILURE, retryable=True)
        scene.end()
        assert scene.sent == [1, 2]


def test_answer_while_the_last_failed_acknowledgement_is_sent() -> None:
    """The call is still open: the answer is late, and taken."""
    with staged(facts_of(cycles=1, on_failure=OnFailure.FAIL, undoes=False)) as scene:
        scene.go(4)
        scene.work(Luck.GOOD, pace="early")
        scene.say(RESPONSE)
        scene.end()
        assert scene.outcome.status is OutcomeStatus.COMPLETED
        assert scene.outcome.late
        assert scene.accepted == [(1, "failed"), (1, "success")]


def test_late_window_keeps_a_failing_call_open() -> None:
    """A call that would fail for silence waits a while for a late answer."""
    window = facts_of(
        cycles=1, on_failure=OnFailure.FAIL, late_window=timedelta(minutes=5), undoes=False
    )
    with staged(window) as scene:
        scene.go(6)
        assert scene.status.stage is Stage.PARKED
        scene.pass_time(200)
        scene.say(RESPONSE)
        scene.end()
        assert scene.outcome.late


def test_late_window_does_not_keep_what_the_provider_has_failed() -> None:
    """Nothing more can come of work that has failed."""
    window = facts_of(cycles=1, on_failure=OnFailure.FAIL, late_window=timedelta(minutes=5))
    with staged(window) as scene:
        scene.go(2)
        scene.say(FAILURE)
        scene.end()
        assert scene.outcome.status is OutcomeStatus.FAILED
        assert scene.world.engine.now == scene.outcome.timings.started_at


def test_poll_goes_on_after_an_extension() -> None:
    """More time moves the deadline, and the provider is asked again until it answers."""
    with staged(facts_of(**POLLED)) as scene:
        scene.world.answering = "extension"
        scene.go(3)
        assert scene.status.deadline == START + timedelta(seconds=40)
        scene.world.answering = "response"
        scene.end()
        assert scene.outcome.status is OutcomeStatus.COMPLETED
        assert scene.sent == [1]


def test_extension_tells_of_a_lost_receipt() -> None:
    """A provider that wants more time has the request: it is waited for, and not sent again."""
    with staged(facts_of(send=QUEUED)) as scene:
        scene.go(1)
        scene.work(Luck.LOST)
        scene.say(EXTENSION, about=1)
        assert scene.status.stage is Stage.AWAITING_RESPONSE
        scene.say(RESPONSE, about=1)
        scene.end()
        assert scene.sent == [1]
        assert (scene.outcome.reference, scene.accepted) == ("r-1", [(1, "success")])
