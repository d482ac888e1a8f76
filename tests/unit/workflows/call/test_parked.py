"""Pending acknowledgements, and what a parked call keeps when it continues as new."""

from __future__ import annotations

from dataclasses import replace

from ackbridge.contracts.calls import OutcomeStatus, Stage
from tests.model.scenario import EXTENSION, FAILURE, RESPONSE, running, setting_of
from tests.model.workers import AttemptResult


def test_pending_acknowledgement_waits_for_the_reference() -> None:
    """It is not tried without an address; once the provider names its work, it is sent."""
    lost = replace(setting_of(cycles=1), needs_reference=True, tells_reference=False)
    with running(lost) as scenario:
        scenario.go(6)
        assert (scenario.status.stage, scenario.status.acknowledgements_owed) == (Stage.PARKED, 1)
        scenario.provider_sends(EXTENSION, about=1)
        scenario.go(2)
        assert scenario.status.acknowledgements_owed == 0
        assert [one.reference for one in scenario.world.provider.accepted] == ["r-1"]
        scenario.end()


def test_success_voids_the_failed_acknowledgement_of_its_cycle() -> None:
    """Two acknowledgements of one cycle never overtake each other."""
    with running(replace(setting_of(cycles=1), acknowledging="down")) as scenario:
        scenario.go(6)
        assert scenario.status.acknowledgements_owed == 1
        scenario.world.provider.acknowledging = "accepts"
        scenario.provider_sends(RESPONSE, about=1)
        scenario.end()
        assert scenario.accepted == [(1, "success")]
        assert not scenario.outcome.acknowledgement_owed


def test_what_is_suppressed_while_parked_is_logged_at_once() -> None:
    """Nobody has to wait for the end of a parked call to see what became of a message."""
    with running(setting_of(cycles=1)) as scenario:
        scenario.go(6)
        scenario.provider_sends(FAILURE, about=1)
        scenario.go(1)
        assert scenario.status.stage is Stage.PARKED
        assert scenario.world.ledger.logged["e1"] == 1
        scenario.end()


def test_continued_call_goes_on_acknowledging() -> None:
    """The next run has the same acknowledgements pending, and shows them."""
    with running(replace(setting_of(cycles=1), acknowledging="down")) as scenario:
        scenario.go(6)
        scenario.world.suggest_continue_as_new()
        assert len(scenario.world.engine.finished) == 1
        assert (scenario.status.stage, scenario.status.acknowledgements_owed) == (Stage.PARKED, 1)
        scenario.world.provider.acknowledging = "accepts"
        scenario.go(1)
        assert (scenario.status.acknowledgements_owed, scenario.accepted) == (0, [(1, "failed")])
        scenario.end()


def test_continued_call_gets_messages_that_came_in_between() -> None:
    """A message that arrives while the old run lets its work end is the new run's."""
    with running(replace(setting_of(cycles=1), acknowledging="down")) as scenario:
        scenario.go(6)
        scenario.work(AttemptResult.GOOD, pace="early")
        scenario.world.suggest_continue_as_new()
        scenario.provider_sends(RESPONSE, about=1)
        assert scenario.world.engine.finished == []
        scenario.world.finish(0)
        assert len(scenario.world.engine.finished) == 1
        scenario.world.provider.acknowledging = "accepts"
        scenario.end()
        assert scenario.outcome.late
        assert scenario.accepted == [(1, "success")]


def test_continued_call_knows_its_cycles_and_its_event_keys() -> None:
    """It goes on with a new key, and what it has received before stays a duplicate."""
    with running(setting_of(cycles=1)) as scenario:
        scenario.go(2)
        scenario.provider_sends(FAILURE, event_key="e1", retryable=True)
        scenario.go(2)
        scenario.world.suggest_continue_as_new()
        scenario.operator("reprocess")
        scenario.go(2)
        scenario.provider_sends(FAILURE, event_key="e1")
        assert scenario.status.stage is Stage.AWAITING_RESPONSE
        assert (scenario.sent, scenario.status.duplicates) == ([1, 2], 1)
        scenario.end()


def test_ledger_away_for_a_day_ends_a_call_that_was_never_sent() -> None:
    """It fails with a notice, and what was received meanwhile is held when the ledger is back."""
    with running(setting_of()) as scenario:
        scenario.world.change("ledger", "nothing")
        scenario.provider_sends(RESPONSE)
        scenario.work()
        scenario.pass_time(90000)
        assert scenario.status.outcome is not None
        scenario.end()
        assert scenario.outcome.status is OutcomeStatus.FAILED
        assert scenario.outcome.notice is not None
        assert [one.event_key for one in scenario.world.ledger.held] == ["e1"]
        assert scenario.sent == []
