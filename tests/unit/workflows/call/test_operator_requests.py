"""Cancel and force in every stage, step by step in the model's world."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Stage
from tests.model.stage import QUEUED, RESPONSE, facts_of, staged
from tests.model.workers import Luck


def test_cancel_while_preparing_sends_nothing() -> None:
    """A call that is cancelled before it is sent ends, and the provider never hears of it."""
    with staged(facts_of()) as scene:
        scene.order("cancel", soon=True)
        scene.crash()
        scene.end()
        assert scene.outcome.status is OutcomeStatus.CANCELLED
        assert (scene.sent, scene.accepted) == ([], [])


def test_cancel_after_a_task_that_was_lost_tells_the_provider() -> None:
    """What `prepare` finds repeated may have been sent: it is acknowledged as failed."""
    with staged(facts_of()) as scene:
        scene.go(1)
        scene.order("cancel", soon=True)
        scene.work(Luck.DIES_AFTER)
        scene.end()
        assert scene.outcome.status is OutcomeStatus.CANCELLED
        assert (scene.sent, scene.accepted) == ([1], [(1, "failed")])


def test_force_while_preparing_sends_nothing() -> None:
    """An operator's word is recorded, and there is nothing to acknowledge."""
    with staged(facts_of()) as scene:
        scene.order("force_ack", soon=True)
        scene.crash()
        scene.end()
        assert scene.outcome.response == {"forced": True}
        assert (scene.sent, scene.accepted) == ([], [])


@pytest.mark.parametrize(("order", "kind"), [("cancel", "failed"), ("force_ack", "success")])
def test_order_while_sending_ends_the_retries(order: str, kind: str) -> None:
    """The attempt in hand ends as it ends, and none follows; what may have arrived is told."""
    with staged(facts_of(send=QUEUED)) as scene:
        scene.go(1)
        scene.work(Luck.LOST, pace="early")
        scene.order(order)
        assert scene.status.stage is Stage.SENDING
        scene.end()
        assert (scene.sent, scene.accepted) == ([1], [(1, kind)])


def test_cancel_while_sending_does_not_lose_the_receipt() -> None:
    """A receipt that comes after the cancel names the work that is acknowledged as failed."""
    with staged(facts_of(send=QUEUED)) as scene:
        scene.go(1)
        scene.work(Luck.GOOD, pace="early")
        scene.order("cancel")
        scene.end()
        (told,) = scene.world.provider.accepted
        assert (told.kind, told.reference) == ("failed", "r-1")


def test_cancel_while_asking_waits_for_the_answer() -> None:
    """The provider was asked already: its answer is taken, and the cancel is too late."""
    with staged(facts_of(ask_status=True)) as scene:
        scene.world.answering = "response"
        scene.go(4)
        scene.work(Luck.GOOD, pace="early")
        scene.order("cancel")
        scene.end()
        assert scene.outcome.status is OutcomeStatus.COMPLETED
        assert "too late" in (scene.status.last_error or "")
        assert scene.accepted == [(1, "success")]


def test_cancel_of_a_parked_call_owes_nothing_new() -> None:
    """What was acknowledged as failed before it was parked is not told again."""
    with staged(facts_of(cycles=1)) as scene:
        scene.go(6)
        assert scene.status.stage is Stage.PARKED
        scene.order("cancel")
        scene.end()
        assert scene.outcome.status is OutcomeStatus.CANCELLED
        assert scene.accepted == [(1, "failed")]


def test_force_of_a_parked_call_voids_what_is_owed() -> None:
    """A success takes the place of the failed acknowledgement that was never accepted."""
    with staged(replace(facts_of(cycles=1), acknowledging="down")) as scene:
        scene.go(6)
        scene.world.provider.acknowledging = "accepts"
        scene.order("force_ack")
        scene.end()
        assert scene.outcome.forced is not None
        assert scene.accepted == [(1, "success")]
        assert not scene.outcome.acknowledgement_owed


def test_orders_after_the_outcome_are_too_late() -> None:
    """A captured response stands, whatever is ordered while its acknowledgement is under way."""
    with staged(replace(facts_of(send=QUEUED), acknowledging="down")) as scene:
        scene.go(2)
        scene.say(RESPONSE)
        scene.go(1)
        for order in ("cancel", "force_ack"):
            scene.order(order)
            assert "too late" in (scene.status.last_error or "")
        scene.end()
        assert isinstance(scene.outcome, CallOutcome)
        assert scene.outcome.status is OutcomeStatus.COMPLETED
