"""Traces worth keeping: each was, or would be, a way to break the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from ackbridge.contracts.calls import Effect, Stage
from ackbridge.contracts.plan import LatePolicy, OnFailure, PollPlan, ReconcilePlan, ResponseMode

from .scenario import (
    EXTENSION,
    FAILURE,
    ONLY_SUCCESS,
    QUEUED,
    RESPONSE,
    Scenario,
    plan,
    running,
    setting_of,
)
from .workers import AttemptResult
from .world import Setting, World

# Ordinary ones


def slow_receipt(scenario: Scenario) -> None:
    """The time the receipt takes is part of the deadline."""
    scenario.go(1)
    scenario.work(pace="late")
    scenario.pass_time()
    scenario.provider_sends(RESPONSE)
    scenario.end()


def late_response_during_the_next_cycle(scenario: Scenario) -> None:
    """It is taken for the first cycle, and the second one is given up."""
    scenario.go(6)
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()


def late_response_that_is_not_accepted(scenario: Scenario) -> None:
    """It is held or ignored, and the second cycle goes on."""
    late_response_during_the_next_cycle(scenario)


def timeouts_under_one_key(scenario: Scenario) -> None:
    """Without failed acknowledgements the same key is sent again and again."""
    scenario.end()


def extension_without_end(scenario: Scenario) -> None:
    """More time than the operation allows is not given."""
    scenario.go(2)
    scenario.provider_sends(EXTENSION, extend_by=timedelta(hours=1))
    scenario.end()


def response_of_another_call(scenario: Scenario) -> None:
    """What the ledger has given to another call is not this one's."""
    scenario.go(2)
    scenario.world.ledger.others.add("e1")
    scenario.provider_sends(RESPONSE)
    scenario.end()


def repeated_response(scenario: Scenario) -> None:
    """The same event is taken once, and logged."""
    scenario.go(2)
    scenario.provider_sends(RESPONSE, event_key="e1", route="soon")
    scenario.provider_sends(RESPONSE, event_key="e1")
    scenario.end()


def cancel_between_two_attempts(scenario: Scenario) -> None:
    """Nothing is sent after it, and what may have arrived is acknowledged as failed."""
    scenario.go(1)
    scenario.work(AttemptResult.LOST)
    scenario.operator("cancel")
    scenario.end()


def success_voids_a_pending_acknowledgement(scenario: Scenario) -> None:
    """A late answer is acknowledged after the failed acknowledgement that was still owed."""
    scenario.go(6)
    scenario.world.provider.acknowledging = "accepts"
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()


def pending_acknowledgement_of_a_continued_call(scenario: Scenario) -> None:
    """What is owed is owed by the run that continues, too."""
    scenario.go(6)
    scenario.crash()
    scenario.world.suggest_continue_as_new()
    scenario.crash()
    scenario.world.provider.acknowledging = "accepts"
    scenario.end()


def repetition_after_a_continuation(scenario: Scenario) -> None:
    """A failure that the run before has received does not count for a later cycle."""
    scenario.go(2)
    scenario.provider_sends(FAILURE, event_key="e1")
    scenario.go(2)
    scenario.world.suggest_continue_as_new()
    scenario.operator("reprocess")
    scenario.go(1)
    scenario.provider_sends(FAILURE, event_key="e1")
    scenario.end()


# Found by the model


def cancel_undoes_the_task_that_has_recorded(scenario: Scenario) -> None:
    """A signal while the task that closes the call is in work makes the engine do it again."""
    scenario.world.status_reply = "response"
    scenario.go(1)
    scenario.operator("cancel", soon=True)
    scenario.end()


def response_undoes_a_failed_acknowledgement(scenario: Scenario) -> None:
    """The failed acknowledgement is done, its task is lost, and an answer has come meanwhile."""
    scenario.go(4)
    scenario.provider_sends(RESPONSE, route="soon")
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def force_undoes_a_failed_end(scenario: Scenario) -> None:
    """The ledger is told the end, and a force makes the engine do its task again."""
    scenario.go(2)
    scenario.provider_sends(FAILURE)
    scenario.go(1)
    scenario.operator("force_ack", soon=True)
    scenario.end()


def failure_overtakes_a_response(scenario: Scenario) -> None:
    """Signals go first when a task is done again."""
    scenario.world.status_reply = "response"
    scenario.go(5)
    scenario.provider_sends(FAILURE, route="soon")
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def cancel_overtakes_a_polled_response(scenario: Scenario) -> None:
    """So does a cancel, which ends the waiting at once."""
    scenario.world.status_reply = "response"
    scenario.go(3)
    scenario.operator("cancel", soon=True)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def cancel_arrives_with_a_polled_response(scenario: Scenario) -> None:
    """The response is received when the call has ended."""
    scenario.world.status_reply = "response"
    scenario.go(2)
    scenario.work(pace="early")
    scenario.operator("cancel", soon=True)
    scenario.world.finish(0)
    scenario.end()


def cancel_after_a_lost_first_send(scenario: Scenario) -> None:
    """No history knows of the send."""
    scenario.go(1)
    scenario.operator("cancel", soon=True)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def failed_attempts_after_a_lost_first_send(scenario: Scenario) -> None:
    """The attempts that history knows of have not arrived."""
    scenario.go(1)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.go(1)
    scenario.work(AttemptResult.THROTTLED)
    scenario.pass_time()
    scenario.work(AttemptResult.THROTTLED)
    scenario.end()


def lost_first_send_of_a_reprocessed_call(scenario: Scenario) -> None:
    """The task that has prepared it was another one."""
    scenario.go(2)
    scenario.operator("reprocess")
    scenario.go(1)
    scenario.operator("cancel", soon=True)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def lost_first_send_after_a_slow_preparation(scenario: Scenario) -> None:
    """The task that has prepared it was committed to be kept alive."""
    scenario.work(pace="late")
    scenario.pass_time(9)
    scenario.operator("cancel", soon=True)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


def no_worker_for_the_second_attempt(scenario: Scenario) -> None:
    """The first one may have arrived."""
    scenario.go(1)
    scenario.work(AttemptResult.LOST)
    scenario.pass_time()
    scenario.pass_time(100)
    scenario.end()


def response_that_is_not_understood(scenario: Scenario) -> None:
    """The provider may have done what was asked: the key stays."""
    scenario.go(3)
    scenario.operator("reprocess")
    scenario.end()


def messages_without_a_plan(scenario: Scenario) -> None:
    """What is received by a call that cannot be prepared is held."""
    scenario.world.change("ledger", "nothing")
    scenario.provider_sends(RESPONSE)
    scenario.work()
    scenario.pass_time(90000)
    scenario.end()


def time_to_live_ends_with_an_acknowledgement_pending(scenario: Scenario) -> None:
    """The stage is not parked any more once the outcome stands."""
    scenario.go(6)
    scenario.pass_time(3600)
    scenario.end()


def attempt_outlives_its_run(scenario: Scenario) -> None:
    """A failed acknowledgement is under way when the call continues as new."""
    scenario.go(6)
    scenario.world.provider.acknowledging = "accepts"
    scenario.work(pace="late")
    scenario.world.suggest_continue_as_new()
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()


def acknowledgement_expires_before_the_call_continues(scenario: Scenario) -> None:
    """Its time is up; it stays owed, and nothing is tried in no time."""
    scenario.go(6)
    scenario.pass_time(2000)
    scenario.world.suggest_continue_as_new()
    scenario.end()


def lost_task_before_a_ledger_outage(scenario: Scenario) -> None:
    """Nobody can tell what was done in the lost task: the effect is unknown."""
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.world.change("ledger", "nothing")
    scenario.work()
    scenario.operator("cancel")
    scenario.end()
    assert scenario.outcome.effect is Effect.UNKNOWN


def lost_send_that_had_outlived_its_task(scenario: Scenario) -> None:
    """It was kept alive, and `prepare` was committed before it was done."""
    scenario.go(1)
    scenario.pass_time(9)
    scenario.operator("cancel", soon=True)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.work(AttemptResult.UNREACHED)
    scenario.end()


def late_answer_of_a_parked_call(scenario: Scenario) -> None:
    """It is taken, held or ignored, as the operation says; it has an effect in any case."""
    scenario.go(6)
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()
    assert scenario.outcome.effect is Effect.DONE


def success_of_called_off_work(scenario: Scenario) -> None:
    """It contradicts the accepted acknowledgement: it is held, and completes nothing."""
    scenario.go(6)
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()
    assert scenario.outcome.effect is Effect.UNKNOWN


def success_of_called_off_work_is_confirmed(scenario: Scenario) -> None:
    """The provider stands by it when it is asked; the cycle that runs is given up."""
    scenario.go(7)
    scenario.world.status_reply = "response"
    scenario.provider_sends(RESPONSE, about=1)
    scenario.end()


def no_luck_after_a_lost_preparation(scenario: Scenario) -> None:
    """The request that was sent with it may have arrived, whatever happens to the next attempts."""
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.go(1)
    scenario.work(AttemptResult.THROTTLED)
    scenario.pass_time()
    scenario.work(AttemptResult.THROTTLED)
    scenario.end()


def refusal_after_a_lost_answer(scenario: Scenario) -> None:
    """It answers its own attempt only."""
    scenario.go(1)
    scenario.work(AttemptResult.LOST)
    scenario.pass_time()
    scenario.work(AttemptResult.REFUSED)
    scenario.end()
    assert scenario.outcome.effect is Effect.UNKNOWN


def acknowledgement_that_is_owed_delays_the_next_cycle(scenario: Scenario) -> None:
    """Nothing is sent before the provider has accepted it."""
    scenario.go(5)
    scenario.pass_time(100)
    assert scenario.sent == [1]
    assert scenario.status.answer == "delayed"
    scenario.world.provider.acknowledging = "accepts"
    scenario.go(3)
    assert scenario.sent == [1, 2]
    scenario.end()


def unknown_end_that_is_reconciled_by_another_run(scenario: Scenario) -> None:
    """The outcome, and the time that is left, are those of the run before."""
    scenario.go(6)
    assert scenario.status.stage is Stage.RECONCILING
    scenario.world.suggest_continue_as_new()
    assert len(scenario.world.engine.finished) == 1
    assert scenario.status.outcome is not None
    scenario.world.status_reply = "response"
    scenario.end()
    assert (scenario.outcome.effect, scenario.outcome.late) == (Effect.DONE, True)


def request_that_may_not_be_repeated(scenario: Scenario) -> None:
    """Not by a retry, not by a cycle, and not by an operator."""
    scenario.go(1)
    scenario.work(AttemptResult.LOST)
    scenario.go(2)
    scenario.operator("reprocess")
    scenario.end()
    assert scenario.sent == [1]


Script = Callable[[Scenario], None]


def steps_are_combined(scenario: Scenario) -> None:
    """Prepared and sent, recorded and acknowledged: two activities."""
    scenario.work()
    scenario.provider_sends(RESPONSE, about=1)
    scenario.work()
    assert scenario.accepted == [(1, "success")]
    scenario.end()
    assert scenario.outcome.attempts == 1


def contradiction_under_one_event_key(scenario: Scenario) -> None:
    """One event key, two contents, in one instant, by two ways: the second one is logged."""
    at = scenario.world.engine.now
    scenario.provider_sends(RESPONSE, event_key="e1", received_at=at)
    scenario.provider_sends(FAILURE, event_key="e1", received_at=at, route="inbox")
    scenario.end()


def combined_send_is_lost(scenario: Scenario) -> None:
    """It may have arrived: it is sent again under its key, and given up if that fails as well."""
    scenario.work(AttemptResult.LOST)
    scenario.pass_time()
    scenario.work(AttemptResult.UNREACHED)
    scenario.end()


def combined_send_is_refused(scenario: Scenario) -> None:
    """A refusal ends the call as if the request had gone out by itself."""
    scenario.work(AttemptResult.REFUSED)
    scenario.end()


def cancel_comes_with_the_start(scenario: Scenario) -> None:
    """The task that has sent is lost, and done again together with a cancel: nothing is sent."""
    scenario.work(pace="late")
    scenario.operator("cancel", soon=True)
    scenario.crash()
    scenario.end()


def combined_acknowledgement_is_not_accepted(scenario: Scenario) -> None:
    """The response stands, and what the provider has not accepted is paid later."""
    scenario.work()
    scenario.provider_sends(RESPONSE, about=1)
    scenario.work()
    assert scenario.status.acknowledgements_owed == 1
    scenario.end()


def acknowledgement_after_a_task_that_was_lost(scenario: Scenario) -> None:
    """A worker dies with both done: they are done again, and change nothing."""
    scenario.work()
    scenario.provider_sends(RESPONSE, about=1)
    scenario.work(AttemptResult.DIES_AFTER)
    scenario.end()


NO_ACKNOWLEDGEMENT = {"acknowledge": None, "cycles": 1, "on_failure": OnFailure.FAIL}
POLLED = {
    "mode": ResponseMode.POLL,
    "poll": PollPlan(every=timedelta(seconds=3), timeout=timedelta(seconds=5)),
    "send": QUEUED,
}

COMBINED = Setting(plan=plan())

SCENARIOS: list[tuple[Script, Setting]] = [
    (slow_receipt, setting_of()),
    (late_response_during_the_next_cycle, setting_of()),
    (late_response_that_is_not_accepted, setting_of(late=LatePolicy.HOLD)),
    (late_response_that_is_not_accepted, setting_of(late=LatePolicy.IGNORE)),
    (timeouts_under_one_key, setting_of(acknowledge=ONLY_SUCCESS)),
    (extension_without_end, setting_of()),
    (response_of_another_call, setting_of()),
    (repeated_response, setting_of()),
    (cancel_between_two_attempts, setting_of()),
    (success_voids_a_pending_acknowledgement, replace(setting_of(cycles=1), acknowledging="down")),
    (
        pending_acknowledgement_of_a_continued_call,
        replace(setting_of(cycles=1), acknowledging="down"),
    ),
    (repetition_after_a_continuation, setting_of(cycles=1)),
    (cancel_undoes_the_task_that_has_recorded, Setting(plan=plan(mode=ResponseMode.SYNC))),
    (response_undoes_a_failed_acknowledgement, setting_of()),
    (force_undoes_a_failed_end, setting_of(**NO_ACKNOWLEDGEMENT)),
    (
        failure_overtakes_a_response,
        replace(setting_of(ask_status=True, late=LatePolicy.IGNORE), is_batched=False),
    ),
    (cancel_overtakes_a_polled_response, replace(setting_of(**POLLED), is_batched=False)),
    (cancel_arrives_with_a_polled_response, setting_of(**POLLED)),
    (cancel_after_a_lost_first_send, setting_of()),
    (failed_attempts_after_a_lost_first_send, setting_of()),
    (lost_first_send_of_a_reprocessed_call, setting_of(not_now="switched off")),
    (lost_first_send_after_a_slow_preparation, setting_of()),
    (no_worker_for_the_second_attempt, setting_of()),
    (response_that_is_not_understood, setting_of(mode=ResponseMode.SYNC, acknowledge=ONLY_SUCCESS)),
    (messages_without_a_plan, setting_of()),
    (
        time_to_live_ends_with_an_acknowledgement_pending,
        replace(setting_of(cycles=1), acknowledging="down"),
    ),
    (
        acknowledgement_expires_before_the_call_continues,
        replace(setting_of(cycles=1), acknowledging="down"),
    ),
    (attempt_outlives_its_run, replace(setting_of(cycles=1), acknowledging="down")),
    (steps_are_combined, COMBINED),
    (contradiction_under_one_event_key, COMBINED),
    (combined_send_is_lost, COMBINED),
    (combined_send_is_refused, COMBINED),
    (cancel_comes_with_the_start, COMBINED),
    (combined_acknowledgement_is_not_accepted, replace(COMBINED, acknowledging="down")),
    (acknowledgement_after_a_task_that_was_lost, COMBINED),
    (late_answer_of_a_parked_call, setting_of(cycles=1, undoes=False)),
    (late_answer_of_a_parked_call, setting_of(cycles=1, undoes=False, late=LatePolicy.HOLD)),
    (late_answer_of_a_parked_call, setting_of(cycles=1, undoes=False, late=LatePolicy.IGNORE)),
    (success_of_called_off_work, setting_of()),
    (success_of_called_off_work_is_confirmed, setting_of(ask_status=True)),
    (no_luck_after_a_lost_preparation, COMBINED),
    (refusal_after_a_lost_answer, setting_of(acknowledge=ONLY_SUCCESS)),
    (
        acknowledgement_that_is_owed_delays_the_next_cycle,
        replace(setting_of(), acknowledging="down"),
    ),
    (
        unknown_end_that_is_reconciled_by_another_run,
        setting_of(
            acknowledge=None,
            cycles=1,
            on_failure=OnFailure.FAIL,
            ask_status=True,
            reconcile=ReconcilePlan(every=timedelta(minutes=5), within=timedelta(hours=1)),
        ),
    ),
    (request_that_may_not_be_repeated, setting_of(repeatable=False, acknowledge=ONLY_SUCCESS)),
    (lost_task_before_a_ledger_outage, COMBINED),
    (lost_send_that_had_outlived_its_task, setting_of()),
    (lost_send_that_had_outlived_its_task, COMBINED),
]


def run_scenario(scenario: Script, setting: Setting) -> World:
    """Let it happen, checking every invariant at every turn.

    Raises:
        AssertionError: one does not hold.
    """
    with running(setting) as played:
        scenario(played)
    return played.world


def run_all() -> None:
    """Run every scenario.

    Raises:
        AssertionError: something does not hold in one of them.
    """
    for scenario, setting in SCENARIOS:
        run_scenario(scenario, setting)
