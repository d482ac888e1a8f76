"""Several cycles of one call: which of them a message is about, and how others end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ackbridge.contracts.calls import Effect, OutcomeStatus, Stage
from ackbridge.contracts.plan import LatePolicy, OnFailure, PollPlan, ResponseMode
from tests.model.scenario import (
    EXTENSION,
    FAILURE,
    ONLY_SUCCESS,
    QUEUED,
    RESPONSE,
    running,
    setting_of,
)
from tests.model.workers import AttemptResult
from tests.model.world import START

POLLED = {
    "mode": ResponseMode.POLL,
    "poll": PollPlan(every=timedelta(seconds=3), timeout=timedelta(seconds=5)),
}


def test_success_of_work_that_was_called_off_is_held() -> None:
    """It contradicts the failed acknowledgement that the provider has accepted."""
    with running(setting_of()) as scenario:
        scenario.go(6)
        scenario.provider_sends(RESPONSE, about=1)
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.FAILED
        assert scenario.outcome.effect is Effect.UNKNOWN
        assert [one.event_key for one in scenario.world.ledger.held] == ["e1"]


def test_success_of_work_that_was_called_off_counts_when_confirmed() -> None:
    """The provider is asked: it stands by its success."""
    with running(setting_of(ask_status=True)) as scenario:
        scenario.go(7)
        scenario.world.status_reply = "response"
        scenario.provider_sends(RESPONSE, about=1)
        scenario.end()
        assert (scenario.outcome.late, scenario.outcome.reference) == (True, "r-1")
        assert scenario.accepted == [(1, "failed"), (1, "success"), (2, "failed")]


@pytest.mark.parametrize("late", [LatePolicy.IGNORE, LatePolicy.HOLD])
def test_late_answer_that_is_not_welcome_leaves_the_next_cycle_alone(late: LatePolicy) -> None:
    """It is logged and held, and the second cycle's answer counts."""
    with running(setting_of(late=late)) as scenario:
        scenario.go(6)
        scenario.provider_sends(RESPONSE, about=1)
        scenario.provider_sends(RESPONSE, about=2)
        scenario.end()
        assert (scenario.outcome.late, scenario.outcome.reference) == (False, "r-2")
        held = [one.event_key for one in scenario.world.ledger.held]
        assert held == ["e1"]
        assert scenario.world.ledger.logged["e1"] == 1
        assert scenario.accepted == [(1, "failed"), (2, "success")]


def test_unnamed_answer_counts_for_the_last_cycle() -> None:
    """A provider that names no work means the one it was asked for last."""
    with running(setting_of()) as scenario:
        scenario.go(6)
        scenario.provider_sends(RESPONSE)
        scenario.end()
        assert scenario.accepted == [(1, "failed"), (2, "success")]
        assert not scenario.outcome.late


def test_timeout_without_failed_acknowledgements_keeps_the_key() -> None:
    """No failed acknowledgement was sent: only the same key is safe."""
    with running(setting_of(acknowledge=ONLY_SUCCESS, cycles=3)) as scenario:
        scenario.end()
        assert scenario.sent == [1, 1, 1]
        assert scenario.accepted == []


def test_failure_takes_a_new_key_even_without_acknowledgements() -> None:
    """A failure that the provider reports is definitive."""
    with running(setting_of(acknowledge=None)) as scenario:
        scenario.go(2)
        scenario.provider_sends(FAILURE, retryable=True)
        scenario.end()
        assert scenario.sent == [1, 2]


def test_answer_while_the_last_failed_acknowledgement_is_sent() -> None:
    """The call is still open: the answer is late, and taken."""
    with running(setting_of(cycles=1, on_failure=OnFailure.FAIL, undoes=False)) as scenario:
        scenario.go(4)
        scenario.work(AttemptResult.GOOD, pace="early")
        scenario.provider_sends(RESPONSE)
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.COMPLETED
        assert scenario.outcome.late
        assert scenario.accepted == [(1, "failed"), (1, "success")]


def test_late_window_keeps_a_failing_call_open() -> None:
    """A call that would fail for silence waits a while for a late answer."""
    window = setting_of(
        cycles=1, on_failure=OnFailure.FAIL, late_window=timedelta(minutes=5), undoes=False
    )
    with running(window) as scenario:
        scenario.go(6)
        assert scenario.status.stage is Stage.PARKED
        scenario.pass_time(200)
        scenario.provider_sends(RESPONSE)
        scenario.end()
        assert scenario.outcome.late


def test_late_window_does_not_keep_what_the_provider_has_failed() -> None:
    """Nothing more can come of work that has failed."""
    window = setting_of(cycles=1, on_failure=OnFailure.FAIL, late_window=timedelta(minutes=5))
    with running(window) as scenario:
        scenario.go(2)
        scenario.provider_sends(FAILURE)
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.FAILED
        assert scenario.world.engine.now == scenario.outcome.timings.started_at


def test_poll_goes_on_after_an_extension() -> None:
    """More time moves the deadline, and the provider is asked again until it answers."""
    with running(setting_of(**POLLED)) as scenario:
        scenario.world.status_reply = "extension"
        scenario.go(3)
        assert scenario.status.deadline == START + timedelta(seconds=40)
        scenario.world.status_reply = "response"
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.COMPLETED
        assert scenario.sent == [1]


def test_extension_proves_that_the_request_was_received() -> None:
    """A provider that wants more time has the request: it is waited for, and not sent again."""
    with running(setting_of(send=QUEUED)) as scenario:
        scenario.go(1)
        scenario.work(AttemptResult.LOST)
        scenario.provider_sends(EXTENSION, about=1)
        assert scenario.status.stage is Stage.AWAITING_RESPONSE
        scenario.provider_sends(RESPONSE, about=1)
        scenario.end()
        assert scenario.sent == [1]
        assert (scenario.outcome.reference, scenario.accepted) == ("r-1", [(1, "success")])
