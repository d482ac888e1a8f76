"""Traces worth keeping: each was, or would be, a way to break the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from ackbridge.contracts.calls import Effect, Stage
from ackbridge.contracts.plan import LatePolicy, OnFailure, PollPlan, ReconcilePlan, ResponseMode

from .stage import (
    EXTENSION,
    FAILURE,
    ONLY_SUCCESS,
    QUEUED,
    RESPONSE,
    Scene,
    facts_of,
    plan,
    staged,
)
from .workers import Luck
from .world import Facts, World

# Ordinary ones


def slow_receipt(scene: Scene) -> None:
    """The time the receipt takes is part of the deadline."""
    scene.go(1)
    scene.work(pace="late")
    scene.pass_time()
    scene.say(RESPONSE)
    scene.end()


def late_answer_while_the_next_cycle_runs(scene: Scene) -> None:
    """It is taken for the first cycle, and the second one is given up."""
    scene.go(6)
    scene.say(RESPONSE, about=1)
    scene.end()


def late_answer_that_is_not_welcome(scene: Scene) -> None:
    """It is held or ignored, and the second cycle goes on."""
    late_answer_while_the_next_cycle_runs(scene)


def silence_under_one_key(scene: Scene) -> None:
    """Without failed acknowledgements the same key is sent again and again."""
    scene.end()


def extension_without_end(scene: Scene) -> None:
    """More time than the operation allows is not given."""
    scene.go(2)
    scene.say(EXTENSION, extend_by=timedelta(hours=1))
    scene.end()


def answer_of_another_call(scene: Scene) -> None:
    """What the ledger has given to another call is not this one's."""
    scene.go(2)
    scene.world.ledger.others.add("e1")
    scene.say(RESPONSE)
    scene.end()


def repeated_answer(scene: Scene) -> None:
    """The same event is taken once, and logged."""
    scene.go(2)
    scene.say(RESPONSE, event_key="e1", route="soon")
    scene.say(RESPONSE, event_key="e1")
    scene.end()


def cancel_between_two_attempts(scene: Scene) -> None:
    """Nothing is sent after it, and what may have arrived is acknowledged as failed."""
    scene.go(1)
    scene.work(Luck.LOST)
    scene.order("cancel")
    scene.end()


def success_that_voids_a_debt(scene: Scene) -> None:
    """A late answer is acknowledged after the failed acknowledgement that was still owed."""
    scene.go(6)
    scene.world.provider.acknowledging = "accepts"
    scene.say(RESPONSE, about=1)
    scene.end()


def debt_of_a_continued_call(scene: Scene) -> None:
    """What is owed is owed by the run that continues, too."""
    scene.go(6)
    scene.crash()
    scene.world.wear_out()
    scene.crash()
    scene.world.provider.acknowledging = "accepts"
    scene.end()


def repetition_after_a_continuation(scene: Scene) -> None:
    """A failure that the run before has heard does not count for a later cycle."""
    scene.go(2)
    scene.say(FAILURE, event_key="e1")
    scene.go(2)
    scene.world.wear_out()
    scene.order("reprocess")
    scene.go(1)
    scene.say(FAILURE, event_key="e1")
    scene.end()


# Found by the model


def cancel_undoes_the_task_that_has_recorded(scene: Scene) -> None:
    """A signal while the task that closes the call is in work makes the engine do it again."""
    scene.world.answering = "response"
    scene.go(1)
    scene.order("cancel", soon=True)
    scene.end()


def answer_undoes_a_failed_acknowledgement(scene: Scene) -> None:
    """The failed acknowledgement is done, its task is lost, and an answer has come meanwhile."""
    scene.go(4)
    scene.say(RESPONSE, route="soon")
    scene.work(Luck.DIES_AFTER)
    scene.end()


def force_undoes_a_failed_end(scene: Scene) -> None:
    """The ledger is told the end, and a force makes the engine do its task again."""
    scene.go(2)
    scene.say(FAILURE)
    scene.go(1)
    scene.order("force_ack", soon=True)
    scene.end()


def failure_overtakes_an_answer(scene: Scene) -> None:
    """Signals go first when a task is done again."""
    scene.world.answering = "response"
    scene.go(5)
    scene.say(FAILURE, route="soon")
    scene.work(Luck.DIES_AFTER)
    scene.end()


def cancel_overtakes_a_polled_answer(scene: Scene) -> None:
    """So does an order, which ends the listening at once."""
    scene.world.answering = "response"
    scene.go(3)
    scene.order("cancel", soon=True)
    scene.work(Luck.DIES_AFTER)
    scene.end()


def cancel_comes_with_a_polled_answer(scene: Scene) -> None:
    """The answer is heard when the end stands already."""
    scene.world.answering = "response"
    scene.go(2)
    scene.work(pace="early")
    scene.order("cancel", soon=True)
    scene.world.finish(0)
    scene.end()


def cancel_after_a_lost_first_send(scene: Scene) -> None:
    """No history knows of the send."""
    scene.go(1)
    scene.order("cancel", soon=True)
    scene.work(Luck.DIES_AFTER)
    scene.end()


def no_luck_after_a_lost_first_send(scene: Scene) -> None:
    """The attempts that history knows of have not arrived."""
    scene.go(1)
    scene.work(Luck.DIES_AFTER)
    scene.go(1)
    scene.work(Luck.THROTTLED)
    scene.pass_time()
    scene.work(Luck.THROTTLED)
    scene.end()


def lost_first_send_of_a_reprocessed_call(scene: Scene) -> None:
    """The task that has prepared it was another one."""
    scene.go(2)
    scene.order("reprocess")
    scene.go(1)
    scene.order("cancel", soon=True)
    scene.work(Luck.DIES_AFTER)
    scene.end()


def lost_first_send_after_a_slow_preparation(scene: Scene) -> None:
    """The task that has prepared it was committed to be kept alive."""
    scene.work(pace="late")
    scene.pass_time(9)
    scene.order("cancel", soon=True)
    scene.work(Luck.DIES_AFTER)
    scene.end()


def nobody_takes_up_the_second_attempt(scene: Scene) -> None:
    """The first one may have arrived."""
    scene.go(1)
    scene.work(Luck.LOST)
    scene.pass_time()
    scene.pass_time(100)
    scene.end()


def answer_that_nobody_understands(scene: Scene) -> None:
    """The provider may have done what was asked: the key stays."""
    scene.go(3)
    scene.order("reprocess")
    scene.end()


def messages_without_a_plan(scene: Scene) -> None:
    """What is heard by a call that cannot be prepared is held."""
    scene.world.change("ledger", "nothing")
    scene.say(RESPONSE)
    scene.work()
    scene.pass_time(90000)
    scene.end()


def time_to_live_ends_while_something_is_owed(scene: Scene) -> None:
    """The stage is not parked any more once the outcome stands."""
    scene.go(6)
    scene.pass_time(3600)
    scene.end()


def attempt_outlives_its_run(scene: Scene) -> None:
    """A failed acknowledgement is under way when the call continues as new."""
    scene.go(6)
    scene.world.provider.acknowledging = "accepts"
    scene.work(pace="late")
    scene.world.wear_out()
    scene.say(RESPONSE, about=1)
    scene.end()


def debt_that_is_over_when_the_call_is_continued(scene: Scene) -> None:
    """Its time is up; it stays owed, and nothing is tried in no time."""
    scene.go(6)
    scene.pass_time(2000)
    scene.world.wear_out()
    scene.end()


def lost_task_before_a_ledger_outage(scene: Scene) -> None:
    """Nobody can tell what was done in the lost task: the effect is unknown."""
    scene.work(Luck.DIES_AFTER)
    scene.world.change("ledger", "nothing")
    scene.work()
    scene.order("cancel")
    scene.end()
    assert scene.outcome.effect is Effect.UNKNOWN


def lost_send_that_had_outlived_its_task(scene: Scene) -> None:
    """It was kept alive, and `prepare` was committed before it was done."""
    scene.go(1)
    scene.pass_time(9)
    scene.order("cancel", soon=True)
    scene.work(Luck.DIES_AFTER)
    scene.work(Luck.UNREACHED)
    scene.end()


def late_answer_of_a_parked_call(scene: Scene) -> None:
    """It is taken, held or ignored, as the operation says; it has an effect in any case."""
    scene.go(6)
    scene.say(RESPONSE, about=1)
    scene.end()
    assert scene.outcome.effect is Effect.DONE


def success_of_called_off_work(scene: Scene) -> None:
    """It contradicts the accepted acknowledgement: it is held, and completes nothing."""
    scene.go(6)
    scene.say(RESPONSE, about=1)
    scene.end()
    assert scene.outcome.effect is Effect.UNKNOWN


def success_of_called_off_work_is_confirmed(scene: Scene) -> None:
    """The provider stands by it when it is asked; the cycle that runs is given up."""
    scene.go(7)
    scene.world.answering = "response"
    scene.say(RESPONSE, about=1)
    scene.end()


def no_luck_after_a_lost_preparation(scene: Scene) -> None:
    """The request that was sent with it may have arrived, whatever happens to the next attempts."""
    scene.work(Luck.DIES_AFTER)
    scene.go(1)
    scene.work(Luck.THROTTLED)
    scene.pass_time()
    scene.work(Luck.THROTTLED)
    scene.end()


def refusal_after_a_lost_answer(scene: Scene) -> None:
    """It answers its own attempt only."""
    scene.go(1)
    scene.work(Luck.LOST)
    scene.pass_time()
    scene.work(Luck.REFUSED)
    scene.end()
    assert scene.outcome.effect is Effect.UNKNOWN


def acknowledgement_that_is_owed_delays_the_next_cycle(scene: Scene) -> None:
    """Nothing is sent before the provider has accepted it."""
    scene.go(5)
    scene.pass_time(100)
    assert scene.sent == [1]
    assert scene.status.answer == "delayed"
    scene.world.provider.acknowledging = "accepts"
    scene.go(3)
    assert scene.sent == [1, 2]
    scene.end()


def unknown_end_that_is_reconciled_by_another_run(scene: Scene) -> None:
    """The outcome, and the time that is left, are those of the run before."""
    scene.go(6)
    assert scene.status.stage is Stage.RECONCILING
    scene.world.wear_out()
    assert len(scene.world.engine.finished) == 1
    assert scene.status.outcome is not None
    scene.world.answering = "response"
    scene.end()
    assert (scene.outcome.effect, scene.outcome.late) == (Effect.DONE, True)


def request_that_may_not_be_repeated(scene: Scene) -> None:
    """Not by a retry, not by a cycle, and not by an operator."""
    scene.go(1)
    scene.work(Luck.LOST)
    scene.go(2)
    scene.order("reprocess")
    scene.end()
    assert scene.sent == [1]


Play = Callable[[Scene], None]


def everything_rides_along(scene: Scene) -> None:
    """Prepared and sent, recorded and acknowledged: two activities."""
    scene.work()
    scene.say(RESPONSE, about=1)
    scene.work()
    assert scene.accepted == [(1, "success")]
    scene.end()
    assert scene.outcome.attempts == 1


def answer_that_contradicts_what_rode_along(scene: Scene) -> None:
    """One event key, two contents, in one instant, by two ways: the second one is logged."""
    at = scene.world.engine.now
    scene.say(RESPONSE, event_key="e1", received_at=at)
    scene.say(FAILURE, event_key="e1", received_at=at, route="inbox")
    scene.end()


def request_that_rode_along_is_lost(scene: Scene) -> None:
    """It may have arrived: it is sent again under its key, and given up if that fails as well."""
    scene.work(Luck.LOST)
    scene.pass_time()
    scene.work(Luck.UNREACHED)
    scene.end()


def request_that_rode_along_is_refused(scene: Scene) -> None:
    """A refusal ends the call as if the request had gone out by itself."""
    scene.work(Luck.REFUSED)
    scene.end()


def cancel_comes_with_the_start(scene: Scene) -> None:
    """The task that has sent is lost, and done again together with a cancel: nothing is sent."""
    scene.work(pace="late")
    scene.order("cancel", soon=True)
    scene.crash()
    scene.end()


def acknowledgement_that_rode_along_is_owed(scene: Scene) -> None:
    """The response stands, and what the provider has not accepted is paid later."""
    scene.work()
    scene.say(RESPONSE, about=1)
    scene.work()
    assert scene.status.acknowledgements_owed == 1
    scene.end()


def acknowledgement_after_a_task_that_was_lost(scene: Scene) -> None:
    """A worker dies with both done: they are done again, and change nothing."""
    scene.work()
    scene.say(RESPONSE, about=1)
    scene.work(Luck.DIES_AFTER)
    scene.end()


NO_ACKNOWLEDGEMENT = {"acknowledge": None, "cycles": 1, "on_failure": OnFailure.FAIL}
POLLED = {
    "mode": ResponseMode.POLL,
    "poll": PollPlan(every=timedelta(seconds=3), timeout=timedelta(seconds=5)),
    "send": QUEUED,
}

RIDING = Facts(plan=plan())

SCENES: list[tuple[Play, Facts]] = [
    (slow_receipt, facts_of()),
    (late_answer_while_the_next_cycle_runs, facts_of()),
    (late_answer_that_is_not_welcome, facts_of(late=LatePolicy.HOLD)),
    (late_answer_that_is_not_welcome, facts_of(late=LatePolicy.IGNORE)),
    (silence_under_one_key, facts_of(acknowledge=ONLY_SUCCESS)),
    (extension_without_end, facts_of()),
    (answer_of_another_call, facts_of()),
    (repeated_answer, facts_of()),
    (cancel_between_two_attempts, facts_of()),
    (success_that_voids_a_debt, replace(facts_of(cycles=1), acknowledging="down")),
    (debt_of_a_continued_call, replace(facts_of(cycles=1), acknowledging="down")),
    (repetition_after_a_continuation, facts_of(cycles=1)),
    (cancel_undoes_the_task_that_has_recorded, Facts(plan=plan(mode=ResponseMode.SYNC))),
    (answer_undoes_a_failed_acknowledgement, facts_of()),
    (force_undoes_a_failed_end, facts_of(**NO_ACKNOWLEDGEMENT)),
    (
        failure_overtakes_an_answer,
        replace(facts_of(ask_status=True, late=LatePolicy.IGNORE), is_batched=False),
    ),
    (cancel_overtakes_a_polled_answer, replace(facts_of(**POLLED), is_batched=False)),
    (cancel_comes_with_a_polled_answer, facts_of(**POLLED)),
    (cancel_after_a_lost_first_send, facts_of()),
    (no_luck_after_a_lost_first_send, facts_of()),
    (lost_first_send_of_a_reprocessed_call, facts_of(not_now="switched off")),
    (lost_first_send_after_a_slow_preparation, facts_of()),
    (nobody_takes_up_the_second_attempt, facts_of()),
    (answer_that_nobody_understands, facts_of(mode=ResponseMode.SYNC, acknowledge=ONLY_SUCCESS)),
    (messages_without_a_plan, facts_of()),
    (time_to_live_ends_while_something_is_owed, replace(facts_of(cycles=1), acknowledging="down")),
    (
        debt_that_is_over_when_the_call_is_continued,
        replace(facts_of(cycles=1), acknowledging="down"),
    ),
    (attempt_outlives_its_run, replace(facts_of(cycles=1), acknowledging="down")),
    (everything_rides_along, RIDING),
    (answer_that_contradicts_what_rode_along, RIDING),
    (request_that_rode_along_is_lost, RIDING),
    (request_that_rode_along_is_refused, RIDING),
    (cancel_comes_with_the_start, RIDING),
    (acknowledgement_that_rode_along_is_owed, replace(RIDING, acknowledging="down")),
    (acknowledgement_after_a_task_that_was_lost, RIDING),
    (late_answer_of_a_parked_call, facts_of(cycles=1, undoes=False)),
    (late_answer_of_a_parked_call, facts_of(cycles=1, undoes=False, late=LatePolicy.HOLD)),
    (late_answer_of_a_parked_call, facts_of(cycles=1, undoes=False, late=LatePolicy.IGNORE)),
    (success_of_called_off_work, facts_of()),
    (success_of_called_off_work_is_confirmed, facts_of(ask_status=True)),
    (no_luck_after_a_lost_preparation, RIDING),
    (refusal_after_a_lost_answer, facts_of(acknowledge=ONLY_SUCCESS)),
    (
        acknowledgement_that_is_owed_delays_the_next_cycle,
        replace(facts_of(), acknowledging="down"),
    ),
    (
        unknown_end_that_is_reconciled_by_another_run,
        facts_of(
            acknowledge=None,
            cycles=1,
            on_failure=OnFailure.FAIL,
            ask_status=True,
            reconcile=ReconcilePlan(every=timedelta(minutes=5), within=timedelta(hours=1)),
        ),
    ),
    (request_that_may_not_be_repeated, facts_of(repeatable=False, acknowledge=ONLY_SUCCESS)),
    (lost_task_before_a_ledger_outage, RIDING),
    (lost_send_that_had_outlived_its_task, facts_of()),
    (lost_send_that_had_outlived_its_task, RIDING),
]


def play(scene: Play, facts: Facts) -> World:
    """Let it happen, checking every invariant at every turn.

    Raises:
        AssertionError: one does not hold.
    """
    with staged(facts) as played:
        scene(played)
    return played.world


def play_all() -> None:
    """Let every scene happen.

    Raises:
        AssertionError: something does not hold in one of them.
    """
    for scene, facts in SCENES:
        play(scene, facts)
