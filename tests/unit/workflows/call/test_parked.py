"""What a call owes, and what it keeps while it is parked and when it continues as new."""

from __future__ import annotations

from dataclasses import replace

from ackbridge.contracts.calls import OutcomeStatus, Stage
from tests.model.stage import EXTENSION, FAILURE, RESPONSE, facts_of, staged
from tests.model.workers import Luck


def test_debt_waits_for_the_providers_reference() -> None:
    """What has no address is not tried; once the provider names its work, it is paid."""
    lost = replace(facts_of(cycles=1), needs_reference=True, tells_reference=False)
    with staged(lost) as scene:
        scene.go(6)
        assert (scene.status.stage, scene.status.acknowledgements_owed) == (Stage.PARKED, 1)
        scene.say(EXTENSION, about=1)
        scene.go(2)
        assert scene.status.acknowledgements_owed == 0
        assert [one.reference for one in scene.world.provider.accepted] == ["r-1"]
        scene.end()


def test_success_voids_the_failed_debt_of_its_cycle() -> None:
    """Two words about one work never overtake each other."""
    with staged(replace(facts_of(cycles=1), acknowledging="down")) as scene:
        scene.go(6)
        assert scene.status.acknowledgements_owed == 1
        scene.world.provider.acknowledging = "accepts"
        scene.say(RESPONSE, about=1)
        scene.end()
        assert scene.accepted == [(1, "success")]
        assert not scene.outcome.acknowledgement_owed


def test_what_is_suppressed_while_parked_is_logged_at_once() -> None:
    """Nobody has to wait for the end of a parked call to see what became of a message."""
    with staged(facts_of(cycles=1)) as scene:
        scene.go(6)
        scene.say(FAILURE, about=1)
        scene.go(1)
        assert scene.status.stage is Stage.PARKED
        assert scene.world.ledger.logged["e1"] == 1
        scene.end()


def test_continued_call_still_pays_what_it_owes() -> None:
    """The run that continues owes the same, and says so."""
    with staged(replace(facts_of(cycles=1), acknowledging="down")) as scene:
        scene.go(6)
        scene.world.wear_out()
        assert len(scene.world.engine.finished) == 1
        assert (scene.status.stage, scene.status.acknowledgements_owed) == (Stage.PARKED, 1)
        scene.world.provider.acknowledging = "accepts"
        scene.go(1)
        assert (scene.status.acknowledgements_owed, scene.accepted) == (0, [(1, "failed")])
        scene.end()


def test_continued_call_hears_what_came_in_between() -> None:
    """A message that arrives while the old run lets its work end is the new run's."""
    with staged(replace(facts_of(cycles=1), acknowledging="down")) as scene:
        scene.go(6)
        scene.work(Luck.GOOD, pace="early")
        scene.world.wear_out()
        scene.say(RESPONSE, about=1)
        assert scene.world.engine.finished == []
        scene.world.finish(0)
        assert len(scene.world.engine.finished) == 1
        scene.world.provider.acknowledging = "accepts"
        scene.end()
        assert scene.outcome.late
        assert scene.accepted == [(1, "success")]


def test_continued_call_knows_its_cycles_and_its_event_keys() -> None:
    """It goes on with a new key, and what it has heard before stays a duplicate."""
    with staged(facts_of(cycles=1)) as scene:
        scene.go(2)
        scene.say(FAILURE, event_key="e1", retryable=True)
        scene.go(2)
        scene.world.wear_out()
        scene.order("reprocess")
        scene.go(2)
        scene.say(FAILURE, event_key="e1")
        assert scene.status.stage is Stage.AWAITING_RESPONSE
        assert (scene.sent, scene.status.duplicates) == ([1, 2], 1)
        scene.end()


def test_ledger_away_for_a_day_ends_a_call_that_was_never_sent() -> None:
    """It fails with a notice, and what was heard meanwhile is held when the ledger is back."""
    with staged(facts_of()) as scene:
        scene.world.change("ledger", "nothing")
        scene.say(RESPONSE)
        scene.work()
        scene.pass_time(90000)
        assert scene.status.outcome is not None
        scene.end()
        assert scene.outcome.status is OutcomeStatus.FAILED
        assert scene.outcome.notice is not None
        assert [one.event_key for one in scene.world.ledger.held] == ["e1"]
        assert scene.sent == []
