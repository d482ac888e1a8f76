"""Cancel and force in every stage, step by step in the model's world."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
from tests.model.scenario import QUEUED, RESPONSE, running, setting_of
from tests.model.workers import AttemptResult


def test_cancel_while_preparing_sends_nothing() -> None:
    """A call that is cancelled before it is sent ends, and the provider never hears of it."""
    with running(setting_of()) as scenario:
        scenario.operator("cancel", soon=True)
        scenario.crash()
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.CANCELLED
        assert (scenario.sent, scenario.accepted) == ([], [])


def test_cancel_after_a_lost_task_acknowledges_as_failed() -> None:
    """What `prepare` finds repeated may have been sent: it is acknowledged as failed."""
    with running(setting_of()) as scenario:
        scenario.go(1)
        scenario.operator("cancel", soon=True)
        scenario.work(AttemptResult.DIES_AFTER)
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.CANCELLED
        assert (scenario.sent, scenario.accepted) == ([1], [(1, "failed")])


def test_force_while_preparing_sends_nothing() -> None:
    """The operator's response is recorded, and there is nothing to acknowledge."""
    with running(setting_of()) as scenario:
        scenario.operator("force_ack", soon=True)
        scenario.crash()
        scenario.end()
        assert scenario.outcome.response == {"forced": True}
        assert (scenario.sent, scenario.accepted) == ([], [])


@pytest.mark.parametrize(("operator", "kind"), [("cancel", "failed"), ("force_ack", "success")])
def test_operator_request_while_sending_ends_the_retries(operator: str, kind: str) -> None:
    """The running attempt ends by itself, none follows, and it is acknowledged."""
    with running(setting_of(send=QUEUED)) as scenario:
        scenario.go(1)
        scenario.work(AttemptResult.LOST, pace="early")
        scenario.operator(operator)
        assert scenario.status.stage is Stage.SENDING
        scenario.end()
        assert (scenario.sent, scenario.accepted) == ([1], [(1, kind)])


def test_cancel_while_sending_does_not_lose_the_receipt() -> None:
    """A receipt that comes after the cancel names the work that is acknowledged as failed."""
    with running(setting_of(send=QUEUED)) as scenario:
        scenario.go(1)
        scenario.work(AttemptResult.GOOD, pace="early")
        scenario.operator("cancel")
        scenario.end()
        (acknowledgement,) = scenario.world.provider.accepted
        assert (acknowledgement.kind, acknowledgement.reference) == ("failed", "r-1")


def test_cancel_while_asking_waits_for_the_answer() -> None:
    """The provider was asked already: its answer is taken, and the cancel is too late."""
    with running(setting_of(ask_status=True)) as scenario:
        scenario.world.status_reply = "response"
        scenario.go(4)
        scenario.work(AttemptResult.GOOD, pace="early")
        scenario.operator("cancel")
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.COMPLETED
        assert "too late" in (scenario.status.last_error or "")
        assert scenario.accepted == [(1, "success")]


def test_cancel_of_a_parked_call_acknowledges_nothing_again() -> None:
    """What was acknowledged as failed before it was parked is not acknowledged again."""
    with running(setting_of(cycles=1)) as scenario:
        scenario.go(6)
        assert scenario.status.stage is Stage.PARKED
        scenario.operator("cancel")
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.CANCELLED
        assert scenario.accepted == [(1, "failed")]


def test_force_of_a_parked_call_voids_the_pending_acknowledgement() -> None:
    """A success takes the place of the failed acknowledgement that was never accepted."""
    with running(replace(setting_of(cycles=1), acknowledging="down")) as scenario:
        scenario.go(6)
        scenario.world.provider.acknowledging = "accepts"
        scenario.operator("force_ack")
        scenario.end()
        assert scenario.outcome.forced is not None
        assert scenario.accepted == [(1, "success")]
        assert not scenario.outcome.acknowledgement_owed


def test_orders_after_the_outcome_are_too_late() -> None:
    """A captured response stands, whatever is ordered while its acknowledgement is under way."""
    with running(replace(setting_of(send=QUEUED), acknowledging="down")) as scenario:
        scenario.go(2)
        scenario.provider_sends(RESPONSE)
        scenario.go(1)
        for operator in ("cancel", "force_ack"):
            scenario.operator(operator)
            assert "too late" in (scenario.status.last_error or "")
        scenario.end()
        assert isinstance(scenario.outcome, CallOutcome)
        assert scenario.outcome.status is OutcomeStatus.COMPLETED
